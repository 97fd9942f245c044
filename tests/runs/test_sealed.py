"""A recording cannot lie: whatever disks or hands change in it is found, and what comes before it stays good."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT
from tests.support.recordings import folder_with, lines_of, number_of, plain, recorded, six_steps
from tests.support.short_runs import settings
from zocore.cli import main
from zocore.errors import InputError
from zocore.runs.events import Event, RunEnded, StepDone, Warned
from zocore.runs.loop import run
from zocore.runs.recording import EVENTS, asked, begun, claim, examine, read_recording, record, take_up
from zocore.runs.replay import UNSEALED, check_run, rebuild, replay_run
from zocore.runs.seal import sealed, unsealed

Hand = Callable[[list[bytes], int], list[bytes]]


def changed(pattern: bytes) -> Hand:
    """Another digit in the number that a pattern ends with."""

    def change(lines: list[bytes], at: int) -> list[bytes]:
        found = re.search(pattern + rb"[-\d.]*?([1-9])", lines[at])
        assert found is not None
        digit = b"3" if found[1] != b"3" else b"4"
        return [*lines[:at], lines[at][: found.start(1)] + digit + lines[at][found.end(1) :], *lines[at + 1 :]]

    return change


HANDS: dict[str, Hand] = {
    "a digit of a coefficient": changed(rb'"coefficients":\['),
    "a digit of the rate": changed(rb'"lr":'),
    "a digit of a loss": changed(rb'"loss":'),
    "a line taken out": lambda lines, at: [*lines[:at], *lines[at + 1 :]],
    "two lines swapped": lambda lines, at: [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
    "a line doubled": lambda lines, at: [*lines[: at + 1], *lines[at:]],
    "a line renumbered": lambda lines, at: [
        *lines[:at],
        lines[at].replace(b'"step":4', b'"step":5'),
        *lines[at + 1 :],
    ],
    "a seal taken off": lambda lines, at: [*lines[:at], plain([lines[at]])[0], *lines[at + 1 :]],
    "a seal of another line": lambda lines, at: [
        *lines[:at],
        lines[at][:-20] + lines[at - 1][-20:],
        *lines[at + 1 :],
    ],
}


@pytest.mark.parametrize("hand", HANDS)
def test_whatever_a_hand_changes_is_found_and_the_steps_before_it_stay_good(hand: str, tmp_path: Path) -> None:
    """Around step 4: the damage is told with the last good step, which still replays; nothing else is rebuilt."""
    good = six_steps("mezo")
    lines = lines_of(good)
    at = number_of(lines, 4)
    folder = folder_with(tmp_path / "run", HANDS[hand](lines, at))
    last = 4 if hand == "a line doubled" else 3
    found = examine(folder)
    assert found.damage is not None
    assert found.damage.step == found.last == last
    assert found.events == examine(good).events[: len(found.events)]
    for act in (read_recording, rebuild, take_up):
        with pytest.raises(InputError, match=f"good up to step {last}") as error:
            act(folder)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="is damaged"):
        rebuild(folder, last + 1)
    assert rebuild(folder, last)[1].fingerprint() == rebuild(good, last)[1].fingerprint()


def test_with_the_good_lines_alone_a_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """The way on that the sentence tells: keep the lines before the damage."""
    good = six_steps("mezo")
    lines = lines_of(good)
    at = number_of(lines, 4)
    folder = folder_with(tmp_path / "run", lines[:at] + lines[at + 1 :])
    with pytest.raises(InputError, match=f"with lines 1 to {at} alone"):
        take_up(folder)
    folder_with(folder, lines[:at])
    config, recording = take_up(folder)
    events = list(record(run(config, recording=recording), folder))
    end = examine(good).end
    assert end is not None and events[-1].weights_fingerprint == end.weights_fingerprint  # type: ignore[attr-defined]
    assert check_run(folder).proved


WRONG: dict[str, tuple[str, Any]] = {
    "text for a number": ("coefficients", ["x"]),
    "null for a list": ("coefficients", None),
    "a number for a list": ("coefficients", 5),
    "null for a number": ("lr", None),
    "NaN for a rate": ("lr", float("nan")),
    "a number as text": ("step", "4"),
    "a number as a fraction": ("step", 4.0),
    "no directions": ("directions", []),
    "directions of text": ("directions", ["a"]),
    "a direction below 0": ("directions", [-1]),
    "a direction of nothing": ("directions", [[]]),
    "a term too short": ("directions", [[[1.0]]]),
    "examples in words": ("directions", [{"examples": "4"}]),
    "deep directions": ("directions", [[[[[[[[[[[1]]]]]]]]]]]),
    "rows of a table that is not there": ("touched", {"999": [[1]] * 4}),
    "rows beyond a table": ("touched", {"0": [[10**9]] * 4}),
    "rows as text": ("touched", {"0": "x"}),
    "a name that is none of ours": ("coefficient", [1.0]),
    "a number beyond all bounds": ("memory_bytes", 10**30),
    "true for a number": ("forward_passes", True),
    "a number for true": ("skipped", 0),
}


@pytest.mark.parametrize("case", WRONG)
def test_values_of_a_wrong_type_in_an_old_recording_get_one_sentence(case: str, tmp_path: Path) -> None:
    """Valid JSON that is no step is damage like any other, told by name and without a traceback."""
    lines = plain(lines_of(six_steps("grzo")))
    at = number_of(lines, 4)
    name, value = WRONG[case]
    lines[at] = json.dumps(json.loads(lines[at]) | {name: value}).encode() + b"\n"
    folder = folder_with(tmp_path / "run", lines)
    with pytest.raises(InputError, match=f"line {at + 1} is damaged .* good up to step 3"):
        rebuild(folder)
    assert rebuild(folder, 3)[1].fingerprint() == rebuild(six_steps("grzo"), 3)[1].fingerprint()


HEADERS: dict[str, tuple[str, Any]] = {
    "frozen": ("frozen", 5),
    "no config": ("config", None),
    "empty config": ("config", {}),
    "config of another": ("config", {"hidden_size": 5}),
    "deep config": ("config", {"method": [[[[[[[[[[[]]]]]]]]]]]}),
    "leaves": ("leaves", [[1, 2, 3]]),
    "shape": ("leaves", [[1, "a", [2.5]]]),
    "versions": ("versions", {"noise": 1}),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_of_a_wrong_type_gets_one_sentence(case: str, tmp_path: Path) -> None:
    """Nothing can be rebuilt without its header, and the sentence says so."""
    lines = plain(lines_of(six_steps("grzo")))
    name, value = HEADERS[case]
    lines[0] = json.dumps(json.loads(lines[0]) | {name: value}).encode() + b"\n"
    with pytest.raises(InputError, match="line 1 is damaged .* nothing of it can be used") as error:
        rebuild(folder_with(tmp_path / "run", lines), 0)
    assert "\n" not in str(error.value)


def test_brackets_without_end_are_no_traceback(tmp_path: Path) -> None:
    """JSON nested too deeply for its reader is damage."""
    lines = lines_of(six_steps("grzo"))
    lines[3] = b'{"event":' + b"[" * 100_000 + b"\n"
    with pytest.raises(InputError, match="line 4 is damaged"):
        read_recording(folder_with(tmp_path / "run", lines))


def test_a_line_that_was_not_finished_is_no_damage(tmp_path: Path) -> None:
    """The last line cut at any byte: the lines before it are all good, sealed and complete."""
    lines = lines_of(six_steps("mezo"))
    before = examine(six_steps("mezo")).events[:-1]
    for cut in range(1, len(lines[-1])):
        found = examine(folder_with(tmp_path / "run", [*lines[:-1], lines[-1][:cut]]))
        assert (found.damage, found.events, found.sealed, found.unfinished) == (None, before, True, True)


def test_an_old_recording_is_read_and_said_to_be_unsealed(tmp_path: Path) -> None:
    """Lines without seals replay to the same weights, with a sentence; what is added to them is sealed."""
    lines = lines_of(six_steps("mezo"))
    old = plain(lines[: number_of(lines, 4)])
    folder = folder_with(tmp_path / "run", old)
    assert UNSEALED in check_run(folder).lines and UNSEALED in replay_run(folder, None, verify=False).lines
    config, recording = take_up(folder)
    list(record(run(config, recording=recording), folder))
    now = lines_of(folder)
    assert now[: len(old)] == old
    assert all(unsealed(line.rstrip(b"\n"))[1] for line in now[len(old) :])
    assert not examine(folder).sealed and check_run(folder).proved
    end, other = examine(folder).end, examine(six_steps("mezo")).end
    assert end is not None and other is not None
    assert end.weights_fingerprint == other.weights_fingerprint
    now[1] = now[1].replace(b'"split":"test"', b'"split":"dev "')  # from now on the old lines are sealed too
    assert examine(folder_with(folder, now)).damage is not None


@pytest.mark.parametrize("name", ["toy", "race/lane-0", "race/lane-1", "race/lane-2"])
def test_the_recordings_that_come_with_the_page_are_read(name: str) -> None:
    """They are well-formed, with steps in order to the end, whether or not they are sealed."""
    verdict = check_run(ROOT / "app" / "recorded" / name)
    assert verdict.proved, verdict.lines


@pytest.mark.parametrize(("lane", "missing"), [(0, "pushes"), (3, "coefficients")])
def test_steps_that_were_recorded_for_drawing_alone_are_not_replayed(lane: int, missing: str) -> None:
    """A step without what it moved along would leave the weights where they were: it is refused."""
    with pytest.raises(ValueError, match=f"without its {missing}"):
        rebuild(ROOT / "app" / "recorded" / "race" / f"lane-{lane}")


def test_verify_checks_a_recording_without_its_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`zocore verify` says what is good and returns 1 for damage or a missing end, with no model on the machine."""

    def nothing(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("zocore.runs.opening.load", nothing)
    lines = lines_of(six_steps("mezo"))
    folder = folder_with(tmp_path / "run", lines)
    assert main(["verify", str(folder)]) == 0
    assert "steps 1 to 6; every line is as it was written" in capsys.readouterr().out
    shutil.copy(six_steps("mezo") / "summary.json", folder)
    folder_with(folder, lines[: number_of(lines, 5)])
    assert main(["verify", str(folder)]) == 1
    assert "tells of 6 steps: the recording's end is missing after step 4" in capsys.readouterr().out
    folder_with(folder, HANDS["a digit of the rate"](lines, number_of(lines, 2)))
    assert main(["verify", str(folder)]) == 1
    assert "good up to step 1" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "nothing")]) == 2


