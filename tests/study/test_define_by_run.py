"""Objectives of Optuna as they are: the space is found, values stay, trials end at reports."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import pytest
from distributed import LocalCluster

import daskhpo
from daskhpo import from_optuna
from daskhpo.core.errors import InvalidArgument
from daskhpo.define_by_run import RunningTrial
from daskhpo.schedulers import FIFO
from daskhpo.searchers import OptunaSearch
from daskhpo.space import Categorical, Integer, Ordinal, Real
from tests.pause_all import PauseAll

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class TrialPruned(Exception):
    """Stands for Optuna's error of this name."""


def objective(trial):
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    n_layers = trial.suggest_int("n_layers", 1, 3)
    units = [trial.suggest_int(f"units_{i}", 16, 64, step=16) for i in range(n_layers)]
    momentum = 0.0
    if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "sgd":
        momentum = trial.suggest_float("momentum", 0.0, 0.9, step=0.3)
    trial.set_user_attr("n_units", sum(units))
    trial.set_user_attr("note", "kept, and not a number")
    for epoch in range(9):
        accuracy = 1 - lr / (epoch + 1) - momentum / 100
        trial.report(accuracy, epoch)
        trial.report(0.0, epoch)  # Optuna ignores a step that was reported
        if trial.should_prune():
            raise TrialPruned
    return accuracy


def expected(config, resource):
    momentum = config["momentum"] if config["optimizer"] == "sgd" else 0.0
    return 1 - config["lr"] / resource - momentum / 100


def test_the_space_is_found_also_in_branches_and_loops():
    study = from_optuna(objective, direction="maximize", max_t=9)
    assert dict(study.problem.space) == {
        "lr": Real(1e-4, 1e-1, log=True),
        "n_layers": Integer(1, 3),
        "units_0": Ordinal([16, 32, 48, 64]),
        "units_1": Ordinal([16, 32, 48, 64]),
        "units_2": Ordinal([16, 32, 48, 64]),
        "optimizer": Categorical(["adam", "sgd"]),
        "momentum": Ordinal([0.0, 0.3, 0.6, 0.9]),
    }
    assert study.problem.objective.mode == "max"


def test_an_objective_that_trains_is_probed_until_its_first_report_and_not_for_long():
    seen = []

    def slow(trial):
        trial.suggest_float("x", 0, 1)
        seen.append("begin")
        trial.report(1.0, 0)
        seen.append("trained on")

    from_optuna(slow, max_t=3, probe_seconds=0)
    assert seen == ["begin"]
    seen.clear()
    from_optuna(slow, {"x": Real(0, 1)}, max_t=3)
    assert seen == []


def test_one_value_is_one_unit_and_old_names_work():
    def old(trial):
        x = trial.suggest_uniform("x", -1, 1)
        y = trial.suggest_loguniform("y", 1e-3, 1)
        z = trial.suggest_discrete_uniform("z", 0, 1, 0.25)
        return x * y * z * trial.suggest_int("one", 1, 1) * trial.suggest_categorical("c", [2])

    study = from_optuna(old)
    assert study.problem.scheduler.max_t == 1
    assert study.problem.space["one"] == 1
    assert study.problem.space["c"] == 2
    assert study.problem.space["z"] == Ordinal([0.0, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda trial: trial.suggest_categorical("c", [object(), 1]), "Categorical"),
        (lambda trial: trial.study.best_value, "trial.study of Optuna is not available"),
        (lambda trial: 1 / 0, "ZeroDivisionError.*give space="),
    ],
)
def test_an_objective_that_cannot_be_probed_says_why(bad, message):
    with pytest.raises(ValueError, match=message):
        from_optuna(bad)


def test_options_are_checked():
    with pytest.raises(ValueError, match="'minimize' or 'maximize'"):
        from_optuna(objective, direction="min")
    with pytest.raises(ValueError, match="max_t is not given"):
        from_optuna(objective)


