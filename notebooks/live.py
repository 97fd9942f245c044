"""What the notebooks share: one live picture, and work in a thread with buttons to start and stop it.

Charts come from `app.charts`. Here they only become one FigureWidget, in colours that read on
light and dark pages, and work runs beside the kernel so that sliders and the Stop button answer meanwhile.
"""

import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import anywidget
import ipywidgets
import plotly.graph_objects as go
import torch
from IPython.display import display
from transformers.utils.logging import disable_progress_bar

from app.charts import plots
from zocore import RunConfig, Session
from zocore.runs import opening

disable_progress_bar()  # a bar for each session opened says nothing here
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # nor does the lack of its optional kernels
if "google.colab" in sys.modules:  # Colab shows widgets from packages only when asked to
    import_module("google.colab.output").enable_custom_widget_manager()

FAST = os.environ.get("ZO_FAST") == "1"  # fewer steps, for a check that everything runs
SERVED = "JPY_SESSION_NAME" in os.environ  # a Jupyter server started this kernel, so its notebook will be saved
WIDGET = "application/vnd.jupyter.widget-view+json"
TICK = 0.3  # seconds between two drawings
GAP = 0.2  # of the width, between two panels
WIDTHS = (760, 1100)  # pixels; a picture follows its pane between these, below the first one scrolls
CONFIG = {  # of Plotly: few buttons, which would lie over the titles
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
}
INK = plots.EITHER["ink"]
RGB = ", ".join(str(int(INK[i : i + 2], 16)) for i in (1, 3, 5))
STYLE = (  # text in the neutral ink takes the colour of the page's own text, where the page has one
    f"<style>.zo-picture .main-svg text[style*='rgb({RGB})']"
    "{fill: var(--jp-ui-font-color1, currentColor) !important}"
    f".zo-picture {{max-width: {WIDTHS[1]}px; overflow-x: auto}}"
    f".zo-picture .js-plotly-plot {{min-width: {WIDTHS[0]}px}}"
    "body.jp-Notebook .jupyter-widgets.zo-picture {display: none}</style>"  # an exported page has the copy
)

Stopped = Callable[[], bool]
_loading = threading.Lock()


def steps(full: int, fast: int) -> int:
    """Return the number of steps: `full`, or `fast` where ZO_FAST=1 asks for a quick check."""
    return fast if FAST else full


def open_session(config: RunConfig) -> Session:
    """Return a session of its own; one at a time, since transformers cannot load two models in two threads."""
    with _loading:
        return opening.open_session(config)


