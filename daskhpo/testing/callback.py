"""Contract tests of callbacks, to inherit.

::

    class TestMyLogger(CallbackContract):
        @pytest.fixture
        def make(self):
            return MyLogger
"""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.follower import CallbackList
from daskhpo.callbacks.values import StudyInfo, freeze, summarise
from daskhpo.core.events import (
    AttemptLost,
    Ended,
    Exploited,
    Failed,
    Held,
    Launched,
    Record,
    Reported,
    SessionStarted,
    SlotsChanged,
    Step,
    StopRequested,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Continue,
    Decision,
    Limits,
    Pause,
    Status,
    Stop,
    TrialId,
)
from daskhpo.results.progress import StudyProgress

MakeCallback = Callable[[], Callback]
Unit = tuple[TrialId, int]  # trial and resource

OBJECTIVE = Objective("loss")
HOOKS = [name for name in vars(Callback) if name.startswith("on_")]
BEGAN = SessionStarted(Limits(num_trials=3), CheckpointPolicy(), 0.0)


def start(trial: TrialId) -> list[Record]:
    """Return the records of a trial's first launch, at the beginning of a study."""
    config = {"lr": 0.1 * (trial + 1), "layers": (3, 4), "optimizer": "adam"}
    return [Suggested(trial, config, 0, 0.0), Launched(trial, 1, 0, 9, 0.0)]


def report(
    trial: TrialId,
    first: int,
    last: int,
    at: float,
    decision: Decision | None = None,
    attempt: int = 1,
    **others: float,
) -> Reported:
    """Return a report of units, of which the last one ended at ``at``."""
    steps = [
        Step(unit, {"loss": 0.3 + trial + 1 / unit, **others}, at - (last - unit))
        for unit in range(first, last + 1)
    ]
    return Reported(trial, attempt, tuple(steps), at, decision=decision)


def held(trial: TrialId, resource: int, at: float) -> Held:
    """Return the record of a state that was taken."""
    return Held(trial, 1, CheckpointRef(trial, trial, resource), at)


DONE = Stop("fully trained")
STORIES: dict[str, list[Record]] = {
    "no worker comes": [SlotsChanged(0, 5.0)],
    "one trial is fully trained and one is stopped": [
        SlotsChanged(2, 0.0),
        *start(0),
        *start(1),
        report(0, 1, 2, 2.0),
        report(1, 1, 1, 2.0, Stop("worse")),
        Ended(1, Status.STOPPED, "worse", 2.0),
        report(0, 3, 3, 3.0, Continue(9)),
        report(0, 4, 9, 9.0, DONE),
        Ended(0, Status.COMPLETED, "fully trained", 9.0),
    ],
    "a trial fails before its first report": [
        *start(0),
        Failed(0, 1, "Traceback\nKeyError: 'lr'", 1.0, retry=False),
        Ended(0, Status.FAILED, "KeyError: 'lr'", 1.0),
    ],
    "a trial returns without a report": [
        *start(0),
        Reported(0, 1, (), 1.0, ended=True, decision=Stop("its code returned")),
        Ended(0, Status.COMPLETED, "its code returned", 1.0),
    ],
    "trials are paused, and one is resumed": [
        *start(0),
        *start(1),
        report(0, 1, 3, 3.0, Pause()),
        report(1, 1, 3, 3.0, Pause()),
        held(0, 3, 4.0),
        held(1, 3, 4.0),
        Launched(0, 2, 3, 9, 4.0),
        report(0, 4, 9, 10.0, DONE, attempt=2),
        Ended(0, Status.COMPLETED, "fully trained", 10.0),
    ],
    "units are trained again": [
        *start(0),
        report(0, 1, 3, 3.0),
        AttemptLost(0, 1, "its worker died", 4.0),
        Launched(0, 2, 1, 9, 5.0),
        report(0, 2, 5, 9.0, attempt=2),
        Failed(0, 2, "Traceback\nOSError", 10.0),
        Launched(0, 3, 0, 9, 10.0),
        report(0, 1, 9, 19.0, DONE, attempt=3),
        Ended(0, Status.COMPLETED, "fully trained", 19.0),
    ],
    "a trial takes over another one's state": [
        *start(0),
        *start(1),
        report(0, 1, 2, 2.0, Pause()),
        report(1, 1, 5, 5.0, Pause()),
        held(0, 2, 5.0),
        held(1, 5, 5.0),
        Exploited(1, 0, {"lr": 0.12, "layers": (3, 4), "optimizer": "sgd"}, 2, 5.0),
        Launched(1, 3, 2, 9, 5.0),
        report(1, 3, 9, 12.0, DONE, attempt=3),
        Ended(1, Status.COMPLETED, "fully trained", 12.0),
    ],
    "a metric comes later": [
        *start(0),
        report(0, 1, 1, 1.0),
        report(0, 2, 4, 4.0, accuracy=0.5),
        report(0, 5, 9, 9.0, DONE),
        Ended(0, Status.COMPLETED, "fully trained", 9.0),
    ],
    "the study is stopped": [
        *start(0),
        report(0, 1, 3, 3.0, Continue(9)),
        StopRequested("Ctrl-C", 3.0),
        report(0, 4, 4, 4.0),
        Reported(0, 1, (), 4.0, preempted=True),
        held(0, 4, 5.0),
    ],
}


