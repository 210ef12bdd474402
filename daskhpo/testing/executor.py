"""Contract tests of executors, to inherit.

::

    class TestMyExecutor(ExecutorContract):
        @pytest.fixture
        def where(self):
            return {"executor": MyExecutor}
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from daskhpo.callbacks.base import Callback
from daskhpo.checkpoints import CheckpointPolicy, open_store
from daskhpo.core.domains import Ordinal, Real
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import (
    Exploited,
    Failed,
    Launched,
    Record,
    Reported,
    SessionStarted,
    SlotsChanged,
    Suggested,
)
from daskhpo.core.random import trial_seed
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import Config, Metrics, Status
from daskhpo.engine.replay import replay
from daskhpo.engine.session import study_records
from daskhpo.executors.dask.handle import StudyHandle
from daskhpo.results.progress import StudyProgress
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA, FIFO, PBT
from daskhpo.searchers import RandomSearch
from daskhpo.study.study import Study
from daskhpo.testing.journal import MemoryJournal
from daskhpo.trainable import Trainable

MakeStudy = Callable[..., Study]
Run = Callable[..., Result]
NEVER = 10**9  # a unit that no trial trains

CONTRACT_SPACE = {
    "x": Real(0.0, 1.0),
    "raises_at": NEVER,
    "nan_at": NEVER,
    "nameless_at": NEVER,
    "seconds": 0.0,
}


class Learner(Trainable):
    """A trial whose loss is known: ``x + 1 / n`` after ``n`` units.

    Its configuration says at which unit it raises, reports NaN, or does not report its loss, and
    how many seconds a unit takes.
    """

    def setup(self, config: Config) -> None:
        self.config, self.n = config, 0

    def step(self) -> dict[str, Any]:
        self.n += 1
        time.sleep(self.config["seconds"])
        if self.n == self.config["raises_at"]:
            raise RuntimeError("raised as its configuration says")
        if self.n == self.config["nameless_at"]:
            return {"accuracy": 0.5}
        loss = math.nan if self.n == self.config["nan_at"] else self.config["x"] + 1 / self.n
        trial = self.trial
        return {
            "loss": loss,
            "id": trial.id,
            "seed": trial.seed,
            "max_t": trial.max_t,
            "done": trial.resource,
        }

    def save_checkpoint(self) -> dict[str, int]:
        return {"n": self.n}

    def load_checkpoint(self, state: dict[str, int]) -> None:
        self.n = state["n"]


class LearnerCurve:
    """The learning curve of a `Learner`, for executors in virtual time."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def metric(self, resource: int) -> float:
        fails = resource in (self.config["raises_at"], self.config["nan_at"])
        return math.nan if fails else self.config["x"] + 1 / resource

    def seconds(self, resource: int) -> float:
        return (self.config["seconds"] or 1.0) * resource


def check_journal(study: Study) -> None:
    """Check that reports are those of a `Learner`, and that the session ended.

    Units are reported in order, none is left out, and each has the loss of the trial's
    configuration and resource. Times count on from the session before.
    """
    tail = MemoryJournal()
    coordinator = replay(study.problem, study_records(study.path), tail)
    coordinator.ledger.validate()
    assert not tail.records, "the session ended before its last decision was carried out"
    assert coordinator.is_drained, "the session ended before its trials did"
    began, configs, done = 0.0, dict[int, Config](), dict[int, int]()
    clock: dict[int, float] = {}
    for record in study_records(study.path):
        match record:
            case SessionStarted():
                began = record.seconds
            case Suggested(trial, config) | Exploited(trial, _, config):
                configs[trial] = config
            case Launched(trial, _, resource):
                done[trial], clock[trial] = resource, began
            case Reported(trial, _, steps):
                for step in steps:
                    done[trial] += 1
                    assert step.resource == done[trial]
                    assert step.metrics["loss"] == configs[trial]["x"] + 1 / step.resource
                    assert step.seconds >= clock[trial]
                    clock[trial] = step.seconds


def metrics_of(study: Study) -> list[tuple[int, int, Metrics]]:
    """Return (trial, resource, metrics) of all reported units."""
    reports = [record for record in study_records(study.path) if isinstance(record, Reported)]
    return [(r.trial, step.resource, step.metrics) for r in reports for step in r.steps]


