"""The sentence that says what a study did."""

from __future__ import annotations

import pytest

from daskhpo.core.events import (
    AttemptLost,
    Ended,
    Failed,
    Launched,
    Reported,
    SessionStarted,
    SlotsChanged,
    Step,
    StopRequested,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits, Pause, Status, Stop
from daskhpo.results.outcome import describe_study
from daskhpo.results.progress import StudyProgress


def session(at=0.0):
    return [SessionStarted(Limits(), CheckpointPolicy("never"), at), SlotsChanged(4, at)]


def started(trial, until, at=0.0):
    return [Suggested(trial, {"x": 1.0}, 0, at), Launched(trial, 1, 0, until, at)]


def reported(trial, resources, loss, decision, attempt=1):
    steps = tuple(Step(r, {"loss": loss}, 1.0) for r in resources)
    return [Reported(trial, attempt, steps, 1.0, decision=decision)]


def paused(trial, until, loss):
    return [*started(trial, until), *reported(trial, range(1, until + 1), loss, Pause())]


def completed(trial, until, loss):
    full = Stop("fully trained")
    end = Ended(trial, Status.COMPLETED, full.reason, 1.0)
    return [*started(trial, until), *reported(trial, range(1, until + 1), loss, full), end]


def failed(trial):
    error = Failed(trial, 1, "KeyError: 'x'", 1.0)
    return [*started(trial, 9), error, Ended(trial, Status.FAILED, "KeyError: 'x'", 1.0)]


def sentence(*records):
    progress = StudyProgress(Objective("loss"))
    for record in (*session(), *records):
        progress.apply(record)
    return describe_study(progress, "GuardedASHA")


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (
            [*completed(0, 9, 0.25), *paused(1, 1, 0.5)],
            "GuardedASHA tried 2 configurations and trained 1 to the end; the best is trial 0, "
            "with loss=0.25 after 1 unit",
        ),
        (
            [*completed(0, 1, 0.25), *completed(1, 1, 0.125)],
            "GuardedASHA tried 2 configurations and trained all to the end; the best is trial 1, "
            "with loss=0.125 after 1 unit",
        ),
        (
            completed(0, 9, 0.25),
            "GuardedASHA tried 1 configuration and trained it to the end; the best is trial 0, "
            "with loss=0.25 after 1 unit",
        ),
        (
            [*failed(0), *paused(1, 3, 0.5)],
            "GuardedASHA tried 2 configurations and trained none to the end; 1 failed; the best "
            "is trial 1, with loss=0.5 after 1 unit",
        ),
        ([*failed(0), *failed(1)], "GuardedASHA tried 2 configurations, and all failed"),
        (failed(0), "GuardedASHA tried 1 configuration, and it failed"),
        (
            [*failed(0), *started(1, 9), StopRequested("Ctrl-C", 2.0)],
            "GuardedASHA tried 2 configurations; 1 failed; none has reported a value",
        ),
    ],
    ids=["nothing resumed", "one unit", "one trial", "a failure", "all fail", "it fails", "early"],
)
def test_the_sentence_is_true_of_any_study(records, said):
    assert sentence(*records) == said


def test_launches_of_paused_trials_are_resumptions():
    again = [Launched(1, 2, 1, 3, 2.0), *reported(1, (2, 3), 0.4, Pause(), attempt=2)]
    said = sentence(*completed(0, 9, 0.25), *paused(1, 1, 0.5), *again)
    assert "tried 2 configurations, resumed paused trials once and trained 1" in said
    assert "resumed paused trials twice and" in sentence(
        *completed(0, 9, 0.25), *paused(1, 1, 0.5), *again, Launched(1, 3, 3, 9, 3.0)
    )


def test_a_trial_that_lost_its_worker_or_its_session_was_not_paused():
    lost = [AttemptLost(0, 1, "its worker died", 1.0), Launched(0, 2, 0, 9, 2.0)]
    later = [*session(3.0), Launched(0, 3, 0, 9, 4.0)]
    assert "resumed" not in sentence(*started(0, 9), *lost, *later, *completed(1, 9, 0.25))


def test_the_units_are_those_of_its_values_where_the_best_trial_begins_again():
    again = [AttemptLost(0, 1, "its worker died", 2.0), Launched(0, 2, 0, 9, 2.0)]
    partial = [*started(0, 9), *reported(0, range(1, 6), 0.25, None), *again]
    assert sentence(*partial).endswith("with loss=0.25 after 1 unit")


def test_it_is_about_all_sessions_of_a_resumed_study():
    said = sentence(*completed(0, 9, 0.25), *session(5.0), *completed(1, 9, 0.5))
    assert said.startswith("GuardedASHA tried 2 configurations and trained all to the end")
