"""Studies written by the version before the rooms moved: they are read, replayed and gone on with.

``fixtures/study-asha`` and ``fixtures/study-pbt`` are what these made on a ``LocalCluster`` of two
workers, at the version that their manifests name. They are never made again; another format gets
another folder, and both are read::

    class Net(Trainable):
        def setup(self, config):
            self.w, self.n = np.full(4, config["x"]), 0

        def step(self):
            self.n += 1
            if self.trial.id == 4:
                raise RuntimeError("no")
            died = f"died{self.trial.id}"
            if self.n == 2 and self.trial.id in (1, 3) and not os.path.exists(died):
                open(died, "w")
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)
            self.w = self.w * 0.5
            return {"loss": float(self.w.sum()) + 1 / self.n, "n": self.n}

        # save_checkpoint, load_checkpoint: w, n

    asha.run(9), asha.start(14, checkpoint="rung", resume=True) and stop("enough for now"),
    asha.resume(14)

    class Member(Net):  # of the population; one worker dies so that a member is set back
        def step(self):
            self.n += 1
            if self.trial.resource >= 4 and not os.path.exists("set-back"):
                open("set-back", "w")
                os.kill(os.getpid(), signal.SIGKILL)
            self.w = self.w - self.trial.config["x"]
            return {"loss": float(np.abs(self.w).sum()) + self.trial.config["x"], "n": self.n}

    pbt.run(5)
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import LocalCluster

from daskhpo import Study, Trainable, load_study
from daskhpo.checkpoints import STORE, ZarrStore
from daskhpo.core.errors import StudyLocked
from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Dropped,
    Ended,
    Exploited,
    Failed,
    Held,
    Launched,
    Reported,
    RolledBack,
    Saved,
    SessionStarted,
    SlotsChanged,
    StopRequested,
    Suggested,
)
from daskhpo.engine.journal import decode_record, encode_record
from daskhpo.engine.lock import StudyLock, holder_of
from daskhpo.engine.replay import replay
from daskhpo.engine.requests import requested_stop
from daskhpo.engine.session import check_manifest, study_records
from daskhpo.schedulers import ASHA, PBT
from daskhpo.searchers import RandomSearch
from daskhpo.space import Categorical, Integer, Real
from daskhpo.testing.journal import MemoryJournal

FIXTURES = Path(__file__).with_name("fixtures")


class Net(Trainable):
    """The trainable of the stored study, without its mishaps."""

    def setup(self, config):
        self.w, self.n = np.full(4, config["x"]), 0

    def step(self):
        self.n += 1
        self.w = self.w * 0.5
        return {"loss": float(self.w.sum()) + 1 / self.n, "n": self.n}

    def save_checkpoint(self):
        return {"w": self.w, "n": self.n}

    def load_checkpoint(self, state):
        self.w, self.n = state["w"], state["n"]


class Member(Net):
    """The trainable of the stored population, without its mishap."""

    def step(self):
        self.n += 1
        self.w = self.w - self.trial.config["x"]
        return {"loss": float(np.abs(self.w).sum()) + self.trial.config["x"], "n": self.n}


def asha(storage):
    return Study(
        Net,
        {
            "x": Real(0, 1),
            "layers": Integer(1, 8, log=True),
            "kind": Categorical(["a", ("b", 2)]),
            "fixed": 3,
        },
        "loss",
        scheduler=ASHA(9, variant="promotion"),
        searcher=RandomSearch(points_to_evaluate=[{"x": 0.25, "layers": 2, "kind": ("b", 2)}]),
        storage=storage,
        name="study-asha",
        seed=3,
    )


def pbt(storage):
    return Study(
        Member,
        {"x": Real(0.01, 1, log=True)},
        "loss",
        scheduler=PBT(12, 2, ["x"]),
        storage=storage,
        name="study-pbt",
        seed=1,
    )


STUDIES = pytest.mark.parametrize("define", [asha, pbt])


@pytest.fixture
def storage(tmp_path):
    """A copy of all stored studies, which a test may change."""
    shutil.copytree(FIXTURES, tmp_path / "runs")
    return tmp_path / "runs"


def test_they_hold_nearly_all_that_a_study_may_go_through():
    records = [*study_records(asha(FIXTURES).path), *study_records(pbt(FIXTURES).path)]
    assert {type(record) for record in records} == {
        *(
            SessionStarted,
            Deleted,
            Dropped,
            Ended,
            Exploited,
            Failed,
            Held,
            Launched,
            AttemptLost,
            Reported,
            Saved,
        ),
        *(RolledBack, SlotsChanged, StopRequested, Suggested),
    }


@pytest.mark.parametrize("line", (FIXTURES / "records.jsonl").read_text().splitlines())
def test_a_record_of_each_kind_is_written_as_it_was(line):
    assert encode_record(decode_record(line)) == line


@STUDIES
def test_every_line_of_a_journal_is_written_as_it_was(define):
    for line in (define(FIXTURES).path / "journal.jsonl").read_text().splitlines():
        assert encode_record(decode_record(line)) == line


@STUDIES
def test_the_definition_is_that_of_the_directory(define):
    study = define(FIXTURES)
    check_manifest(study.path, study.problem)


@pytest.mark.cluster
@STUDIES
def test_a_manifest_is_written_as_it_was(define, tmp_path):
    study = define(tmp_path)
    study.ask() if define is asha else study.start(2, progress=False).wait()
    study.close()
    then = json.loads((FIXTURES / study.name / "study.json").read_text())
    assert json.loads((study.path / "study.json").read_text()) == then


@STUDIES
def test_a_journal_replays_to_the_same_decisions(define):
    study, tail = define(FIXTURES), MemoryJournal()
    coordinator = replay(study.problem, study_records(study.path), tail)
    coordinator.ledger.validate()
    assert tail.records == []
    assert coordinator.ledger.best_loss == study.result().best_value
    assert coordinator.ledger.n_trials == study.result().num_trials


def test_the_results_are_those_of_then():
    first, second = load_study(FIXTURES / "study-asha"), load_study(FIXTURES / "study-pbt")
    assert repr(first) == "Result(14 trials, best loss=0.112574)"
    assert first.best_config == {"x": 0.1872812635491552, "layers": 7, "kind": "a", "fixed": 3}
    assert first.trial(0).config == {"x": 0.25, "layers": 2, "kind": ("b", 2), "fixed": 3}
    assert repr(second) == "Result(5 trials, best loss=0.0118493)"
    assert second.lineage()["parent"].count() == 6
    assert [ref.trial for ref in second.checkpoints()] == [second.best_trial.id]


@STUDIES
def test_stored_states_are_read_and_zarr_reads_them_too(define, storage):
    study = define(storage)
    store = ZarrStore(study.path / STORE)
    group = zarr.open_group(store.path, mode="r")
    refs = study.result().checkpoints()
    assert refs
    for ref in refs:
        store.verify(ref)
        state = store.read(ref)
        assert state["n"] == ref.resource
        assert state["w"].shape == (4,)
        assert group[ref.array][ref.id].nbytes == ref.n_bytes


@pytest.mark.cluster
@STUDIES
def test_a_study_is_gone_on_with_on_real_workers(define, storage):
    study = define(storage)
    then = study.result()
    n_then = len(list(study_records(study.path)))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        result = study.resume(then.num_trials + 4, client=cluster, progress=False)
    assert result.num_trials == then.num_trials + 4
    assert result.stop_reason is None
    assert result.history().iloc[: len(then.history())].equals(then.history())
    lines = (study.path / "journal.jsonl").read_text().splitlines()
    assert lines[:n_then] == (FIXTURES / study.name / "journal.jsonl").read_text().splitlines()
    replay(study.problem, study_records(study.path), MemoryJournal()).ledger.validate()


def test_a_branch_of_a_stored_study_shares_its_states(storage):
    other = asha(storage).branch("other")
    refs = other.result().checkpoints()
    assert refs == asha(storage).result().checkpoints()
    for ref in refs:
        ZarrStore(other.path / STORE).verify(ref)


def test_a_stored_lock_says_who_held_it_and_is_taken_over(storage):
    directory = storage / "study-asha"
    shutil.copy(FIXTURES / "lock.json", directory)
    holder = holder_of(directory)
    assert {"token": "4f3c", "host": "node17", "pid": 4242, "job": "4711.0"}.items() <= (
        holder.items()
    )
    os.utime(directory / "lock.json", (0, 0))
    StudyLock(directory).release()
    assert not (directory / "lock.json").exists()


def test_a_lock_has_the_keys_of_then(tmp_path):
    lock = StudyLock(tmp_path)
    keys = json.loads((tmp_path / "lock.json").read_text()).keys()
    lock.release()
    then = json.loads((FIXTURES / "lock.json").read_text())
    assert [key for key in keys if key != "machine"] == list(then)


def test_a_lock_of_then_holds_until_its_heartbeat_stops(tmp_path):
    shutil.copy(FIXTURES / "lock.json", tmp_path)
    os.utime(tmp_path / "lock.json")
    with pytest.raises(StudyLocked, match="process 4242 on node17"):
        StudyLock(tmp_path)
    os.utime(tmp_path / "lock.json", (0, 0))
    StudyLock(tmp_path).release()


def test_stored_requests_are_understood(storage):
    shutil.copy(FIXTURES / "requests.jsonl", storage / "study-asha")
    assert requested_stop(storage / "study-asha", "4f3c") == "enough for now"
    assert requested_stop(storage / "study-asha", "job 4711") == "stopped by the user"