def versions() -> None:
    """Print what the numbers of a notebook depend on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    names = ("torch", "transformers", "plotly", "ipywidgets")
    print("Python", platform.python_version(), *(f"· {name} {version(name)}" for name in names))
    print("device:", device, "· fast mode: few steps, numbers rougher" if FAST else "")


def bundle(widget: ipywidgets.Widget | None, otherwise: str) -> dict[str, Any]:
    """A widget, and what a page without widgets shows; None is nothing to see where there are widgets."""
    view = {"model_id": widget.model_id if widget else "", "version_major": 2, "version_minor": 0}
    return {WIDGET: view, "text/html": otherwise}


def show(widget: ipywidgets.Widget | None, otherwise: str) -> Any:
    """Display a widget, or `otherwise` on a page without widgets; return a handle to change it."""
    return display(bundle(widget, otherwise), raw=True, display_id=True)


class Follower(anywidget.AnyWidget):
    """Nothing to see: tells the page when the pane around it changes its width, as Plotly listens to the page alone."""

    _esm = """
    export default {render({el}) {
        const seen = new ResizeObserver(() => window.dispatchEvent(new Event("resize")));
        seen.observe(el);
        return () => seen.disconnect();
    }}
    """


class Picture:
    """One FigureWidget with a titled panel for each chart, side by side, as wide as its pane."""

    def __init__(self, *panels: tuple[str, plots.Figure], height: int = 440) -> None:
        self.count = len(panels)
        self.titles = [title for title, _ in panels]
        self.widget = go.FigureWidget()
        self.widget._config = self.widget._config | CONFIG
        self._place: Any = None
        self._turn = threading.RLock()  # a FigureWidget is not made for two threads at once
        notes = [self._title(number) for number in range(self.count)]
        self.widget.layout.update(
            plots.themed({"data": [], "layout": plots.layout(height=height, autosize=True)}, None)["layout"]
        )
        self.widget.layout.update(margin={"l": 60, "r": 20, "t": 34, "b": 40}, annotations=notes, legend={})
        for number, (_, figure) in enumerate(panels):
            self.show(number, figure)

    def show(self, number: int, figure: plots.Figure) -> None:
        """Draw a chart in a panel; zoom stays."""
        themed = plots.themed(figure, None)
        traces = [self._trace(number, trace) for trace in themed["data"]]
        with self._turn, self.widget.batch_update():
            held = [trace for trace in self.widget.data if trace.meta == number]
            if [trace.type for trace in held] == [trace["type"] for trace in traces]:
                for old, new in zip(held, traces, strict=True):
                    old.update(new)
            else:
                self.widget.data = [trace for trace in self.widget.data if trace.meta != number]
                self.widget.add_traces(traces)
            self.widget.layout.update(self._layout(number, themed["layout"]))

    def beside(self, *controls: ipywidgets.Widget) -> None:
        """Display the controls above the picture."""
        follower = Follower(layout={"width": "100%", "height": "0", "overflow": "hidden", "margin": "0"})
        box = ipywidgets.VBox([ipywidgets.HTML(STYLE), *controls, follower, self.widget])
        box.add_class("zo-picture")
        show(box, "")
        self._place = show(None, "")

    def keep(self) -> None:
        """Leave a copy of the picture as it is now, for a page exported from this notebook; nothing to see in Lab.

        In a notebook that will be saved the copy takes Plotly from the network and is small; elsewhere it holds it.
        """
        plotly = "cdn" if SERVED else True
        drawn = self.widget.to_html(include_plotlyjs=plotly, full_html=False, config=CONFIG)
        self._place.update(bundle(None, f"{STYLE}<div class='zo-picture'>{drawn}</div>"), raw=True)

    def _title(self, number: int) -> dict[str, Any]:
        left, _ = self._domain(number)
        text = {"text": f"<b>{self.titles[number]}</b>", "font": {"size": 13}, "showarrow": False}
        return text | {"xref": "paper", "yref": "paper", "x": left, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}

    def _domain(self, number: int) -> tuple[float, float]:
        width = (1 - GAP * (self.count - 1)) / self.count
        return number * (width + GAP), number * (width + GAP) + width

    def _axis(self, number: int, name: str) -> str:
        """The name of a panel's axis in the whole picture: each panel owns x, y and a second y."""
        place = {"x": number + 1, "y": 2 * number + 1, "y2": 2 * number + 2}[name]
        return name[0] + (str(place) if place > 1 else "")

    def _trace(self, number: int, trace: plots.Trace) -> plots.Trace:
        axes = {"xaxis": self._axis(number, "x"), "yaxis": self._axis(number, trace.get("yaxis", "y"))}
        seen = {"opacity": max(0.6, trace.get("opacity", 1.0))}  # fainter lines are lost on a dark page
        return trace | axes | seen | {"meta": number, "legend": "legend" + (str(number + 1) if number else "")}

    def _layout(self, number: int, layout: dict[str, Any]) -> dict[str, Any]:
        """A chart's axes and legend, moved to their panel."""
        left, right = self._domain(number)
        x, y, y2 = (self._axis(number, name) for name in ("x", "y", "y2"))
        narrow = {"domain": [left, right], "anchor": y, "tickangle": 0}  # slanted labels would run into the legend
        moved = {"xaxis" + x[1:]: layout["xaxis"] | {"nticks": 5} | narrow}
        moved["yaxis" + y[1:]] = layout["yaxis"] | {"anchor": x}
        if "yaxis2" in layout:
            moved["yaxis" + y2[1:]] = layout["yaxis2"] | {"overlaying": y, "anchor": x}
        legend = {
            "orientation": "v",
            "x": left,
            "y": -0.19,
            "yanchor": "top",
            "font": {"size": 11},
            "traceorder": "normal",
        }
        moved["legend" + (str(number + 1) if number else "")] = legend
        return moved | {name: layout[name] for name in ("barmode", "bargap") if name in layout}


