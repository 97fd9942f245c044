"""README, CONTRIBUTING and docs are true: commands run, Python runs, and figures, paths and links hold."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tests.support.toys import least_squares
from zocore import methods
from zocore.cli import _parser, main
from zocore.memory.bill import bills, render
from zocore.memory.shapes import shape_of
from zocore.noise.addressed import Key
from zocore.recipes.recipe import recipes

PATHS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}
README, USING, STEP = PAGES["README.md"], PAGES["docs/using.md"], PAGES["docs/step.md"]
PREFIX = ".venv/bin/zocore "
QUICK = {"train": ["--steps", "2", "--eval-examples", "20"], "compare": ["--eval-examples", "20"]}
ROWS = [("the soup was lovely", "good"), ("the waiter was rude", "poor")] * 8


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.S)


def _commands(page: str) -> list[list[str]]:
    lines = [line for block in _blocks(page, "sh") for line in block.splitlines() if line.startswith(PREFIX)]
    return [shlex.split(line.removeprefix(PREFIX)) for line in lines]


def _shortened(command: list[str]) -> list[str]:
    """The same command, with few steps and examples."""
    given = {"--step": "2", "--forward-cost": "12", "--seeds": "0,1", "--measure-every": "1", "--eval-every": "1"}
    words = [given.get(before, word) for before, word in zip(["", *command], command, strict=False)]
    if "--steps" in words:
        words[words.index("--steps") + 1] = "2"
        return [*words, "--eval-examples", "20"]
    return [*words, *QUICK.get(words[0], [])]


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if _commands(text)])
def test_commands_run_as_they_stand(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every zocore line of a page ends with status 0, in the order it is given."""
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(["text,stars", *(f"{text} {number},{stars}" for number, (text, stars) in enumerate(ROWS))])
    Path("reviews.csv").write_text(rows, encoding="utf-8")
    Path("rewards.py").write_text("".join(_blocks(PAGES[page], "py")), encoding="utf-8")
    for name in ("prompts", "questions"):
        lines = [json.dumps({"prompt": f"The soup {number} was", "answer": "good"}) for number in range(12)]
        Path(f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for command in _commands(PAGES[page]):
        assert main(_shortened(command)) == 0, command


def test_there_are_commands_to_run() -> None:
    """The pages show all that one does with a run, so the test above has something to do."""
    shown = {command[0] for page in PAGES.values() for command in _commands(page)}
    assert shown >= {"train", "compare", "memory", "predict", "replay", "export"}


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_sentences_are_commands(page: str) -> None:
    """What stands in backticks as `zocore ...` has options that exist, with values of the right sort."""
    for line in re.findall(r"`zocore ([^`]+)`", PAGES[page]):
        assert _parser().parse_args(shlex.split(line)), line


@pytest.mark.parametrize("example", _blocks(USING, "python"))
def test_python_examples_run(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each example takes three steps and prints one line for each."""
    exec(compile(example, "docs/using.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_step_is_the_step_of_the_code() -> None:
    """The five lines name the same parts in the same order as Method.step and apply."""
    code = (ROOT / "zocore" / "step" / "step.py").read_text(encoding="utf-8")
    parts = ["self.sampler(key, losses, eps)", "self.difference(losses, directions, eps)", "self.shaping(measured)",
             "estimate(directions, coefficients", "self.update(leaf, g, lr, key, state)"]  # fmt: skip
    places = [code.index(part) for part in parts]
    assert places == sorted(places)
    (step,) = _blocks(STEP, "python")
    assert all(part.replace("self.", "method.").rstrip(")") in step for part in parts)


def test_the_method_to_contribute_is_a_method() -> None:
    """The row of the walk builds a method whose steps have the length of lr alone, against the sign of the slope."""
    names = dict(vars(methods))
    for block in _blocks(PAGES["CONTRIBUTING.md"], "python"):
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    toy = least_squares()
    done = names["row"].build().step(toy.leaves, toy.losses(), Key(0, 1), 0.1, 1e-3, {})
    slope = float(done.measured.projected_grad[0])
    assert done.coefficients == pytest.approx([slope / abs(slope)])
    assert names["row"].summary.startswith("Sign-SPSA")


def test_memory_figures_are_what_the_command_says() -> None:
    """The gigabytes of the README stand in the table that its command prints."""
    figures = re.findall(r"\d+\.\d\d(?= GB)", README)
    printed = render(bills(shape_of("llama-3-8b"), 16, 128, "bf16"))
    assert len(figures) == 6 and all(f" {figure} " in printed for figure in figures)


def test_the_recipes_cost_what_the_page_says() -> None:
    """Card, hours and gigabytes of each recipe are those of the prediction."""
    for one in recipes().values():
        row = f"| `{one.name}` | {one.card} | {one.hours:.1f} | {one.memory.total / 1e9:.0f} |"
        assert row in USING, row


def test_the_table_has_every_method() -> None:
    """Each row of zocore/methods.py stands in the README's table, with its paper."""
    table = README[README.index("| `--method`") : README.index("The methods that move")]
    for name, row in methods.METHODS.items():
        assert f"`{name}`" in table and row.paper in table, name


def test_every_room_has_its_line() -> None:
    """Where things are: what is listed exists, and every room of the engine and of the project is listed."""
    table = README[README.index("| folder |") : README.index("## Licence")]
    names = [name for line in table.strip().splitlines()[2:] for name in re.findall(r"`([^`]+/?)`", line.split("|")[1])]
    parent = ""
    for name in names:
        parent = name.split("/")[0] if (ROOT / name).exists() else parent
        assert (ROOT / name).exists() or (ROOT / parent / name).exists(), name
    listed = {name.strip("/").split("/")[-1] for name in names}
    rooms = {path.parent.name for path in (ROOT / "zocore").glob("*/__init__.py")}
    assert rooms | {"app", "notebooks", "tests", "docs"} <= listed


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Relative links name files of the project, and their anchors headings."""
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if "://" in link:
            continue
        path, _, anchor = "".join(link.split()).partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in map(_anchor, re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)), link


def test_ci_calls_the_readme_command() -> None:
    """.ci/run is the README's test command, with the slow tests added."""
    command = next(line for block in _blocks(README, "sh") for line in block.splitlines() if line.endswith("-m tests"))
    assert f"{command} --all" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
