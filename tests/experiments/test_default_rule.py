"""The default rule's races, on a table whose answers are known, and the report."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from daskhpo.core.objective import Objective
from experiments.default_rule import checkpoints, report, slow, study
from experiments.default_rule.methods import METHODS, OPTUNA, draw
from experiments.default_rule.milestones import Milestones
from experiments.default_rule.races import Race, run
from experiments.default_rule.report import against
from experiments.default_rule.study import main, races, run_all
from experiments.default_rule.tables import REVERSED, SHUFFLED, tables
from experiments.simulated.tables import LCBENCH

N, UNITS = 80, 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one table: the higher the learning rate, the better at the end."""
    generator = np.random.default_rng(0)
    configs = [LCBENCH.from_unit(point) for point in generator.random((N, 7)).tolist()]
    rows = np.array([list(config.values()) for config in configs], dtype=float)
    late = np.array([LCBENCH.to_unit(config)[1] for config in configs])
    accuracy = late[:, None] * 50 + np.arange(1, UNITS + 1) - 10 * (late > 2)[:, None]
    seconds = np.broadcast_to(np.arange(1.0, UNITS + 1), accuracy.shape)
    path = tmp_path_factory.mktemp("curves")
    np.savez(
        path / "lcbench_surrogate_5_tasks.npz",
        task=np.array(["1"]),
        X=rows,
        val_accuracy=accuracy[None],
        time_s=seconds[None],
    )
    return path


def losses(table, unit):
    return np.array([curve.metric(unit) for curve in table.curves])


def test_a_configuration_has_its_own_curve(folder):
    table = tables(folder)["LCBench 1", ""]
    source = table.source()
    for n in (0, 17, N - 1):
        config = table.space.from_unit(table.units[n].tolist())
        assert source(config) is table.curves[n]


def test_the_target_is_what_the_best_hundredth_reach(folder):
    table = tables(folder)["LCBench 1", ""]
    best = np.sort(losses(table, UNITS))
    assert best[0] <= table.target(0.01) <= best[1]
    assert table.target(0.0) == best[0]


def test_the_rank_of_a_metric_is_the_share_that_is_as_good_at_some_unit(folder):
    table = tables(folder)["LCBench 1", ""]
    best = sorted(min(curve.metric(r) for r in range(1, UNITS + 1)) for curve in table.curves)
    assert table.rank(best[0]) == 1 / N
    assert table.rank(best[7]) == 8 / N
    assert table.rank(best[0] - 1) == 0
    assert table.rank(math.inf) == 1


def test_milestones_are_by_time_whatever_the_order_of_the_reports():
    found = Milestones(Objective("loss"), [0.5, 0.1], [1.0, 4.0])
    for loss, seconds in [(0.3, 3.0), (0.4, 2.0), (0.7, 0.5), (math.nan, 0.1), (0.2, 9.0)]:
        found.add(loss, seconds)
    assert found.reached == [2.0, math.inf]
    assert found.best == [0.7, 0.3]


def test_shuffled_features_have_the_same_curves(folder):
    plain, shuffled = (tables(folder)["LCBench 1", variant] for variant in ("", SHUFFLED))
    assert sorted(losses(plain, 3)) == sorted(losses(shuffled, 3))
    assert (losses(plain, 3) != losses(shuffled, 3)).mean() > 0.9
    assert shuffled.target(0.01) == plain.target(0.01)


def test_reversed_ranks_are_those_of_the_first_three_units(folder):
    plain, other = (tables(folder)["LCBench 1", variant] for variant in ("", REVERSED))
    for unit in (1, 2, 3):
        assert (
            losses(other, unit).argsort().tolist() == losses(plain, unit).argsort()[::-1].tolist()
        )
        assert sorted(losses(other, unit)) == sorted(losses(plain, unit))
    assert losses(other, 4).tolist() == losses(plain, 4).tolist()


def test_draws_are_recorded_configurations_and_candidates_are_different_ones():
    units = np.arange(20.0).reshape(10, 2)
    many = draw(units, np.random.default_rng(0), 100, 2)
    assert sorted(map(tuple, many)) == sorted(map(tuple, units))
    (one,) = draw(units, np.random.default_rng(0), 1, 2)
    assert tuple(one) in set(map(tuple, units))


@pytest.mark.parametrize("method", [name for name in METHODS if "GP" not in name])
def test_each_method_reaches_the_target_and_does_so_again_alike(folder, method):
    race = Race("LCBench 1", "", method, 4, 1, 400.0, 0.01)
    first, again = run(race, folder), run(race, folder)
    assert replace(first, cpu=0) == replace(again, cpu=0)
    assert 1 >= first.rank_1 >= first.rank_4 >= first.rank_16 >= first.rank_64 > 0
    if method != "PASHA":  # here no order ever changes, so that it trains for three units at most
        assert 0 < first.reached < math.inf
        assert first.rank_64 == 1 / N


