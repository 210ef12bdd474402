"""Read-only values that callbacks receive: a study, its trials, their reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from daskhpo.core.objective import Objective
from daskhpo.core.types import Decision, Limits, Status, TrialId
from daskhpo.results.progress import StudyProgress, TrialRecord


@dataclass(frozen=True)
class StudyInfo:
    """Description of a study, which callbacks get at the start.

    Attributes
    ----------
    source : "FILE.py:study" if it was started from the command line, else None.
    session : number of the session that runs when following begins; larger than 1 if the study was
        resumed. Trials with a smaller one come from earlier sessions.
    """

    name: str
    directory: Path
    objective: Objective
    limits: Limits
    scheduler: str
    dashboard_link: str | None
    source: str | None
    session: int = 1


@dataclass(frozen=True, slots=True)
class FrozenTrial:
    """A trial as it was at one moment.

    Attributes
    ----------
    id : number of the trial, from 0.
    config : its configuration; an exploit changes it. ``dict(trial.config)`` is a copy.
    bracket : number of its bracket, 0 if the scheduler has one.
    status : its status. A decision counts once it is taken: the trial may still leave its slot.
    attempt : number of its launches and exploits.
    resource : units of training that its state holds.
    metrics : metrics of its last unit; empty before the first.
    best_value : best value of the study's metric so far; None before the first report.
    n_exploits : number of other trials' states that it has taken over. Each may set it back.
    reason : why it ended, or "".
    error : traceback of its last failure, or error of its checkpoint, or "".
    started, ended : seconds since the study began; ``ended`` is None before its end.
    seconds : seconds in slots, up to its last unit.
    session : number of the session in which this happened.
    """

    id: TrialId
    config: Mapping[str, Any]
    bracket: int
    status: Status
    attempt: int
    resource: int
    metrics: Mapping[str, float]
    best_value: float | None
    n_exploits: int
    reason: str
    error: str
    started: float
    ended: float | None
    seconds: float
    session: int


@dataclass(frozen=True, slots=True)
class FrozenReport:
    """A unit of training, as a trial reported it first.

    Attributes
    ----------
    number : number of the report among all of the study, from 0. It is the same whenever and
        wherever the study is followed.
    resource : number of the unit, from 1.
    metrics : its metrics. ``dict(report.metrics)`` is a copy.
    value : the study's metric among them.
    seconds : time of its end, in seconds since the study began.
    is_best : True if no trial of the study has reported a value as good before.
    decision : the scheduler's decision about the trial at this unit; None: at none, it trains on.
    """

    number: int
    resource: int
    metrics: Mapping[str, float]
    value: float
    seconds: float
    is_best: bool
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study as it was at one moment.

    Attributes
    ----------
    n_trials : trials started so far.
    counts : number of trials per status; 0 for others.
    best : the trial with the best value so far, or None.
    n_slots : slots that serve the study.
    session : number of the session; 0 before the first.
    seconds : time of the last record, in seconds since the study began.
    session_seconds : the same since the session began.
    stop_reason : why the session was stopped, or None.
    search_seconds : slot-seconds lost waiting for the searcher.
    n_fallbacks : trials with a random configuration because the searcher was late.
    n_set_aside : trials that were not launched, because they would have lacked memory.
    """

    n_trials: int
    counts: Mapping[Status, int]
    best: FrozenTrial | None
    n_slots: int
    session: int
    seconds: float
    session_seconds: float
    stop_reason: str | None
    search_seconds: float
    n_fallbacks: int
    n_set_aside: int


def freeze(trial: TrialRecord, progress: StudyProgress) -> FrozenTrial:
    """Return a trial as it is now."""
    best = progress.objective.value(trial.best_loss)
    return FrozenTrial(
        trial.id,
        MappingProxyType(dict(trial.config)),
        trial.bracket,
        trial.status,
        trial.attempt,
        trial.resource,
        MappingProxyType(dict(trial.metrics)),
        best if math.isfinite(best) else None,
        trial.n_exploits,
        trial.reason,
        trial.error,
        trial.started,
        trial.ended,
        trial.seconds,
        progress.n_sessions,
    )


def summarise(progress: StudyProgress) -> StudySummary:
    """Return a study as it is now."""
    return StudySummary(
        progress.n_trials,
        MappingProxyType(dict(progress.counts)),
        None if progress.best is None else freeze(progress.best, progress),
        progress.n_slots,
        progress.n_sessions,
        progress.seconds,
        progress.seconds - progress.session_began,
        progress.stop_reason,
        progress.search_seconds,
        progress.n_fallbacks,
        progress.n_set_aside,
    )
