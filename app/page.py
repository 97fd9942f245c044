"""The page: a header, the tabs, and what happens when it opens."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from app import api, results, scripts, words
from app.form import controls, data_form, pricing, share
from app.jobs.store import MISSING, JobStore
from app.quiet import QUIET
from app.tabs import break_it, claims, classroom, learn, lent, memory, microscope, play, race, runs
from app.tabs.live import Drawn
from app.tabs.tab import Site, Tab

COPY = """async (code) => {
  if (!code) return;
  const query = '?cfg=' + code;
  history.replaceState(null, '', query);
  await zoCopyLink('#zo-link', query);
}"""
HERE = Path(__file__).parent
STYLES = [
    HERE / "page.css",
    HERE / "form" / "form.css",
    HERE / "charts" / "charts.css",
    HERE / "tabs" / "tabs.css",
    HERE / "tabs" / "fits.css",
]
OUTER = HERE / "outer.css"  # rules that Gradio must not confine to its own container
TABS: tuple[Tab, ...] = (play.TAB, race.TAB, runs.TAB, microscope.TAB, memory.TAB, break_it.TAB, learn.TAB, claims.TAB)
START = """() => {
  const spoken = document.querySelector('#zo-spoken');
  if (spoken) { spoken.setAttribute('role', 'status'); spoken.setAttribute('aria-live', 'polite'); }
  const marks = document.body.classList, lesson = new URLSearchParams(location.search).has('lesson');
  marks.toggle('zo-lesson-mode', lesson);
  marks.toggle('zo-reading', new URLSearchParams(location.search).has('run'));
  document.querySelector('#zo-show-all').addEventListener('click', () => marks.remove('zo-lesson-mode'));
}"""


@dataclass
class Shown:
    """What `launch` needs beside the page itself."""

    blocks: gr.Blocks
    options: dict[str, Any]


def theme() -> gr.themes.Base:
    """Return the theme: the system's own fonts, so that nothing is fetched."""
    sans, mono = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"], ["ui-monospace", "Menlo", "monospace"]
    base = gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", radius_size="md", spacing_size="md", font=sans, font_mono=mono
    )
    return base.set(
        body_background_fill="#f5f7fa",
        body_background_fill_dark="#0e1116",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171b22",
        block_border_width="0px",
        block_shadow="none",
        button_primary_background_fill="#005a8f",
        button_primary_background_fill_hover="#00486f",
        button_primary_background_fill_dark="#3b9bd6",
        button_primary_background_fill_hover_dark="#6db9e8",
        button_primary_text_color_dark="#06121b",
        button_primary_text_color="#ffffff",
    )


def build(store: JobStore) -> Shown:
    """Return the page over a job store."""
    scripts.serve()
    with gr.Blocks(title=words.NAME, fill_width=True, analytics_enabled=False, delete_cache=(3600, 86_400)) as blocks:
        visitor = gr.BrowserState("", storage_key="zocore-visitor", secret=store.visitors.key)
        api.add(store)  # first, so that no private event takes one of its names
        header = _header()
        room = classroom.layout()
        with gr.Tabs(elem_id="zo-tabs", overflow_behavior="wrap") as tabs:
            site = Site(store, visitor, tabs)
            for tab in TABS:
                with gr.Tab(tab.label, id=tab.id, elem_id=f"zo-tab-{tab.id}"):
                    tab.lay_out(site)
        for tab in TABS:
            tab.connect(site)
        lent.connect(site)
        classroom.connect(room, site, blocks, [tab.id for tab in TABS])
        _share(header, site)
        _on_load(blocks, header, site)
    head = scripts.head(store.limits.upload_bytes) + f"<style>{OUTER.read_text()}</style>"
    return Shown(blocks, {"theme": theme(), "css_paths": STYLES, "head": head, "js": START})


@dataclass
class Header:
    """The line above the tabs."""

    link: gr.Button
    code: gr.Textbox
    tab: gr.State
    note: gr.HTML