def test_optuna_plays_on_the_same_curves_and_does_so_again_alike(folder):
    pytest.importorskip("optuna")
    race = Race("LCBench 1", "", OPTUNA, 4, 1, 8.0, 0.01)
    first, again = run(race, folder), run(race, folder)
    assert replace(first, cpu=0) == replace(again, cpu=0)
    assert first.trials > 4 * 8  # some were pruned
    assert 1 > first.rank_1 >= first.rank_4 >= first.rank_16 > 0


def test_a_factor_compares_the_same_seeds_up_to_the_same_horizon():
    def table(reached, horizon):
        frame = pd.DataFrame({"task": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1]})
        return frame.assign(
            reached=reached, horizon=horizon, log=np.log(np.minimum(reached, horizon))
        )

    factor, worst = against(table([1.0, 4.0, 1.0, 1.0], 80), table([2.0, 8.0, 8.0, 8.0], 80))
    assert (factor, worst) == (pytest.approx(4.0), pytest.approx(2.0))
    near, _ = against(table([2.0] * 4, 4), table([16.0] * 4, 80))
    assert near == pytest.approx(2.0)


@pytest.mark.slow
def test_one_command_runs_all_races_once_and_fills_the_readme(
    folder, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("optuna")
    monkeypatch.setattr(study, "SLOW", {OPTUNA: (1, 4.0)})
    arguments = [str(folder), "--seeds", "1", "--storage", str(tmp_path)]
    arguments += ["--readme", str(tmp_path / "README.md")]
    assert main(arguments) == 0
    text = (tmp_path / "README.md").read_text()
    assert "| GuardedASHA |" in text
    assert "features shuffled: LCBench" in text
    assert f"| {OPTUNA} |" in text
    for name in ("sooner", "ranks"):
        assert (tmp_path / f"figures/full-{name}.png").stat().st_size > 10_000
    todo = list(races(folder, 1))
    with (tmp_path / "races.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + len(todo)
    run_all(todo, folder, tmp_path / "races.csv")
    assert "0 of" in capsys.readouterr().out.splitlines()[-1]


def test_slow_methods_are_compared_with_fast_ones_by_whole_seeds(folder, tmp_path):
    pytest.importorskip("optuna")
    readme = tmp_path / "README.md"
    arguments = [str(folder), "--seeds", "2", "--gp", "0", "--optuna", "1"]
    arguments += ["--storage", str(tmp_path), "--readme", str(readme)]
    assert slow.main(arguments) == 0
    text = readme.read_text()
    with (tmp_path / "slow.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "GuardedASHA"]
    assert len(rows) == 2
    cells = next(line for line in text.splitlines() if line.startswith("| GuardedASHA | 2 | 80 |"))
    assert cells.split(" | ")[3].startswith(
        f"{np.median([float(r['reached']) for r in rows]):.2g};"
    )
    assert f"| {OPTUNA} | 1 | 40 |" in text
    assert "GPSearch" not in text


def test_a_seed_of_which_a_task_is_missing_does_not_count(folder, tmp_path):
    path = tmp_path / "races.csv"
    todo = [Race("LCBench 1", "", "AHB", 4, seed, 40.0, 0.002) for seed in (0, 1)]
    run_all(todo, folder, path)
    one = pd.read_csv(path)
    other = one[one["seed"] == 0].assign(task="LCBench 2")
    pd.concat([one, other]).to_csv(path, index=False)
    assert "| AHB | 1 | 40 |" in report.slow(report.read(path))


def test_with_little_room_for_states_less_is_trained_again_than_by_loss_alone(folder):
    table = tables(folder)["LCBench 1", ""]
    costs = {
        name: [checkpoints.run(table, name, 20, seed, 8.0) for seed in range(3)]
        for name in (checkpoints.RULE, checkpoints.BY_LOSS)
    }
    again = {name: sum(cost.again for cost in found) for name, found in costs.items()}
    assert again[checkpoints.RULE] < again[checkpoints.BY_LOSS]
    for cost in (cost for found in costs.values() for cost in found):
        assert cost.stored <= 20
        assert 0 < cost.full <= cost.trials
        assert cost.written > 0 < cost.resumed


@pytest.mark.parametrize("command", [main, slow.main])
def test_a_folder_without_tables_is_refused(command, tmp_path, capsys):
    assert command([str(tmp_path)]) == 2
    assert "has no tables" in capsys.readouterr().out