def resumed(records: Sequence[Record]) -> list[Record]:
    """Return all records of a study that was killed after ``records``, and resumed.

    No state was saved: each trial that has not ended trains again from its start, and ends one unit
    later than it had come.
    """
    progress = StudyProgress(OBJECTIVE)
    for record in records:
        progress.apply(record)
    at = progress.seconds
    after = [*records, SessionStarted(Limits(), CheckpointPolicy(), at)]
    for trial in progress.trials.values():
        if not trial.status.ended:
            attempt, until = trial.attempt + 1, trial.furthest + 1
            after.append(Launched(trial.id, attempt, 0, until, at))
            at += until
            after.append(report(trial.id, 1, until, at, DONE, attempt))
            after.append(Ended(trial.id, Status.COMPLETED, "fully trained", at))
    return after


def reported_units(records: Sequence[Record]) -> list[Unit]:
    """Return the units that are reported to callbacks, each once, in order."""
    progress, units = StudyProgress(OBJECTIVE), []
    for record in records:
        progress.apply(record)
        if isinstance(record, Reported):
            units += [(record.trial, step.resource) for step in progress.new_steps]
    return units


def an_info(directory: Path, records: Sequence[Record]) -> StudyInfo:
    """Return the description of a study in a directory, which exists then."""
    directory.mkdir(parents=True, exist_ok=True)
    n_sessions = sum(isinstance(record, SessionStarted) for record in records)
    limits = Limits(num_trials=3)
    return StudyInfo(
        directory.name,
        directory,
        OBJECTIVE,
        limits,
        "FIFO(max_t=9)",
        None,
        None,
        max(1, n_sessions),
    )


def follow(
    callbacks: Sequence[Callback], records: Sequence[Record], info: StudyInfo
) -> CallbackList:
    """Let callbacks follow records, with a tick after each, and no end yet."""
    followers = CallbackList(callbacks, info)
    for record in records:
        followers.apply(record)
        followers.tick()
    return followers


class Raising(Callback):
    """A callback that raises in one of its hooks."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self._raise)

    def _raise(self, *values: object) -> None:
        raise ZeroDivisionError


class CallbackContract:
    """Contract of callbacks, to inherit by a test class with a fixture ``make``.

    ``make`` is a function without arguments that returns a new callback. If the callback logs
    units, override :meth:`logged`: the tests then compare what was logged.
    """

    @pytest.fixture
    def make(self) -> MakeCallback:
        """Return a function without arguments that returns a new callback."""
        raise NotImplementedError("define a fixture `make` in the test class")

    def logged(self, info: StudyInfo) -> list[Unit] | None:
        """Return trial and resource of each logged unit of a study; None: it logs none."""
        return None

    @pytest.fixture(params=STORIES)
    def records(self, request: pytest.FixtureRequest) -> list[Record]:
        """Return the records of a session, without an end."""
        return [BEGAN, *STORIES[request.param]]

    def test_it_follows_a_study_to_its_end(
        self, make: MakeCallback, records: list[Record], tmp_path: Path
    ) -> None:
        info = an_info(tmp_path / "study", records)
        followers = follow([make()], records, info)
        followers.end()
        self._assert_followed(followers, records, info)

    def test_it_lets_go_of_a_study_that_continues(
        self, make: MakeCallback, records: list[Record], tmp_path: Path
    ) -> None:
        info = an_info(tmp_path / "study", records)
        follow([make()], records[:3], info).detach()
        again = follow([make()], records, info)
        again.detach()
        self._assert_followed(again, records, info)

    def test_it_follows_a_study_that_was_killed_and_resumed(
        self, make: MakeCallback, records: list[Record], tmp_path: Path
    ) -> None:
        cuts = {f"after-{n}": records[:n] for n in range(1, len(records) + 1)}
        with warnings.catch_warnings():  # its open files end with the process
            warnings.simplefilter("ignore", ResourceWarning)
            for name, before in cuts.items():
                follow([make()], before, an_info(tmp_path / name, before))
            gc.collect()
        for name, before in cuts.items():
            after = resumed(before)
            info = an_info(tmp_path / name, after)
            followers = follow([make()], after, info)
            followers.end()
            self._assert_followed(followers, after, info)

    def test_one_object_may_follow_one_session_after_another(
        self, make: MakeCallback, records: list[Record], tmp_path: Path
    ) -> None:
        callback, after = make(), resumed(records)
        for name, told in (("first", records), ("first", after), ("second", records)):
            info = an_info(tmp_path / name, told)
            followers = follow([callback], told, info)
            followers.end()
            self._assert_followed(followers, told, info)

    @pytest.mark.parametrize("hook", HOOKS)
    def test_it_does_not_mind_another_one_that_raises(
        self, make: MakeCallback, hook: str, tmp_path: Path
    ) -> None:
        records: list[Record] = [BEGAN, *STORIES["units are trained again"]]
        info = an_info(tmp_path / "study", records)
        followers = follow([Raising(hook), make(), Raising(hook)], records, info)
        followers.end()
        self._assert_followed(followers, records, info)

    def test_it_changes_nothing_that_it_receives(
        self, make: MakeCallback, records: list[Record], tmp_path: Path
    ) -> None:
        before = copy.deepcopy(records)
        followers = follow([make()], records, an_info(tmp_path / "study", records))
        unseen = follow([], before, an_info(tmp_path / "unseen", records))
        assert records == before
        assert summarise(followers.progress) == summarise(unseen.progress)
        found, expected = (
            {number: freeze(trial, each.progress) for number, trial in each.progress.trials.items()}
            for each in (followers, unseen)
        )
        assert found == expected
        followers.end()

    def _assert_followed(
        self, followers: CallbackList, records: Sequence[Record], info: StudyInfo
    ) -> None:
        raised = "the callback raised: its traceback is in the captured log"
        assert [c for c in followers.callbacks if not isinstance(c, Raising)], raised
        logged = self.logged(info)
        if logged is not None:
            assert sorted(logged) == sorted(reported_units(records))
