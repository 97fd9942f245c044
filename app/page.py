"""The page: a header, the tabs, and what happens when it opens."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from app import controls, forms, play, replay, words
from app.chart import head, serve
from app.cost import Speeds
from app.lab import Lab
from app.live import Drawn
from app.store import JobStore

STYLE = Path(__file__).parent / "style.css"
START = """() => {
  const told = document.querySelector('#zo-told');
  if (told) { told.setAttribute('role', 'status'); told.setAttribute('aria-live', 'polite'); }
}"""


@dataclass
class Shown:
    """What `launch` needs beside the page itself."""

    blocks: gr.Blocks
    options: dict[str, Any]


def theme() -> gr.themes.Base:
    """Return the theme: the system's own fonts, so that nothing is fetched."""
    sans, mono = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"], ["ui-monospace", "Menlo", "monospace"]
    base = gr.themes.Base(primary_hue="blue", neutral_hue="slate", radius_size="md", spacing_size="md", font=sans, font_mono=mono)
    return base.set(
        body_background_fill="#f5f7fa", body_background_fill_dark="#0e1116",
        block_background_fill="#ffffff", block_background_fill_dark="#171b22",
        block_border_width="0px", block_shadow="none",
        button_primary_background_fill="#005a8f", button_primary_background_fill_hover="#00486f",
        button_primary_background_fill_dark="#3b9bd6", button_primary_text_color_dark="#06121b",
        button_primary_text_color="#ffffff",
    )


def build(store: JobStore) -> Shown:
    """Return the page over a job store."""
    serve()
    speeds, lab = Speeds(store.root / "speeds.json"), Lab()
    with gr.Blocks(title=words.NAME, fill_width=True, analytics_enabled=False) as blocks:
        visitor = gr.BrowserState("", storage_key="zocore-visitor", secret=_secret(store.root))
        _header()
        with gr.Tabs(elem_id="zo-tabs"):
            with gr.Tab("Play", id="play"):
                playing = play.layout(forms.with_presets(forms.PRESETS["toy"]))
                with playing.stage:
                    playing.slider = replay.build(playing, store, lab, visitor)
        play.connect(playing, store, speeds, visitor)
        _on_load(blocks, playing, store, speeds, visitor)
    return Shown(blocks, {"theme": theme(), "css_paths": [STYLE], "head": head(), "js": START})


def _header() -> None:
    device = f"{torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else f"CPU · {torch.get_num_threads()} threads"
    gr.HTML(
        f'<div><h1>{words.NAME}</h1><p>{words.TAGLINE}</p></div><span class="zo-chip">{device}</span>',
        elem_id="zo-header", elem_classes="zo-header",
    )


def _on_load(blocks: gr.Blocks, playing: play.Play, store: JobStore, speeds: Speeds, visitor: gr.BrowserState) -> None:
    """Give a new visitor a secret, attach a known one to the newest run, and price the form."""
    handlers = play.Handlers(store, speeds)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}

    def opened(known: str, *values: Any) -> tuple[Any, ...]:
        known = known or secrets.token_urlsafe(16)
        jobs = [job for job in store.of(known) if job.kind == "run"]
        card, blocker = controls.price(values, speeds, store.limits)
        button = gr.update(value=blocker or "Start", interactive=not blocker)
        return known, jobs[0].id if jobs else "", Drawn(), card, button

    def attached(job: str, drawn: Drawn, *look: Any) -> list[Any]:
        return handlers.tick(job, drawn, *look) if job else [gr.skip()] * 15

    shown = play.tick_outputs(playing)
    load = blocks.load(opened, [visitor, *playing.form.inputs], [visitor, playing.job, playing.drawn, playing.card, playing.start], **quiet)
    load.then(attached, [playing.job, playing.drawn, *playing.panel.look], shown, **quiet)


def _secret(root: Path) -> str:
    """Return the key under which browsers keep their visitor's secret, the same after a restart."""
    path = root / "secret"
    if not path.is_file():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text()


