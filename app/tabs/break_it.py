"""The Break it tab: one press starts a run that is broken in one way, and the Play tab shows how it goes."""

from dataclasses import replace
from typing import Any

import gradio as gr

from app import words
from app.form import controls, data_form
from app.form.starting import Guest, begin
from app.jobs.store import JobStore
from app.quiet import QUIET
from app.tabs.live import Drawn
from app.tabs.play import Handlers, tick_outputs
from app.tabs.tab import Site, Tab
from zocore.diagnostics.broken_runs import FAULTS

STEPS = 200  # at most: the detector usually ends the run sooner


def lay_out(site: Site) -> None:
    """Lay the tab out and connect it."""
    play, store, visitor, handlers = site.play, site.store, site.visitor, Handlers(site.store, site.play.form)
    gr.HTML(f"<p class='zo-lead'>{words.ABOUT_BREAK}</p>")
    problem = gr.HTML("", elem_id="zo-break-problem")
    with gr.Row(elem_classes="zo-cards", equal_height=True):
        for name, fault in FAULTS.items():
            with gr.Column(elem_classes="zo-panel", min_width=230):
                about = f"<p>{fault.about}</p><p class='zo-quiet'>{words.BREAK_WATCH[name]}</p>"
                gr.HTML(f"<h2>{fault.title}</h2>{about}")
                press = gr.Button("Break it this way", elem_id=f"zo-break-{name}", size="sm")
            outputs = [problem, play.job, visitor, play.drawn, site.tabs]
            begun = press.click(
                _starter(name, play.form, store), [visitor, *play.form.inputs], outputs, **QUIET, trigger_mode="once"
            )
            begun.then(handlers.tick, [play.job, play.drawn, *play.panel.look], tick_outputs(play), **QUIET)


def _starter(name: str, form: controls.Controls, store: JobStore) -> Any:
    def start(visitor: str, request: gr.Request, *values: Any) -> tuple[Any, ...]:
        guest = Guest.of(store, visitor, request)
        try:
            config = controls.collect(form.named(values), store.limits)
            if config.method != "mezo":
                config = replace(config.without_options(), method="mezo", subspace="auto", lr=None, eps=None)
            config = replace(config, steps=STEPS, measure_every=0, eval_every=0, update="auto", auto_lr=False)
            job = begin(store, guest, [config], name)
        except ValueError as error:
            return data_form.error(str(error)), gr.skip(), guest.secret, gr.skip(), gr.skip()
        return "", job.id, guest.secret, Drawn(), gr.update(selected="play")

    return start


TAB = Tab("break", "Break it", lay_out)
