"""Records that no session writes: types, order, trials."""

from __future__ import annotations

from typing import Any

import pytest

from daskhpo.core.events import (
    AttemptLost,
    Ended,
    Exploited,
    Held,
    Launched,
    Record,
    Reported,
    SessionStarted,
    Step,
    Suggested,
    TrialPauseRequested,
    TrialStopRequested,
)
from daskhpo.core.types import CheckpointPolicy, CheckpointRef, Continue, Limits, Status
from daskhpo.engine.record_check import RecordChecker

BEGAN = Suggested(0, {"x": [1, {"y": None}]}, 0, 0.0)


def checked(record: Any, metric: str | None = "loss") -> None:
    checker = RecordChecker(metric)
    checker.check(BEGAN)
    checker.check(record)


def reported(*steps: Any, **changes: Any) -> Reported:
    given = {"trial": 0, "attempt": 1, "seconds": 1.0} | changes
    return Reported(steps=tuple(Step(*step) for step in steps), **given)


@pytest.mark.parametrize(
    "record",
    [
        SessionStarted(Limits(3, 5.0), CheckpointPolicy("every", 2, durability=float("inf")), 0.0),
        reported((1, {"loss": 1.0}, 0.5), (2, {"loss": float("nan"), "n": 10**30}, 0.75)),
        reported((1, {"loss": 1}, 0), decision=Continue(3)),
        Held(0, 1, CheckpointRef(0, 0, 1), 1.0),
        Held(0, 1, None, 1),
        Ended(0, Status.STOPPED, "", 2.0),
        Exploited(0, 0, {"x": 1}, 3, 2.0),
        TrialStopRequested(7, "by hand", "no such trial", 2.0),
        TrialPauseRequested(7, True, "no such trial", 2.0),
    ],
)
def test_what_sessions_write_is_accepted(record: Record) -> None:
    checked(record)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (BEGAN, "trial 0 is suggested again"),
        (Suggested("1", {}, 0, 0.0), "trial is '1'"),  # type: ignore[arg-type]
        (Suggested(True, {}, 0, 0.0), "trial is True"),
        (Suggested(1, [], 0, 0.0), r"config is \[\]"),  # type: ignore[arg-type]
        (Suggested(1, {}, 0, float("nan")), "time is nan"),
        (Launched(1, 1, 0, 1, 0.0), "trial 1 was not suggested"),
        (Launched(0, 2**64, 0, 1, 0.0), "attempt is"),
        (Exploited(0, 7, {}, 1, 0.0), "source, trial 7"),
        (Ended(0, "stopped", "", 0.0), "status is"),  # type: ignore[arg-type]
        (AttemptLost(0, 1, "", 0.0, blame=1), "blame is 1"),  # type: ignore[arg-type]
        (Held(0, 1, CheckpointRef(0, "0", 1), 1.0), "ref is"),  # type: ignore[arg-type]
        (SessionStarted(Limits("3"), CheckpointPolicy(), 0.0), "limits is"),  # type: ignore[arg-type]
        (reported((1, {"acc": 1.0}, 0.0)), "lacks 'loss'"),
        (reported((1, {"loss": "1"}, 0.0)), "a metric is '1'"),
        (reported((1, {"loss": 10**400}, 0.0)), "a metric is"),
        (reported((2, {"loss": 1.0}, 0.0), (2, {"loss": 1.0}, 0.0)), "not in order: 2 after 2"),
        (reported((1.0, {"loss": 1.0}, 0.0)), "not in order"),
        (reported((1, None, 0.0)), "a step has the wrong type"),
        (reported((1, {"loss": 1.0}, "0")), "a step has the wrong type"),
        (reported(ended=None), "a field has the wrong type"),
        (reported(decision=Continue("3")), "its decision"),  # type: ignore[arg-type]
    ],
)
def test_what_no_session_writes_is_refused(record: Record, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        checked(record)


def test_an_unknown_metric_is_not_looked_for() -> None:
    checked(reported((1, {"acc": 1.0}, 0.0)), metric=None)
