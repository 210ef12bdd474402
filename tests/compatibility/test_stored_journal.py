"""A study that was written once and for all: what is on users' disks must be read for ever.

``fixtures/study-1`` is what this made, at the version that its manifest names (its trial 0 lost its
worker once)::

    class Net(Trainable):
        def setup(self, config):
            self.n = 0

        def step(self):
            self.n += 1
            if self.trial.id == 4:
                raise RuntimeError("no")
            if self.n == 2 and not os.path.exists("died"):
                open("died", "w")
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05 if self.trial.id % 2 else 0.1)
            return {"loss": self.trial.config["x"] + 1 / self.n}

        # save_checkpoint, load_checkpoint: n

    study.run(9, client=two_workers)
    study.resume(12, client=two_workers, checkpoint="rung")

It is never made again; another format gets another folder, and both are read.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from daskhpo import load_study
from daskhpo.core.domains import Categorical, Real
from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Failed,
    Launched,
    Reported,
    Saved,
    SessionStarted,
)
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.replay import replay
from daskhpo.engine.session import check_manifest, study_records
from daskhpo.schedulers import ASHA
from daskhpo.searchers import RandomSearch
from daskhpo.testing.journal import MemoryJournal

STUDY = Path(__file__).with_name("fixtures") / "study-1"
PROBLEM = Problem(
    Space({"x": Real(0, 1), "kind": Categorical(["a", ("b", 2)])}),
    Objective("loss"),
    ASHA(9, variant="promotion"),
    RandomSearch(),
    seed=3,
)


def test_it_holds_what_a_study_may_go_through():
    kinds = {type(record) for record in study_records(STUDY)}
    assert kinds >= {SessionStarted, Launched, Reported, AttemptLost, Failed, Saved, Deleted}


def test_its_result_is_read():
    result = load_study(STUDY)
    assert repr(result) == "Result(12 trials, best loss=0.180272)"
    assert result.best_config == {"x": 0.06916040663460188, "kind": "a"}
    assert result.trial(1).config["kind"] == ("b", 2)
    assert result.trial(4).error.endswith("RuntimeError: no")
    assert len(result.history()) == 23
    assert [ref.id for ref in result.checkpoints()] == [9, 10, 11, 12, 13]
    assert result.jobs == []


def test_its_slots_time_is_accounted_for():
    cost = load_study(STUDY).cost()
    assert cost["device_seconds"] == pytest.approx(3.014585)
    assert cost["retrained_units"] == 2  # the first unit of trials 0 and 8
    parts = ("useful", "lost", "saving", "unreported", "idle")
    assert sum(cost[f"{part}_seconds"] for part in parts) == pytest.approx(cost["device_seconds"])


def test_it_replays_and_can_be_gone_on_with():
    check_manifest(STUDY, PROBLEM)
    tail = MemoryJournal()
    coordinator = replay(PROBLEM, study_records(STUDY), tail)
    coordinator.ledger.validate()
    assert tail.records == []
    assert coordinator.ledger.best_loss == load_study(STUDY).best_value
    assert coordinator.ledger.n_trials == 12