class Work:
    """Something that goes on in a thread: Start and Stop, a word on how it stands, and the picture kept up to date.

    `work(stopped)` yields whatever it finds and should end soon after `stopped()` turns true; `draw(found)` shows
    all that was found so far. An error in either is raised again by `wait`.
    """

    def __init__(self, label: str, work: Callable[[Stopped], Iterable[Any]], draw: Callable[[list[Any]], None]) -> None:
        self.work, self.draw = work, draw
        self.found: list[Any] = []
        self.error: BaseException | None = None
        self._stop, self._thread = threading.Event(), threading.Thread()
        self.go = ipywidgets.Button(description=label, icon="play", button_style="primary")
        self.halt = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self.said = ipywidgets.HTML("not started")
        self.go.on_click(lambda _: self.start())
        self.halt.on_click(lambda _: self.stop())
        self.buttons = ipywidgets.HBox([self.go, self.halt, self.said])

    def start(self) -> None:
        """Begin anew, unless it is going on."""
        if self._thread.is_alive():
            return
        self.found, self.error = [], None
        self._stop.clear()
        self.go.disabled, self.halt.disabled, self.said.value = True, False, "running"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end after what it is doing now."""
        self._stop.set()
        if self._thread.is_alive():
            self.said.value = "stops after this step"

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set()

    def wait(self) -> list[Any]:
        """Return what it found once it is over; start it when nobody has."""
        if not self.found and not self._thread.is_alive() and self.error is None:
            self.start()
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self.found

    def _run(self) -> None:
        started = drawn = time.monotonic()
        try:
            for item in self.work(self._stop.is_set):
                self.found.append(item)
                if time.monotonic() - drawn > TICK:
                    self.draw(self.found)
                    drawn = time.monotonic()
            self.draw(self.found)
            word = "stopped" if self._stop.is_set() else "done"
            self.said.value = f"{word} after {time.monotonic() - started:.0f} s"
        except BaseException as error:
            self.error = error
            self.said.value = f"failed: {error}"
        finally:
            self.go.disabled, self.halt.disabled = False, True


def slider(values: Sequence[Any], value: Any, label: str, on_move: Callable[[Any], None]) -> ipywidgets.SelectionSlider:
    """Return a slider over the values that calls `on_move` with the chosen one."""
    options = [(f"{v:.2g}" if isinstance(v, float) else str(v), v) for v in values]
    made = ipywidgets.SelectionSlider(
        options=options,
        value=value,
        description=label,
        continuous_update=True,
        style={"description_width": "initial"},
        layout={"width": "330px"},
    )
    made.observe(lambda change: on_move(change["new"]), "value")
    return made


def guess(*options: str) -> ipywidgets.ToggleButtons:
    """Show the choices of a prediction and return the buttons; `.value` is None until one is pressed."""
    made = ipywidgets.ToggleButtons(options=options, value=None, style={"button_width": "auto"})
    show(made, "To choose from: " + ", ".join(options))
    return made


def trace(x: Sequence[float], y: Sequence[float], name: str, colour: str, **look: Any) -> plots.Trace:
    """Return one line in a colour; `dash`, `width`, `mode` and whatever a Plotly scatter takes change its look."""
    line = {"color": colour, "width": look.pop("width", 2.5), "dash": look.pop("dash", "solid")}
    marker = {"color": colour, "size": look.pop("size", 9)} | look.pop("marker", {})
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "name": name,
        "line": line,
        "marker": marker,
    } | look