def records_of(study: Study, kind: type[Any]) -> list[Any]:
    """Return the records of one kind."""
    return [record for record in study_records(study.path) if isinstance(record, kind)]


def end_of(handle: StudyHandle, patience: float) -> Result:
    """Wait for a study to end, for so many seconds, and raise its error."""
    end: Future[Result] = Future()

    def wait() -> None:
        try:
            end.set_result(handle.wait())
        except BaseException as error:
            end.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    futures.wait([end], patience)
    if not end.done():
        pytest.fail(
            f"the study did not end within {patience:g} s. Does a command await an event that "
            "never comes: Trained after Train, Held after Save, then Saved or Dropped?"
        )
    return end.result()


class FirstLaunch(Callback):
    """A callback that notes when the first trial is launched."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def on_record(self, record: Record, progress: StudyProgress) -> None:
        if isinstance(record, Launched):
            self.seen.set()


class ExecutorContract:
    """Contract of executors, to inherit by a test class with a fixture ``where``.

    ``where`` returns the keywords of ``Study.run`` that choose the executor, such as
    ``{"executor": MyExecutor}`` or ``{"client": client}``. The tests run studies of `Learner` there
    and read their journals.

    Attributes
    ----------
    trains : False for an executor that does not run the trainable, such as one in virtual time with
        `LearnerCurve`. Tests of the user's code and of states in the store are then skipped.
    patience : seconds that a study may take; most are over within one.
    """

    trains = True
    patience = 60.0

    @pytest.fixture
    def where(self) -> Mapping[str, Any]:
        """Return the keywords of ``Study.run`` that choose the executor."""
        raise NotImplementedError("define a fixture `where` in the test class")

    @pytest.fixture
    def make_study(self, tmp_path: Path) -> MakeStudy:
        """Return a function that defines a study of `Learner`.

        It takes a scheduler, points to evaluate first, and values of ``CONTRACT_SPACE`` by name.
        """

        def make(scheduler: Scheduler, points: Sequence[Config] = (), **domains: Any) -> Study:
            return Study(
                Learner,
                CONTRACT_SPACE | domains,
                "loss",
                scheduler=scheduler,
                searcher=RandomSearch(points_to_evaluate=points),
                storage=tmp_path,
                name="study",
                seed=1,
            )

        return make

    @pytest.fixture
    def run(self, where: Mapping[str, Any]) -> Run:
        """Return a function that runs or resumes a study, and checks its journal."""

        def run(study: Study, num_trials: int, **options: Any) -> Result:
            handle = study.start(num_trials, progress=False, **where, **options)
            result = end_of(handle, self.patience)
            check_journal(study)
            return result

        return run

    @pytest.fixture
    def real_trials(self) -> None:
        """Skip the test if the executor does not train."""
        if not self.trains:
            pytest.skip("the executor does not run the trainable")

    def test_every_trial_trains_to_its_end(self, make_study: MakeStudy, run: Run) -> None:
        frame = run(make_study(FIFO(5)), 4).trials()
        assert frame["status"].tolist() == ["completed"] * 4
        assert frame["resource"].tolist() == [5] * 4

    def test_a_stopped_trial_makes_room_for_the_next(self, make_study: MakeStudy, run: Run) -> None:
        frame = run(make_study(ASHA(9, variant="stopping")), 12).trials()
        assert len(frame) == 12
        assert set(frame["status"]) == {"completed", "stopped"}
        assert set(frame["resource"]) <= {1, 3, 9}

    def test_a_paused_trial_continues_from_its_state(self, make_study: MakeStudy, run: Run) -> None:
        result = run(make_study(ASHA(9, variant="promotion")), 12)
        assert result.history()["attempt"].max() > 1, "no trial was paused and resumed"
        assert result.cost()["retrained_units"] == 0

    def test_without_a_state_a_trial_trains_again(self, make_study: MakeStudy, run: Run) -> None:
        result = run(make_study(ASHA(9, variant="promotion")), 12, checkpoint="never")
        assert result.cost()["retrained_units"] > 0

    def test_a_member_of_a_population_takes_over_a_state(
        self, make_study: MakeStudy, run: Run
    ) -> None:
        study = make_study(PBT(12, 2, ["x"]))
        result = run(study, 6)
        assert records_of(study, Exploited), "no member exploited another one"
        assert set(result.trials()["resource"]) == {12}

    def test_code_that_raises_fails_its_trial_alone(self, make_study: MakeStudy, run: Run) -> None:
        study = make_study(FIFO(3), [{"x": 0.5, "raises_at": 2}], raises_at=Ordinal([2, NEVER]))
        frame = run(study, 6).trials()
        bad = frame["config/raises_at"] == 2
        assert set(frame["status"][bad]) == {"failed"}
        assert set(frame["status"][~bad]) == {"completed"}
        assert set(frame["resource"][bad]) == {1}, "the unit before the failure is missing"

    @pytest.mark.usefixtures("real_trials")
    def test_a_trial_whose_code_raised_is_launched_again(
        self, make_study: MakeStudy, run: Run
    ) -> None:
        study = make_study(FIFO(3), raises_at=2)
        trial = run(study, 1, max_failures=2).trial(0)
        assert trial.status is Status.FAILED
        assert len(records_of(study, Launched)) == len(records_of(study, Failed)) == 3
        assert "raised as its configuration says" in str(trial.error)

    def test_a_metric_that_is_not_finite_fails_its_trial_for_good(
        self, make_study: MakeStudy, run: Run
    ) -> None:
        study = make_study(FIFO(3), nan_at=2)
        frame = run(study, 2, max_failures=2).trials()
        assert frame["status"].tolist() == ["failed"] * 2
        assert frame["resource"].tolist() == [1] * 2
        assert len(records_of(study, Failed)) == 2

    @pytest.mark.usefixtures("real_trials")
    def test_a_report_without_the_metric_ends_the_study(
        self, make_study: MakeStudy, run: Run
    ) -> None:
        study = make_study(FIFO(3), nameless_at=2)
        with pytest.raises(StudyFailed, match="loss"):
            run(study, 4)
        check_journal(study)

    def test_max_concurrent_bounds_the_slots(self, make_study: MakeStudy, run: Run) -> None:
        study = make_study(FIFO(2))
        run(study, 4, max_concurrent=1)
        assert {record.n_slots for record in records_of(study, SlotsChanged)} <= {0, 1}

    def test_a_time_budget_preempts_trials_and_a_later_session_continues_them(
        self, make_study: MakeStudy, run: Run
    ) -> None:
        study = make_study(FIFO(100), seconds=0.01)
        first = run(study, 1, time_budget=0.3)
        assert first.stop_reason == "the time budget is spent"
        assert first.trials()["status"].tolist() == ["queued"]
        second = run(study, 1, if_exists="resume")
        assert second.trials()["status"].tolist() == ["completed"]
        assert second.cost()["retrained_units"] == 0
        assert second.history()["seconds"].max() >= 1.0, "100 units of 0.01 s"

    @pytest.mark.usefixtures("real_trials")
    def test_a_stop_request_preempts_trials(
        self, make_study: MakeStudy, where: Mapping[str, Any]
    ) -> None:
        study, first = make_study(FIFO(NEVER), seconds=0.001), FirstLaunch()
        handle = study.start(1, callbacks=[first], progress=False, **where)
        assert first.seen.wait(self.patience), "no trial was launched"
        handle.stop("enough")
        result = end_of(handle, self.patience)
        check_journal(study)
        assert result.stop_reason == "enough"
        assert result.trials()["status"].tolist() == ["queued"]

    @pytest.mark.usefixtures("real_trials")
    def test_a_trial_knows_itself(self, make_study: MakeStudy, run: Run) -> None:
        study = make_study(ASHA(9, variant="promotion"))
        run(study, 6)
        for trial, resource, metrics in metrics_of(study):
            assert metrics["id"] == trial
            assert metrics["seed"] == trial_seed(study.problem.seed, trial)
            assert metrics["max_t"] == 9
            assert metrics["done"] == resource - 1

    @pytest.mark.usefixtures("real_trials")
    def test_the_store_has_the_best_state_and_none_that_is_not_needed(
        self, make_study: MakeStudy, run: Run
    ) -> None:
        study = make_study(ASHA(9, variant="stopping"))
        result = run(study, 9, checkpoint=CheckpointPolicy("rung", keep_best=1))
        assert result.checkpoint() == {"n": result.best_trial.resource}
        assert open_store(study.path).list() == result.checkpoints()
        assert len(result.checkpoints()) == 1