def test_what_is_not_in_the_space_is_drawn_by_the_trials_seed():
    def context(seed):
        return SimpleNamespace(id=3, seed=seed, config={"x": 0.5}, resource=0)

    def values(seed):
        trial = RunningTrial(context(seed))
        return (
            trial.suggest_float("x", 0, 1),
            trial.suggest_float("new", 0, 1),
            trial.suggest_categorical("kind", ["a", "b", "c"]),
            trial.metrics(1.0)["suggested/new"],
        )

    assert values(1) == values(1)
    assert values(1)[0] == values(2)[0] == 0.5
    assert values(1)[1] != values(2)[1]
    assert values(1)[1] == values(1)[3]


@pytest.mark.cluster
def test_trials_that_are_paused_report_what_undisturbed_ones_do(tmp_path):
    study = from_optuna(
        objective,
        direction="maximize",
        scheduler=PauseAll(9),
        searcher=OptunaSearch(),
        storage=tmp_path,
    )
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        study.run(num_trials=10, client=cluster, progress=False)
        result = study.resume(num_trials=12, client=cluster, progress=False)
    history = result.history()
    assert not history.duplicated(["trial", "resource"]).any()
    for row in history.itertuples():
        assert row.value == expected(result.trial(row.trial).config, row.resource)
    config = result.best_config
    n_units = sum(config[f"units_{i}"] for i in range(config["n_layers"]))
    assert result.best_trial.metrics["user_attrs/n_units"] == n_units
    assert {result.trial(n).attempt for n in range(12)} == {2}


@pytest.mark.cluster
def test_a_killed_worker_draws_the_same_values_again(tmp_path):
    marker = tmp_path / "killed"

    def drawn_in_the_trial(trial):
        x, scale = trial.suggest_float("x", 0, 1), trial.suggest_float("scale", 1, 2)
        for step in range(5):
            if step == 3 and not marker.exists():
                Path(marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            trial.report(x * scale / (step + 1), step)

    study = from_optuna(drawn_in_the_trial, {}, scheduler=FIFO(5), storage=tmp_path)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = study.run(num_trials=2, client=cluster, progress=False)
    assert marker.exists()
    for number, rows in result.history().groupby("trial"):
        assert len(rows) == 5
        assert rows["suggested/x"].nunique() == rows["suggested/scale"].nunique() == 1
        x, scale = rows["suggested/x"].iloc[0], rows["suggested/scale"].iloc[0]
        assert rows["value"].tolist() == [x * scale / n for n in range(1, 6)], number


@pytest.mark.cluster
def test_a_plain_function_of_a_configuration_is_a_trainable(tmp_path):
    study = daskhpo.Study(
        lambda config: config["x"] ** 2, {"x": Real(-1, 1)}, "loss", storage=tmp_path
    )
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = study.run(num_trials=3, client=cluster, progress=False)
    assert result.best_value == result.best_config["x"] ** 2


def test_a_range_of_very_many_steps_is_rounded_to_them():
    def objective(trial):
        x = trial.suggest_float("x", 0.05, 500, step=0.05)
        n = trial.suggest_int("n", 3, 50_000, step=7)
        assert x == float(f"{round(x / 0.05) * 0.05:.12g}")
        assert (n - 3) % 7 == 0
        assert trial.params == {"x": x, "n": n}
        return x + n

    study = from_optuna(objective, seed=1)
    assert study.problem.space["n"] == Integer(3, 3 + 7 * (49_997 // 7))
    with pytest.raises(InvalidArgument, match="step=2 with log=True"):
        from_optuna(lambda trial: trial.suggest_int("n", 2, 8, step=2, log=True))


@pytest.mark.cluster
def test_a_trial_that_was_added_before_the_study_is_its_first(tmp_path):
    study = from_optuna(lambda trial: trial.suggest_float("x", 0, 1), storage=tmp_path, name="s")
    study.enqueue({"x": 0.125})
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = study.run(num_trials=2, client=cluster, progress=False)
    assert result.trial(0).config == {"x": 0.125}