def test_a_seal_covers_every_line_before_it() -> None:
    """The chain itself: the same line has another seal behind another line, and an event reads with it or without."""
    line = Warned(3, 'a "quoted" word, ä\u2028').to_json()
    one, seal = sealed(line, "")
    other, _ = sealed(line, seal)
    assert one != other and one.endswith(b'"}\n') and one.count(b"\n") == 1
    assert unsealed(one.rstrip(b"\n")) == (line.encode(), seal)
    assert unsealed(line.encode()) == (line.encode(), "")
    assert Event.from_json(one) == Event.from_json(line)
    assert len(one) - len(line) == 27  # with the line end


def test_a_recording_stays_small(tmp_path: Path) -> None:
    """A step of MeZO takes less than half a kilobyte with its seal."""
    sizes = [len(line) for line in lines_of(six_steps("mezo")) if b'"StepDone"' in line]
    assert max(sizes) < 450


# what a kill leaves of a start: nothing yet, an empty file, part of a header, a header up to its line end
STARTS = {"nothing": None, "an empty file": 0, "a byte": 1, "part of a header": 200, "a header without its end": -1}


@pytest.mark.parametrize("start", STARTS)
def test_a_kill_before_the_header_is_whole_loses_nothing(start: str, tmp_path: Path) -> None:
    """Both `train` and `resume` go on from there, to the weights of a run that was never killed."""
    whole, config = tmp_path / "whole", settings()
    told = recorded(whole)
    end = told[-1]
    assert isinstance(end, RunEnded)
    for command in ("train", "resume"):
        folder = tmp_path / command
        claim(folder, config)
        if STARTS[start] is not None:
            (folder / EVENTS).write_bytes(lines_of(whole)[0][: STARTS[start]])
        assert not begun(folder)
        assert asked(folder) == config
        if command == "train":
            claim(folder, config)
            list(record(run(config), folder))
        else:
            assert main(["resume", str(folder)]) == 0
        again = examine(folder)
        assert again.sealed and again.end is not None and again.end.weights_fingerprint == end.weights_fingerprint


