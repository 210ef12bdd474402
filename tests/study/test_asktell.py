"""Ask and tell: the user runs the trials."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from daskhpo import Study
from daskhpo.core.errors import MetricError, StudyLocked
from daskhpo.core.types import ScheduleSegment
from daskhpo.engine import requests
from daskhpo.engine.lock import holder_of
from daskhpo.schedulers import ASHA, FIFO, PBT, MedianStopping, PBTReplay
from daskhpo.searchers import GridSearch
from daskhpo.space import Integer, Real


def make(tmp_path: Path, scheduler: Any, **options: Any) -> Study:
    options = {"space": {"x": Real(0, 1)}, "metric": "loss"} | options
    return Study(None, scheduler=scheduler, storage=tmp_path, name="s", **options)


def train(study: Study, trial: Any) -> None:
    while study.tell(trial, {"loss": trial.config["x"] + 1 / (trial.resource + 1)}):
        pass


def test_told_units_are_the_history(tmp_path: Path) -> None:
    study = make(tmp_path, ASHA(9))
    asked = []
    for _ in range(12):
        trial = study.ask()
        assert trial is not None
        assert trial.resource == 0
        train(study, trial)
        assert trial.finished
        asked.append(trial)
    history = study.result().history()
    assert [(history.trial == t.id).sum() for t in asked] == [t.resource for t in asked]
    study.close()


def test_a_promoted_trial_is_asked_again_where_it_was(tmp_path: Path) -> None:
    study = make(tmp_path, ASHA(9, variant="promotion"))
    again = []
    for _ in range(40):
        trial = study.ask()
        assert trial is not None
        if trial.resource:
            again.append((trial.id, trial.resource))
        train(study, trial)
    assert again
    assert all(resource in (1, 3) for _, resource in again)
    for _, of_trial in study.result().history().groupby("trial"):
        assert of_trial.resource.tolist() == list(range(1, len(of_trial) + 1))
    study.close()


def test_several_trials_may_be_out_at_a_time(tmp_path: Path) -> None:
    study = make(tmp_path, FIFO(1))
    trials = [study.ask() for _ in range(4)]
    assert len({trial.id for trial in trials if trial}) == 4
    for trial in reversed(trials):
        assert trial is not None
        assert study.tell(trial, {"loss": 0.0}) is False
    study.close()


def test_an_exhausted_searcher_gives_none(tmp_path: Path) -> None:
    study = make(tmp_path, FIFO(1), space={"n": Integer(1, 3)}, searcher=GridSearch())
    for _ in range(3):
        trial = study.ask()
        assert trial is not None
        study.tell(trial, {"loss": 1.0})
    assert study.ask() is None
    study.close()


def test_mistakes_are_named(tmp_path: Path) -> None:
    study = make(tmp_path, FIFO(2))
    trial = study.ask()
    assert trial is not None
    with pytest.raises(MetricError, match="'loss' is missing"):
        study.tell(trial, {"los": 1.0})
    assert study.tell(trial, {"loss": float("nan")}) is False
    assert study.result().trial(trial.id).status.value == "failed"
    with pytest.raises(ValueError, match="does not run"):
        study.tell(trial, {"loss": 1.0})
    with pytest.raises(TypeError, match="no trainable"):
        study.run(num_trials=1)
    other = make(tmp_path, FIFO(2))
    with pytest.raises(StudyLocked):
        other.ask()
    study.close()


@pytest.mark.parametrize(
    "scheduler",
    [
        PBT(9, 3, ["x"]),
        MedianStopping(PBT(9, 3, ["x"])),
        PBTReplay([ScheduleSegment(0, 4, {"x": 0.1}), ScheduleSegment(4, 9, {"x": 0.2})]),
    ],
)
def test_states_that_would_go_on_with_other_settings_are_not_there_to_be_asked_for(
    scheduler: Any, tmp_path: Path
) -> None:
    space = {"x": 0.1} if isinstance(scheduler, PBTReplay) else {"x": Real(0, 1)}
    with pytest.raises(ValueError, match=r"another x, but with ask\(\) and tell\(\) the study has"):
        make(tmp_path, scheduler, space=space).ask()
    assert not list(tmp_path.iterdir())


def test_another_process_goes_on_where_the_last_one_closed(tmp_path: Path) -> None:
    first = make(tmp_path, FIFO(1))
    trial = first.ask()
    assert trial is not None
    first.tell(trial, {"loss": 1.0})
    first.close()
    second = make(tmp_path, FIFO(1))
    trial = second.ask()
    assert trial is not None
    assert trial.id == 1
    second.tell(trial, {"loss": 0.5})
    assert second.result().best_value == 0.5
    second.close()


def test_who_is_asked_to_stop_gets_no_more_trials_and_gives_back_what_he_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "REQUEST_POLL_SECONDS", 0.01)
    study = make(tmp_path, FIFO(1000))
    trial = study.ask()
    assert trial is not None
    assert study.tell(trial, {"loss": 1.0})
    holder = holder_of(study.path)
    assert holder is not None
    requests.request_stop(study.path, holder["token"], "enough")
    while study.tell(trial, {"loss": 1.0}):
        assert trial.resource < 1000
        threading.Event().wait(0.01)
    assert study.ask() is None
    assert study.result().stop_reason == "enough"
    study.close()
    again = study.ask()  # another session: it was not asked
    assert again is not None
    assert (again.id, again.resource) == (trial.id, 0)
    study.close()
