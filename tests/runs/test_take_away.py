"""What an export holds: PEFT's adapter folder, a card made from the recording, and the way to the hub."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.recordings import recorded, six_steps
from tests.support.short_runs import model_folder
from zocore.cli import main
from zocore.errors import InputError
from zocore.runs.card import command
from zocore.runs.events import EvalDone
from zocore.runs.recording import read_recording
from zocore.runs.replay import export_run, rebuild

TEXT = "the film was great It was"


def _logits(model: Any, folder: str) -> torch.Tensor:
    tokens = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt")
    with torch.no_grad():
        return model(input_ids=tokens["input_ids"], use_cache=False).logits[0, -1]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft_loads_an_adapter_to_the_same_logits(family: str, tmp_path: Path) -> None:
    """Laid over the base by PEFT, the adapter answers bit for bit as the run's model, and differently from the base."""
    recorded(tmp_path / "run", subspace="lora", model=family, lr=1e-1, steps=6)
    said = export_run(tmp_path / "run", tmp_path / "to", None, delta=False, adapter=True)
    assert said.startswith("wrote the adapter (")
    _, session = rebuild(tmp_path / "run")
    base = AutoModelForCausalLM.from_pretrained(model_folder(family)).eval()
    plain = _logits(base, model_folder(family))
    adapted = PeftModel.from_pretrained(base, tmp_path / "to").eval()
    ours = _logits(session.loaded.model, model_folder(family))
    assert torch.equal(_logits(adapted, str(tmp_path / "to")), ours)
    assert float((ours - plain).abs().max()) > 1e-3


def test_an_adapter_of_a_run_without_one_is_refused(tmp_path: Path) -> None:
    """In one sentence, and nothing is left."""
    with pytest.raises(InputError, match="an adapter and the subspace 'all' do not go together"):
        export_run(_finished(tmp_path), tmp_path / "to", None, delta=False, adapter=True)
    assert not (tmp_path / "to").exists()


def _finished(tmp_path: Path) -> Path:
    recorded(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("sort", ["model", "delta", "adapter"])
def test_every_export_has_a_card_of_its_run(sort: str, tmp_path: Path) -> None:
    """Method, paper, base, task, figures and command are those of the recording, and no path of the machine."""
    recorded(tmp_path / "run", subspace="lora", method="fzoo", directions=3)
    export_run(tmp_path / "run", tmp_path / "to", None, delta=sort == "delta", adapter=sort == "adapter")
    card = (tmp_path / "to" / "README.md").read_text(encoding="utf-8")
    recording = read_recording(tmp_path / "run")
    after = [e for e in recording.events if isinstance(e, EvalDone) and e.split == "test"][-1]
    assert "# llama, tuned with FZOO" in card and "arxiv.org/abs/2506.09034" in card
    assert f"| 4 | {after.accuracy:.3f} | {after.loss:.4f} | {after.examples} |" in card
    assert f"4 steps, {recording.steps[-1].forward_passes} forward passes" in card
    assert recording.header.fingerprint in card and "- `1`: `great`" in card
    assert str(tmp_path) not in card and str(Path(model_folder()).parent) not in card
    assert {"model": "transformers", "adapter": "peft", "delta": "zocore"}[sort] in card.splitlines()[1]


def test_a_card_of_a_run_on_text_has_its_scores(tmp_path: Path) -> None:
    """What text is judged by, no labels, no figure that is none."""
    (tmp_path / "texts.txt").write_text("\n\n".join(f"the film number {n} was good" for n in range(20)))
    changes: dict[str, Any] = {"objective": "lm", "data": str(tmp_path / "texts.txt"), "template": None}
    recorded(tmp_path / "run", **changes, label_words=None)
    export_run(tmp_path / "run", tmp_path / "to", None, delta=True)
    card = (tmp_path / "to" / "README.md").read_text(encoding="utf-8")
    assert "objective `lm`" in card and "test perplexity | test loss | examples |" in card
    assert "nan" not in card and "Labels" not in card and str(tmp_path) not in card


def test_a_card_of_an_earlier_step_has_the_figures_up_to_there(tmp_path: Path) -> None:
    """Weights after step 4 are not shown with the figures after step 6."""
    export_run(six_steps("mezo"), tmp_path / "to", 4, delta=True)
    card = (tmp_path / "to" / "README.md").read_text(encoding="utf-8")
    assert "\n4 steps, " in card and "\n| 0 | " in card and "\n| 6 | " not in card


def test_the_cards_command_is_the_runs(tmp_path: Path) -> None:
    """Every setting that is not a default stands in it; of paths the last part."""
    recorded(tmp_path / "run", method="n-spsa", directions=3)
    words = command(read_recording(tmp_path / "run").config)
    assert words.startswith("zocore train --method n-spsa --model llama --kind causal --data data.jsonl")
    assert "--template '{text} It was'" in words and "--directions 3" in words and "--device" not in words


class FakeHub:
    """A stand-in for the hub, which keeps what it is sent, or refuses."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.refuses = ""

    def create_repo(self, name: str, exist_ok: bool) -> None:
        """Make a repository, once."""
        if self.refuses:
            raise OSError(self.refuses)
        assert exist_ok
        self.repositories.setdefault(name, {})

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        """Keep the files."""
        assert commit_message
        self.repositories[repo_id] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The hub that `zocore export` talks to."""
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    return fake


def test_an_export_goes_to_the_hub(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The repository holds the folder as it was written, card included."""
    run, to = _finished(tmp_path), tmp_path / "to"
    assert main(["export", str(run), "--to", str(to), "--push-to-hub", "me/tuned"]) == 0
    assert hub.repositories == {"me/tuned": {path.name: path.read_bytes() for path in to.iterdir()}}
    assert {"README.md", "config.json", "model.safetensors"} <= set(hub.repositories["me/tuned"])
    assert "https://huggingface.co/me/tuned" in capsys.readouterr().out


def test_a_hub_that_refuses_loses_nothing(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence with the reason and the way on; the folder is there. A name that is none is told before all work."""
    run, to = _finished(tmp_path), tmp_path / "to"
    hub.refuses = "401 Client Error: log in first.\nmore"
    assert main(["export", str(run), "--to", str(to), "--delta", "--push-to-hub", "me/tuned"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert (
        "the hub did not take it" in said
        and "401 Client Error: log in first)" in said
        and f"hf upload me/tuned {to}" in said
    )
    assert (to / "delta.safetensors").exists()
    assert main(["export", str(run), "--to", str(tmp_path / "other"), "--push-to-hub", "tuned"]) == 2
    assert "OWNER/NAME, not 'tuned'" in capsys.readouterr().err and not (tmp_path / "other").exists()
