"""The panel of things to take away from the run shown."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.form import data_form
from app.jobs.store import JobStore
from app.tabs import export
from app.tabs.stage import RECORDED, recorded
from zocore.config import RunConfig
from zocore.errors import InputError

if TYPE_CHECKING:
    from app.tabs.play import Play

ABOUT = (
    "The command and the script do the run again, with the same numbers. "
    "The recording is what <code>zocore replay</code> reads."
)
LINK = """async (job) => {
  const button = document.querySelector('#zo-run-link');
  button.dataset.name ||= button.textContent;
  if (job) return await zoCopyLink('#zo-run-link', '?run=' + job);
  button.textContent = 'Start a run of your own first';
  setTimeout(() => { button.textContent = button.dataset.name; }, 2500);
}"""
KINDS = [
    ("Recording", "recording"),
    ("Python script", "script"),
    ("Notebook", "notebook"),
    ("What changed (safetensors)", "delta"),
    ("Tuned model (zip)", "model"),
]


def build(play: "Play", store: JobStore) -> None:
    """Lay out and connect the panel."""
    with gr.Column(elem_classes="zo-panel"):
        gr.HTML(f"<h2>Take it away</h2><p class='zo-quiet'>{ABOUT}</p>")
        command = gr.Textbox(
            export.command(config_of(store, "")),
            label="Command",
            lines=2,
            max_lines=8,
            elem_id="zo-command",
            interactive=False,
            buttons=["copy"],
        )
        with gr.Row(elem_classes="zo-pair zo-take"):
            kind = gr.Dropdown(KINDS, value="recording", label="File", elem_id="zo-kind", min_width=160)
            make = gr.Button("Prepare file", elem_id="zo-make", size="sm", min_width=120)
            link = gr.Button("Copy a link to this run", elem_id="zo-run-link", size="sm", min_width=120)
        file = gr.File(label="Download", visible=False, elem_id="zo-download", height=90, interactive=False)
        problem = gr.HTML("", elem_id="zo-take-problem")

    def made(job: str, kind_: str) -> tuple[Any, str]:
        try:
            path = prepare(store, job, kind_)
        except (ValueError, OSError) as error:
            return gr.update(visible=False), data_form.error(str(error))
        return gr.update(value=str(path), visible=True), ""

    make.click(
        made,
        [play.job, kind],
        [file, problem],
        api_visibility="private",
        concurrency_id="lab",
        show_progress_on=problem,
    )
    link.click(None, play.job, None, js=LINK)
    play.panel.spoken.change(
        lambda job: export.command(config_of(store, job)),
        play.job,
        command,
        api_visibility="private",
        queue=False,
        show_progress="hidden",
    )


def config_of(store: JobStore, job: str) -> RunConfig:
    """Return the settings of the run shown, with the numbers it was started with."""
    if job:
        return store.get(job).lane.config
    header = recorded().header
    assert header is not None
    return RunConfig.from_json(header.config)


def prepare(store: JobStore, job: str, kind: str) -> Path:
    """Write one of the files and return its path. Raises ValueError when the run cannot give it."""
    folder = store.get(job).lane.folder if job else RECORDED
    to = store.root / "exports" / (job or "recorded")
    to.mkdir(parents=True, exist_ok=True)
    config = config_of(store, job)
    if kind in ("script", "notebook"):
        path = to / ("run.py" if kind == "script" else "run.ipynb")
        path.write_text(export.script(config) if kind == "script" else export.notebook(config), encoding="utf-8")
        return path
    if not (folder / "events.jsonl").is_file():
        raise InputError("this run has not begun, so there is nothing to take yet")
    return export.recording(folder, to) if kind == "recording" else _weights(store, folder, to, kind == "delta")


def _weights(store: JobStore, folder: Path, to: Path, delta: bool) -> Path:
    """The tuned weights of a run, rebuilt in a child: whole as a zipped folder, or what changed alone."""
    stage = to / ("delta" if delta else "model")
    shutil.rmtree(stage, ignore_errors=True)
    store.models.ask("export", folder=str(folder.resolve()), to=str(stage.resolve()), delta=delta)
    if delta:
        return next(stage.glob("*.safetensors"))
    made = Path(shutil.make_archive(str(to / "model"), "zip", stage))
    shutil.rmtree(stage)
    return made