def test_a_folder_with_a_configuration_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A model's folder is not taken for a run that was killed."""
    (tmp_path / "config.json").write_text('{"hidden_size": 64}')
    with pytest.raises(InputError, match="of something else"):
        claim(tmp_path, settings())
    assert (tmp_path / "config.json").read_text() == '{"hidden_size": 64}'


def test_two_processes_do_not_write_one_recording(tmp_path: Path) -> None:
    """The second is refused in a sentence and changes nothing; when the first is over, the way is free."""
    claim(tmp_path / "run")
    first = record(run(settings()), tmp_path / "run")
    next(first)
    before = lines_of(tmp_path / "run")
    with pytest.raises(InputError, match="is being written by another process"):
        list(record(run(settings()), tmp_path / "run"))
    assert lines_of(tmp_path / "run") == before
    first.close()  # type: ignore[attr-defined]
    config, recording = take_up(tmp_path / "run")
    assert isinstance(list(record(run(config, recording=recording), tmp_path / "run"))[-1], RunEnded)


def test_a_second_start_in_a_folder_where_one_is_loading_takes_nothing_away(tmp_path: Path) -> None:
    """The command that is refused leaves the other's empty recording where it is."""
    config = settings()
    claim(tmp_path / "run", config)
    first = record(run(config), tmp_path / "run")
    next(first)  # its header is written; before that the file is as empty as this:
    (tmp_path / "run" / EVENTS).write_bytes(b"")
    words = [word for name in ("model", "data") for word in (f"--{name}", getattr(config, name))]
    assert main(["train", *words, "--steps", "2", "--out", str(tmp_path / "run")]) == 2
    assert (tmp_path / "run" / EVENTS).exists() and asked(tmp_path / "run") is not None
    first.close()  # type: ignore[attr-defined]


def test_a_resumed_in_place_run_says_that_its_bits_are_others(tmp_path: Path) -> None:
    """In-place probes leave roundings behind that the recording does not hold: one sentence says so."""
    recorded(tmp_path / "run", carrier="in-place")
    lines = lines_of(tmp_path / "run")
    folder = folder_with(tmp_path / "cut", lines[: number_of(lines, 3)])
    config, recording = take_up(folder)
    events = list(record(run(config, recording=recording), folder))
    assert [e.step for e in events if isinstance(e, StepDone)] == [3, 4]
    assert ["not bit for bit" in e.message for e in events if isinstance(e, Warned)] == [True]
    recorded(tmp_path / "other")
    lines = lines_of(tmp_path / "other")
    folder = folder_with(tmp_path / "cut too", lines[: number_of(lines, 3)])
    config, recording = take_up(folder)
    assert not [e for e in run(config, recording=recording) if isinstance(e, Warned)]
