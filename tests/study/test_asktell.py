"""Ask and tell: the user runs the trials."""

from __future__ import annotations

import copy
import pickle
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daskhpo import Study, load_study
from daskhpo.core.errors import MetricError, StudyLocked
from daskhpo.core.types import ScheduleSegment
from daskhpo.engine import requests
from daskhpo.engine.lock import holder_of
from daskhpo.schedulers import ASHA, FIFO, PBT, MedianStopping, PBTReplay
from daskhpo.searchers import GridSearch
from daskhpo.space import Integer, Real
from daskhpo.study.asktell import AskedTrial


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


def test_threads_may_share_a_study(tmp_path: Path) -> None:
    """Each of several threads runs trials of its own; every report is kept, and a grid is whole."""
    space = {"x": Integer(1, 10), "y": Integer(1, 9)}
    study = make(tmp_path, ASHA(9, variant="promotion"), space=space, searcher=GridSearch(10))

    def work() -> int:
        n_told = 0
        while (trial := study.ask()) is not None:
            while not trial.finished:
                study.tell(trial, {"loss": trial.config["x"] + 1 / (trial.resource + 1)})
                n_told += 1
        return n_told

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(work) for _ in range(8)]
            n_told = sum(future.result() for future in futures)
    finally:
        sys.setswitchinterval(interval)
        study.close()
    again = make(tmp_path, ASHA(9, variant="promotion"), space=space, searcher=GridSearch(10))
    while (trial := again.ask()) is not None:  # what was paused when the last thread ended
        while not trial.finished:
            again.tell(trial, {"loss": 1.0})
            n_told += 1
    again.close()
    result = again.result()
    assert len(result.history()) == n_told
    frame = result.trials()
    assert len(frame.groupby(["config/x", "config/y"])) == len(frame) == 90


def test_threads_that_come_after_close_are_told(tmp_path: Path) -> None:
    study = make(tmp_path, FIFO(2))
    trial = study.ask()
    assert trial is not None
    session = study._asktell
    assert session is not None
    study.close()
    with pytest.raises(ValueError, match="closed"):
        session.ask()
    with pytest.raises(ValueError, match="does not run"):
        session.tell(trial, {"loss": 1.0})
    with pytest.raises(ValueError, match="not asked for in this session"):
        study.tell(trial, {"loss": 1.0})


def test_a_study_stays_where_it_was_first_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    study = Study(None, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), storage="runs", name="s")
    trial = study.ask()
    assert trial is not None
    monkeypatch.chdir(tmp_path / "there")
    study.tell(trial, {"loss": 1.0})
    assert study.result().num_trials == 1
    study.close()
    assert holder_of(tmp_path / "here/runs/s") is None
    assert study.branch("t").result().num_trials == 1
    trial = study.ask()
    assert trial is not None
    assert trial.id == 1
    study.close()
    loaded = load_study("../here/runs/s")
    monkeypatch.chdir(tmp_path)
    assert loaded.checkpoints() == []
    assert not list((tmp_path / "there").iterdir())


def test_a_study_without_a_name_shares_it_with_no_other(tmp_path: Path) -> None:
    studies = [
        Study(None, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), storage=tmp_path)
        for _ in range(50)
    ]
    assert len({study.name for study in studies}) == 50
    assert all(re.fullmatch(r"study-\d{8}-\d{6}-[0-9a-f]{8}", s.name) for s in studies)
    assert not list(tmp_path.iterdir()), "a study that is only made leaves no file"


def test_a_study_with_an_open_session_may_be_copied(tmp_path: Path) -> None:
    study = make(tmp_path, FIFO(1))
    assert study.ask() is not None
    for twin in (copy.deepcopy(study), study.at(tmp_path / "t"), pickle.loads(pickle.dumps(study))):
        with pytest.raises(ValueError, match="not asked for in this session"):
            twin.tell(AskedTrial(0, {"x": 0.5}, 0, 1), {"loss": 1.0})
    study.close()
