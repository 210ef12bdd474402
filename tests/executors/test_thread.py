"""Sessions on executors that are given to a study: what they share with those on Dask."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from daskhpo import Study, load_study
from daskhpo.callbacks.base import Callback
from daskhpo.checkpoints import STORE, open_store
from daskhpo.core.errors import StudyExists, StudyFailed, StudyLocked
from daskhpo.core.events import SessionStarted
from daskhpo.core.types import CheckpointRef
from daskhpo.engine.lock import holder_of
from daskhpo.engine.requests import request_stop
from daskhpo.engine.session import study_records
from daskhpo.schedulers import ASHA
from daskhpo.space import Real
from daskhpo.virtual.executor import SimulatedExecutor


class Curve:
    def __init__(self, config):
        self.x = config["x"]

    def metric(self, resource):
        return self.x + 1 / resource

    def seconds(self, resource):
        return float(resource)


def simulated(session):
    """Two slots in virtual time."""
    return SimulatedExecutor(Curve, session.objective, 2, began_at=session.began_at)


class Waiting:
    """An executor without slots: its study waits until it is stopped."""

    def __init__(self, session):
        self.zero = time.monotonic() - session.began_at
        self.n_polls, self.is_closed = 0, False
        made.append(self)

    def now(self):
        return time.monotonic() - self.zero

    def poll(self, deadline):
        self.n_polls += 1
        time.sleep(max(0.0, deadline - self.now()))
        return []

    def perform(self, commands):
        assert not list(commands)

    def close(self):
        self.is_closed = True


class Breaking(Waiting):
    def poll(self, deadline):
        raise ZeroDivisionError("the machine is gone")


made: list[Waiting] = []


@pytest.fixture
def study(tmp_path):
    made.clear()
    return Study(None, {"x": Real(0, 1)}, "loss", scheduler=ASHA(9), storage=tmp_path, name="study")


@pytest.fixture
def waiting(study):
    """A handle of a study that waits for slots; it is ended with the test."""
    handle = study.start(4, executor=Waiting, progress=False)
    yield handle
    handle.stop("the test is over")
    handle.wait()


def test_a_study_on_an_executor_lies_in_its_directory_like_any_other(study):
    result = study.run(12, executor=simulated, progress=False)
    assert result.num_trials == 12
    assert load_study(study.path).history().equals(result.history())
    assert holder_of(study.path) is None
    with pytest.raises(StudyExists):
        study.run(12, executor=simulated, progress=False)


def test_it_is_resumed_and_its_time_counts_on(study):
    first = study.run(12, executor=simulated, progress=False).history()
    second = study.extend(20, executor=simulated, progress=False)
    assert second.num_trials == 20
    later = second.history().iloc[len(first) :]
    assert later["seconds"].min() > first["seconds"].max()


def test_a_branch_and_a_moved_study_are_resumed_on_an_executor(study, tmp_path):
    study.run(6, executor=simulated, progress=False)
    branch = study.branch("branch")
    assert branch.extend(9, executor=simulated, progress=False).num_trials == 9
    study.path.rename(tmp_path / "elsewhere")
    moved = study.at(tmp_path / "elsewhere")
    assert moved.extend(8, executor=simulated, progress=False).num_trials == 8
    assert not study.path.exists()


def test_callbacks_follow_it(study):
    class Following(Callback):
        seen: Any = ()

        def on_study_start(self, info):
            self.seen = [info.name]

        def on_record(self, record, progress):
            self.seen.append(record)

    following = Following()
    study.run(6, executor=simulated, callbacks=[following], progress=False)
    assert following.seen == ["study", *study_records(study.path)]


def test_it_is_locked_while_it_runs(study, waiting):
    with pytest.raises(StudyLocked):
        study.start(4, executor=simulated, if_exists="resume", progress=False)
    assert waiting.status() == {}


def test_a_stop_from_this_process_ends_it(waiting, study):
    waiting.stop("enough")
    assert waiting.wait().stop_reason == "enough"
    assert made[0].is_closed
    assert holder_of(study.path) is None


@pytest.mark.slow
def test_a_stop_from_another_process_ends_it(waiting, study):
    request_stop(study.path, holder_of(study.path)["token"], "enough of it")
    assert waiting.wait().stop_reason == "enough of it"


def test_a_time_budget_is_kept_to_the_moment(study):
    result = study.run(4, time_budget=0.6, executor=Waiting, progress=False)
    assert result.stop_reason == "the time budget is spent"
    assert made[0].n_polls >= 3, "it looks for stop requests while it waits"
    assert made[0].now() >= 0.6


def test_a_process_that_loses_its_lock_stops_at_once(study, monkeypatch):
    monkeypatch.setattr("daskhpo.engine.lock.HEARTBEAT_SECONDS", 0.1)
    handle = study.start(4, executor=Waiting, progress=False)
    lock = study.path / "lock.json"
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"token": "another one"}))
    with pytest.raises(StudyFailed, match="another process took over"):
        handle.wait()
    assert made[0].is_closed


def test_an_interrupted_wait_that_is_interrupted_again_aborts(study, monkeypatch):
    handle = study.start(4, executor=Waiting, progress=False)
    thread = handle._remote

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(thread, "is_finished", interrupted)
    with pytest.raises(KeyboardInterrupt):
        handle.wait()
    monkeypatch.undo()
    while not thread.is_finished(1.0):
        pass
    assert holder_of(study.path) is None
    assert made[0].is_closed


def test_an_error_of_the_executor_ends_the_study_and_is_raised(study):
    with pytest.raises(ZeroDivisionError, match="the machine is gone"):
        study.run(4, executor=Breaking, progress=False)
    assert made[0].is_closed
    assert holder_of(study.path) is None
    assert study.extend(4, executor=simulated, progress=False).num_trials == 4


def test_an_executor_that_cannot_be_made_leaves_the_study_free(study):
    def refuse(session):
        raise ConnectionError("no such machine")

    with pytest.raises(ConnectionError):
        study.start(4, executor=refuse, progress=False)
    assert holder_of(study.path) is None
    assert not [r for r in study_records(study.path) if not isinstance(r, SessionStarted)]


def test_the_executor_gets_what_the_study_knows(study):
    sessions = []

    def look(session):
        sessions.append(session)
        return simulated(session)

    study.run(6, executor=look, max_concurrent=3, progress=False)
    study.extend(8, executor=look, progress=False)
    first, second = sessions
    assert (first.trainable, first.max_t, first.seed) == (None, 9, 0)
    assert first.objective == study.problem.objective
    assert (first.options.num_trials, first.options.max_concurrent) == (6, 3)
    assert first.store.path == study.path / STORE
    assert first.began_at == 0.0
    assert second.began_at == study.result().history()["seconds"].iloc[-1] or second.began_at > 0


def test_dask_and_another_executor_exclude_one_another(study):
    with pytest.raises(TypeError, match="client= is for trials on Dask"):
        study.start(4, executor=simulated, client=object())


def test_a_store_may_lie_on_another_disk_by_a_link(study, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    study.path.mkdir()
    (study.path / STORE).symlink_to(scratch)
    store = open_store(study.path)
    ref = store.write(CheckpointRef(0, 0, 1), {"n": 1})
    assert list(scratch.iterdir())
    assert open_store(study.path).list() == [ref]
    branch = study.at(tmp_path / "branch")
    store.share(ref, open_store(branch.path))
    store.delete(ref)
    assert open_store(branch.path).read(ref) == {"n": 1}
