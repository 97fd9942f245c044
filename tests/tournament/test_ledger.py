"""What is written down can be read again, whatever ended the writing."""

from math import isnan, nan
from pathlib import Path

import pytest

from tests.support.made_up import done, held, plan
from zocore.errors import InputError
from zocore.tournament.ledger import CELLS, append, read_cells
from zocore.tournament.plan import PLAN, take_up


def test_cells_survive_the_file(tmp_path: Path) -> None:
    """Every figure comes back bit for bit, NaN too."""
    cells = list(held(plan(), lambda cell: 1 / 3).values())
    failed = done(cells[0].cell, nan)
    for one in (*cells[1:], failed):
        append(tmp_path, one)
    found = read_cells(tmp_path)
    assert [found[one.cell] for one in cells[1:]] == cells[1:]
    assert found[failed.cell].reason == failed.reason
    assert isnan(found[failed.cell].loss)
    assert not found[failed.cell].finished


def test_a_torn_line_costs_its_own_cell_alone(tmp_path: Path) -> None:
    """After a cut in the middle of a line the cells before it stand, and new ones are added on lines of their own."""
    one, two, three = list(held(plan(), lambda cell: 0.5).values())[:3]
    for each in (one, two):
        append(tmp_path, each)
    path = tmp_path / CELLS
    path.write_text(path.read_text()[:-30])
    assert list(read_cells(tmp_path)) == [one.cell]
    append(tmp_path, three)
    assert list(read_cells(tmp_path)) == [one.cell, three.cell]


def test_a_folder_without_a_tournament_is_refused(tmp_path: Path) -> None:
    """In one sentence."""
    with pytest.raises(InputError, match="holds no tournament"):
        read_cells(tmp_path)


def test_a_tournament_may_grow_but_not_change_what_all_its_cells_share(tmp_path: Path) -> None:
    """Entries, tasks, seeds and budgets may be others; batch size and data may not."""
    take_up(plan(), tmp_path)
    take_up(plan("feedback,grzo", "a,b,c", seeds=(0, 1, 2), cost=120.0), tmp_path)
    for changed, said in ((plan(batch_size=8), "another batch size"), (plan(eval_examples=9), "eval examples")):
        with pytest.raises(InputError, match=said):
            take_up(changed, tmp_path)
    assert '"cost": 120.0' in (tmp_path / PLAN).read_text()
