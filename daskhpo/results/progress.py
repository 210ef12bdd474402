"""Progress of a study: the status of its trials, from its records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Ended,
    Exploited,
    Failed,
    Held,
    Launched,
    Record,
    Reported,
    RolledBack,
    Saved,
    SaveFailed,
    SessionStarted,
    SlotsChanged,
    StopRequested,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointRef, Config, Continue, Pause, Status, TrialId
from daskhpo.results.slot_time import SlotTime, TrialTime


class TrialRecord:
    """One trial, as recorded in the journal.

    Attributes
    ----------
    id, config, bracket, status, resource : as in :class:`~daskhpo.core.types.Trial`.
    metrics : metrics of its last report; empty before the first.
    best_loss : best loss so far; inf before the first report.
    checkpoint : newest checkpoint in the store, or None.
    reason : why it ended, or "".
    error : traceback of its last failure, or error of its checkpoint, or "".
    time : seconds that it took, by purpose.
    """

    __slots__ = (
        "attempt",
        "best_loss",
        "bracket",
        "checkpoint",
        "config",
        "error",
        "id",
        "metrics",
        "reason",
        "resource",
        "status",
        "time",
    )

    def __init__(self, trial: TrialId, config: Config, bracket: int) -> None:
        self.id, self.config, self.bracket = trial, config, bracket
        self.status = Status.QUEUED
        self.resource = self.attempt = 0
        self.time = TrialTime()
        self.metrics: dict[str, float] = {}
        self.best_loss = math.inf
        self.checkpoint: CheckpointRef | None = None
        self.reason = self.error = ""

    @property
    def seconds(self) -> float:
        """Seconds in which its attempts held a slot, in total, up to its last report."""
        return self.time.seconds

    @property
    def n_retrained(self) -> int:
        """Units that were trained again because no state held them."""
        return self.time.n_retrained


class StudyProgress:
    """The trials of a study, updated record by record.

    Parameters
    ----------
    keep_ended : True: keep ended trials. False: forget such a trial with the record after its
        end, which saves memory while a long study is followed.

    Attributes
    ----------
    trials : trials by id.
    counts : number of trials per status, ended ones included.
    slot_time : use of its slots' time.
    jobs : ids of the Slurm jobs whose workers have served it, in order.
    n_sessions : number of sessions so far.
    n_checkpoints, n_checkpoint_bytes : number and bytes of all checkpoints written so far.
    search_seconds : slot-seconds lost waiting for the searcher.
    n_fallbacks : trials with a random configuration because the searcher was late.
    checkpoints : checkpoints in the store, by id.
    best : the trial with the best loss so far, or None.
    stop_reason : why the last session was stopped, or None.
    seconds : time of the last record, in seconds since the study began.
    """

    def __init__(self, objective: Objective, *, keep_ended: bool = True) -> None:
        self.objective = objective
        self.trials: dict[TrialId, TrialRecord] = {}
        self.counts: Counter[Status] = Counter()
        self._keep_ended = keep_ended
        self._just_ended: TrialId | None = None
        self.best: TrialRecord | None = None
        self.slot_time = SlotTime()
        self.jobs: list[str] = []
        self.n_sessions = 0
        self.n_checkpoints = self.n_checkpoint_bytes = self.n_fallbacks = 0
        self.search_seconds = 0.0
        self.checkpoints: dict[int, CheckpointRef] = {}
        self.stop_reason: str | None = None
        self.seconds = 0.0
        self._target: float | None = None

    @property
    def n_trials(self) -> int:
        """Number of trials started so far."""
        return self.counts.total()

    @property
    def n_slots(self) -> int:
        """Number of slots that serve the study."""
        return self.slot_time.n_slots

    def apply(self, record: Record) -> None:
        """Process the next record."""
        self.seconds = record.seconds
        if self._just_ended is not None and not self._keep_ended:
            del self.trials[self._just_ended]
        self._just_ended = None
        match record:
            case Reported():
                self._reported(record)
            case Suggested(number, config, bracket):
                self.trials[number] = TrialRecord(number, config, bracket)
                self.counts[Status.QUEUED] += 1
                self.search_seconds += record.waited
                self.n_fallbacks += record.fallback
            case Launched(number, attempt):
                trial = self.trials[number]
                self._set_status(trial, Status.RUNNING)
                trial.attempt = attempt
            case Held(number):
                trial = self.trials[number]
                if trial.status is Status.RUNNING and self.stop_reason is not None:
                    self._set_status(
                        trial, Status.QUEUED
                    )  # it was to continue, and was preempted instead
            case Saved(number, _, ref):
                self.n_checkpoints += 1
                self.n_checkpoint_bytes += ref.n_bytes
                self.checkpoints[ref.id] = ref
                owner = self.trials.get(number)
                # An older one may be saved later: another trial shares it, and its owner has
                # trained further.
                if owner is not None and (owner.checkpoint is None or owner.checkpoint.id < ref.id):
                    owner.checkpoint = ref
            case Deleted(row):
                self._checkpoint_deleted(self.checkpoints.pop(row))
            case SaveFailed(number, error=error):
                if (owner := self.trials.get(number)) is not None:
                    owner.error = error
            case Exploited(number, _, config, resource):
                trial = self.trials[number]
                trial.config, trial.resource = config, resource
            case RolledBack(number):
                self._set_status(self.trials[number], Status.PAUSED)
            case Ended(number, status, reason):
                trial = self.trials[number]
                self._set_status(trial, status)
                trial.reason, self._just_ended = reason, number
            case AttemptLost(number, _, reason, bad_checkpoint=bad):
                trial = self._lose_slot(number)
                if bad:
                    trial.error = reason
            case Failed(number, _, error, paused=paused):
                trial = self._lose_slot(number)
                trial.error = error
                if paused:
                    self._set_status(trial, Status.PAUSED)
            case SlotsChanged(job=job):
                if job and job not in self.jobs:
                    self.jobs.append(job)
            case StopRequested(reason):
                self.stop_reason = reason
            case SessionStarted():
                self.n_sessions += 1
                self.stop_reason, self._target = None, record.limits.target
                for trial in self.trials.values():
                    if trial.status is Status.RUNNING:
                        self._set_status(trial, Status.QUEUED)
        self.slot_time.apply(record, self.trials)

    def _reported(self, record: Reported) -> None:
        trial = self.trials[record.trial]
        for step in record.steps:
            trial.best_loss = min(trial.best_loss, self.objective.loss(step.metrics))
        if record.steps:
            trial.resource = record.steps[-1].resource
            trial.metrics = dict(record.steps[-1].metrics)
        if trial.best_loss < (math.inf if self.best is None else self.best.best_loss):
            self.best = trial
        match record.decision:
            case Pause():
                self._set_status(trial, Status.PAUSED)
            case Continue():
                self._set_status(trial, Status.QUEUED if self._is_stopping() else Status.RUNNING)
            case None if record.preempted:
                self._set_status(trial, Status.QUEUED)

    def _checkpoint_deleted(self, ref: CheckpointRef) -> None:
        owner = self.trials.get(ref.trial)
        if owner is not None and owner.checkpoint == ref:
            rest = [other for other in self.checkpoints.values() if other.trial == ref.trial]
            owner.checkpoint = max(rest, key=lambda other: other.id, default=None)

    def _is_stopping(self) -> bool:
        if self._target is None or self.best is None:
            return self.stop_reason is not None
        # A stop that a report causes is recorded after the report.
        reached = self.objective.reached(self.best.best_loss, self._target)
        return reached or self.stop_reason is not None

    def _lose_slot(self, number: TrialId) -> TrialRecord:
        trial = self.trials[number]
        if trial.status is Status.RUNNING:
            self._set_status(trial, Status.QUEUED)
        return trial

    def _set_status(self, trial: TrialRecord, status: Status) -> None:
        self.counts[trial.status] -= 1
        self.counts[status] += 1
        trial.status = status


def status_counts(records: Iterable[Record], objective: Objective) -> dict[str, int]:
    """Return the number of trials per status."""
    progress = StudyProgress(objective, keep_ended=False)
    for record in records:
        progress.apply(record)
    return {status.value: n for status, n in progress.counts.items() if n}


def describe_search_wait(seconds: float, n_fallbacks: int) -> str:
    """Describe the cost of waiting for the searcher, for users to read."""
    shown = f"{seconds:.1f} device-seconds lost waiting for the searcher"
    if n_fallbacks:
        plural = "s" * (n_fallbacks != 1)
        shown += f", {n_fallbacks} random configuration{plural} instead of late ones"
    return shown
