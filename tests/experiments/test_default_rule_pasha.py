"""What PASHA saves: units, the longest training and the winner's rank."""

from __future__ import annotations

import pytest

from daskhpo.schedulers import FIFO, PASHA
from experiments.default_rule import pasha
from experiments.default_rule.pasha import N_TRIALS, SCHEDULERS, main, run
from experiments.default_rule.tables import tables
from tests.experiments.test_default_rule import UNITS, N, folder  # noqa: F401


@pytest.fixture
def table(folder):  # noqa: F811
    return tables(folder)["LCBench 1", ""]


def test_units_and_the_longest_training_are_those_of_the_study(table):
    every, one = (run(table, FIFO(max_t), 0) for max_t in (UNITS, 1))
    assert (every.units, every.longest) == (N_TRIALS * UNITS, UNITS)
    assert (one.units, one.longest) == (N_TRIALS, 1)
    assert every.time == pytest.approx(N_TRIALS / 4, rel=1e-3)
    assert one.time == pytest.approx(N_TRIALS / 4 / UNITS, rel=1e-3)


def test_the_winners_rank_is_that_of_its_whole_curve(table):
    best = min(curve.metric(1) for curve in table.curves)
    assert table.rank(best) > 1 / N  # after one unit it is not as good as others later
    assert run(table, FIFO(1), 0).rank == 100 / N


def test_a_ladder_that_does_not_grow_saves_units(table):
    short, long = (run(table, SCHEDULERS[name](UNITS), 0) for name in ("PASHA", "ASHA, promotion"))
    assert short.longest == 3 < long.longest
    assert short.units < long.units
    assert repr(SCHEDULERS["PASHA"](UNITS)) == repr(PASHA(UNITS))


def test_one_command_fills_the_readme(folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(
        "sys.argv", ["pasha", str(folder), "--seeds", "1", "--readme", f"{tmp_path}/r.md"]
    )
    main()
    assert "| LCBench 1 | 2,304; 64; 9;" in (tmp_path / "r.md").read_text()
    assert pasha.SEEDS > 1