def _header() -> Header:
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    with gr.Row(elem_id="zo-header", equal_height=True):
        title = f'<div><h1>{words.NAME}</h1><p>{words.TAGLINE}</p></div><span class="zo-chip">{device}</span>'
        gr.HTML(title, elem_id="zo-title", scale=9)
        link = gr.Button("Copy link", elem_id="zo-link", size="sm", scale=0, min_width=110)
    code = gr.Textbox("", visible="hidden", elem_id="zo-code", label="Link")
    return Header(link, code, gr.State("play"), gr.HTML("", elem_id="zo-note"))


def _share(header: Header, site: Site) -> None:
    """The button that copies a link to the page as it is set."""
    form = site.play.form

    def coded(tab: str, *values: Any) -> tuple[str, str]:
        try:
            return share.encode(controls.collect(form.named(values), site.store.limits), tab), ""
        except ValueError as error:
            return "", data_form.error(f"No link: {error}")

    def chosen(event: gr.SelectData) -> str:
        return next(tab.id for tab in TABS if tab.label == event.value)

    site.tabs.select(chosen, None, header.tab, **QUIET)
    done = header.link.click(coded, [header.tab, *form.inputs], [header.code, header.note], **QUIET)
    done.then(None, header.code, None, js=COPY)


def _on_load(blocks: gr.Blocks, header: Header, site: Site) -> None:
    """Give a new visitor a secret, attach a known one to the newest runs, and fill the form from the link."""
    playing, racing, store = site.play, site.race, site.store
    handlers = play.Handlers(store, playing.form)

    def opened(visitor: str, request: gr.Request) -> tuple[Any, ...]:
        visitor = store.visitors.welcome(visitor)
        newest = {
            kind: next((job.id for job in store.of(visitor) if (job.kind == "race") == (kind == "race")), "")
            for kind in ("run", "race")
        }
        changes, tab, note = _from_link(request, store)
        if shared := request.query_params.get("run", ""):
            job, changes, note = _shared(store, shared)
            newest |= job
            tab = gr.update(selected="race" if "race" in job else "play") if job else gr.skip()
        form = playing.form.updates(changes)
        return visitor, newest["run"], Drawn(), newest["race"], race.Drawn(), tab, note, *form

    def priced(*values: Any) -> tuple[str, Any, Any]:
        return pricing.shown(store, playing.form.named(values))

    def attached(job: str, drawn: Drawn, *look: Any) -> list[Any]:
        return handlers.tick(job, drawn, *look) if job else play.NOTHING

    def raced(job: str, drawn: race.Drawn, axis: str, guess: str | None) -> list[Any]:
        return race.race_tick(store, job, drawn, axis, guess)

    fresh = [site.visitor, playing.job, playing.drawn, racing.job, racing.drawn, site.tabs, header.note]
    load = blocks.load(opened, site.visitor, [*fresh, *playing.form.outputs], **QUIET)
    load.then(priced, playing.form.inputs, [playing.card, playing.start, playing.timed], **QUIET)
    load.then(attached, [playing.job, playing.drawn, *playing.panel.look], play.tick_outputs(playing), **QUIET)
    load.then(raced, [racing.job, racing.drawn, racing.axis, racing.guess], racing.shown, **QUIET)


def _shared(store: JobStore, name: str) -> tuple[dict[str, str], dict[str, Any], str]:
    """The run of a link by its kind, the form's changes for its settings, and a note."""
    job = store.find(name)
    if job is None:
        return {}, {}, data_form.error(MISSING)
    note = f"<p class='zo-shared'><b>{escape(results.title(job))}.</b> {escape(words.SHARED)}</p>"
    return {"race" if job.kind == "race" else "run": job.id}, controls.filled(job.lane.config), note


def _from_link(request: gr.Request, store: JobStore) -> tuple[dict[str, Any], Any, str]:
    """Changes of the form, the tab and a note, from the page's address; nothing without a link."""
    code = request.query_params.get("cfg", "")
    if not code:
        return {}, gr.skip(), ""
    try:
        config, tab = share.decode(code)
        controls.check_model(config.model, store.limits)
        return controls.filled(config), gr.update(selected=tab), ""
    except ValueError as error:
        return {}, gr.skip(), data_form.error(str(error))
