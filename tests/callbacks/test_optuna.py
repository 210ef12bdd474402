"""Optuna reads the journal file: the same trials, values and best one."""

from __future__ import annotations

import json

import pytest

from daskhpo.callbacks import OptunaJournal
from daskhpo.core.events import (
    Ended,
    Exploited,
    Failed,
    Launched,
    Reported,
    SessionStarted,
    Step,
    Suggested,
)
from daskhpo.core.types import CheckpointPolicy, Limits, Status, Stop
from daskhpo.testing.callback import STORIES, CallbackContract, an_info, follow, resumed
from tests.callbacks.studies import a_study

BEGAN = SessionStarted(Limits(num_trials=3), CheckpointPolicy(), 0.0, clock=1.5e9)


def entries(info):
    return [json.loads(line) for line in (info.directory / "optuna.log").read_text().splitlines()]


class TestOptunaJournal(CallbackContract):
    @pytest.fixture
    def make(self):
        return OptunaJournal

    def logged(self, info):
        numbers, found = [], []
        for entry in entries(info):
            if entry["op_code"] == 4:
                numbers.append(entry["user_attrs"]["trial"])
            if entry["op_code"] == 7:
                found.append((numbers[entry["trial_id"]], entry["step"]))
        return found


def trial(number, values, status, at, **config):
    config = {"lr": 0.1, "layers": (5, 6), "optimizer": "sgd", "depth": 4, "constant": 3} | config
    steps = tuple(Step(n, {"loss": v, "acc": n}, at + n) for n, v in enumerate(values, start=1))
    records = [Suggested(number, config, 0, at), Launched(number, 1, 0, 9, at)]
    if steps:
        records.append(Reported(number, 1, steps, at + len(steps), decision=Stop("x")))
    if status is Status.FAILED:
        records.append(Failed(number, 1, "Traceback\nOSError: disk", at + 3, retry=False))
    if status is not None:
        records.append(Ended(number, status, "why", at + len(steps)))
    return records


def load(path):
    optuna = pytest.importorskip("optuna")
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return optuna.load_study(
        study_name=path.parent.name, storage=optuna.storages.JournalStorage(backend)
    )


def exported(folder, records, mode="min"):
    info = a_study(folder, records, mode)
    followers = follow([OptunaJournal()], records, info)
    followers.end()
    assert followers.callbacks
    return load(info.directory / "optuna.log")


def test_optuna_reads_trials_with_their_distributions_values_and_states(tmp_path):
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    records = [
        BEGAN,
        *trial(0, [3.0, 1.0, 2.0], Status.COMPLETED, 0.0),
        *trial(1, [5.0], Status.STOPPED, 10.0, depth=9, lr=1.0),
        *trial(2, [4.0], Status.FAILED, 20.0),
        *trial(3, [], Status.COMPLETED, 30.0),
        *trial(4, [6.0], None, 40.0),
    ]
    study = exported(tmp_path, records)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "RUNNING"]
    assert (study.best_trial.number, study.best_value) == (0, 1.0)
    first, second = study.trials[:2]
    assert first.params == {"lr": 0.1, "layers": "(5, 6)", "optimizer": "sgd", "depth": 4}
    assert first.distributions == {
        "lr": FloatDistribution(0.01, 1.0, log=True),
        "layers": CategoricalDistribution(["(3, 4)", "(5, 6)"]),
        "optimizer": CategoricalDistribution(["adam", "sgd"]),
        "depth": IntDistribution(1, 9),
    }
    assert first.intermediate_values == {1: 3.0, 2: 1.0, 3: 2.0}
    assert first.user_attrs["trial"] == 0
    assert first.user_attrs["config/constant"] == 3
    assert (first.user_attrs["status"], first.user_attrs["reason"]) == ("completed", "why")
    assert first.user_attrs["metrics/acc"] == 3
    assert (first.datetime_complete - first.datetime_start).total_seconds() == 3.0
    assert second.params["depth"] == 9
    assert study.metric_names == ["loss"]


def test_a_stopped_trial_that_is_the_best_is_optunas_best_too(tmp_path):
    records = [
        BEGAN,
        *trial(0, [3.0], Status.STOPPED, 0.0),
        *trial(1, [1.0], Status.STOPPED, 10.0),
        *trial(2, [2.0], Status.COMPLETED, 20.0),
        *trial(3, [0.5], Status.STOPPED, 30.0),
    ]
    assert exported(tmp_path / "min", records).best_trial.number == 3
    assert exported(tmp_path / "max", records, "max").best_trial.number == 0


def test_a_member_of_a_population_has_its_newest_hyperparameters(tmp_path):
    config = {"lr": 0.1, "layers": (5, 6), "optimizer": "adam", "depth": 4, "constant": 3}
    records = [
        BEGAN,
        *trial(0, [3.0], None, 0.0, optimizer="sgd"),
        *trial(1, [9.0, 8.0], None, 0.0),
        Exploited(1, 0, config, 1, 5.0),
        Launched(1, 3, 1, 9, 5.0),
        Reported(1, 3, (Step(2, {"loss": 2.5}, 6.0),), 6.0, decision=Stop("x")),
        Ended(1, Status.COMPLETED, "x", 6.0),
    ]
    study = exported(tmp_path, records)
    assert study.best_trial.number == 1
    assert study.best_params["optimizer"] == "adam"


def test_a_failed_trial_that_runs_again_is_a_new_trial_of_optuna(tmp_path):
    records = [
        BEGAN,
        *trial(0, [4.0], Status.FAILED, 0.0),
        SessionStarted(Limits(), CheckpointPolicy(), 9.0, retry_failed=True, clock=1.6e9),
        Launched(0, 2, 0, 9, 9.0),
        Reported(0, 2, (Step(1, {"loss": 4.0}, 10.0), Step(2, {"loss": 1.0}, 11.0)), 11.0),
        Ended(0, Status.COMPLETED, "x", 11.0),
    ]
    study = exported(tmp_path, records)
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]
    assert study.best_trial.user_attrs["trial"] == 0
    assert study.best_trial.datetime_start.year == 2020


def test_a_resumed_study_continues_the_file_beside_notes_of_the_dashboard(tmp_path):
    records = [BEGAN, *STORIES["the study is stopped"]]
    info = an_info(tmp_path / "s", records)
    follow([OptunaJournal()], records, info).end()
    path = info.directory / "optuna.log"
    note = '{"op_code":2,"worker_id":"x","study_id":0,"user_attr":{"note":"mine"}}\n'
    before = path.read_text() + note
    path.write_text(before)
    after = resumed(records)
    follow([OptunaJournal()], after, info).end()
    assert path.read_text().startswith(before)
    study = load(path)
    assert study.user_attrs == {"note": "mine"}
    assert [t.state.name for t in study.trials] == ["COMPLETE"]
    assert study.trials[0].intermediate_values.keys() == {1, 2, 3, 4, 5}
