"""Progress of a study: where it and its trials stand, from its records alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import MappingProxyType

from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Dropped,
    Ended,
    Exploited,
    Extended,
    Failed,
    Held,
    Launched,
    Record,
    Reported,
    RolledBack,
    Saved,
    SaveFailed,
    SessionStarted,
    SetAside,
    SlotsChanged,
    Step,
    StopRequested,
    Suggested,
    TrialPauseRequested,
    Withheld,
)
from daskhpo.core.objective import Objective
from daskhpo.core.tracebacks import headline
from daskhpo.core.types import (
    CheckpointRef,
    Config,
    Continue,
    Metrics,
    Pause,
    PeakMemory,
    Status,
    TrialId,
)
from daskhpo.results.slot_time import SlotTime, TrialTime
from daskhpo.results.stored_checkpoints import StoredCheckpoints

_NOTHING: Metrics = MappingProxyType({})
_UNKNOWN = PeakMemory()


class TrialRecord:
    """One trial, as recorded in the journal.

    Attributes
    ----------
    id, config, bracket, attempt, resource : as in :class:`~daskhpo.core.types.Trial`.
    status : status once the last decision about it is carried out. Its state may still be taken.
    metrics : metrics of its last report; empty before the first.
    best_metrics : metrics of its best report, the first if there are several.
    best_loss : best loss so far; inf before the first report.
    best_resource : units of training after which it was reported; 0 before the first report.
    furthest : largest resource that it has reported since it last took over another trial's state.
    n_exploits : number of other trials' states that it has taken over.
    n_retrained : units that were trained again because no state held them.
    checkpoint : newest checkpoint in the store, or None.
    reason : why it ended, or "".
    error : traceback of its last failure, or error of its checkpoint, or "".
    started, ended : seconds since the study began; ``ended`` is None before its end.
    time : seconds that it took, by purpose.
    memory : most memory that any of its attempts has used, as far as it is known.
    """

    __slots__ = (
        *("id", "config", "bracket", "started", "ended", "status", "attempt", "resource"),
        *("furthest", "n_exploits", "n_retrained", "metrics", "best_metrics", "best_loss"),
        *("best_resource", "checkpoint", "reason", "error", "time", "memory"),
    )  # a study may have a hundred thousand

    def __init__(self, trial: TrialId, config: Config, bracket: int, started: float) -> None:
        self.id, self.config, self.bracket, self.started = trial, config, bracket, started
        self.ended: float | None = None
        self.status = Status.QUEUED
        self.attempt = self.resource = self.furthest = self.n_exploits = self.n_retrained = 0
        self.metrics: Metrics = _NOTHING
        self.best_metrics: Metrics = _NOTHING
        self.best_loss = math.inf
        self.best_resource = 0
        self.checkpoint: CheckpointRef | None = None
        self.reason = self.error = ""
        self.time = TrialTime()
        self.memory = _UNKNOWN

    def __repr__(self) -> str:
        best = f", best_loss={self.best_loss:.6g}" if math.isfinite(self.best_loss) else ""
        return f"TrialRecord({self.id}, {self.status.value} at {self.resource}{best})"

    @property
    def seconds(self) -> float:
        """Seconds in which its attempts held a slot, in total, up to its last report."""
        return self.time.seconds


class StudyProgress:
    """A study and its trials as they stand now, updated record by record.

    Parameters
    ----------
    keep_ended : True: keep ended trials. False: forget such a trial with the record after its
        end, unless it failed and may run again, which saves memory in long studies.

    Attributes
    ----------
    trials : trials by id.
    counts : number of trials per status; 0 for statuses that no trial has.
    paused_by_hand : trials that are launched no more until a person resumes them.
    best : the trial with the best loss so far, or None.
    new_steps : units of the last `Reported` that the trial had not reported before.
    n_units : units trained so far, with those that were trained again.
    n_preemptions : preemptions in mid-segment.
    n_resumed : launches of paused trials.
    slot_time : use of its slots' time.
    checkpoints : its checkpoints in the store.
    jobs : ids of the Slurm jobs whose workers have served it, in order.
    n_sessions : number of sessions so far.
    session_began : time at which the last session began, in seconds since the study began.
    search_seconds : slot-seconds lost waiting for the searcher.
    n_fallbacks : trials with a random configuration because the searcher was late.
    n_set_aside : trials that were not launched, because they would have lacked memory.
    stop_reason : why the last session was stopped, or None.
    stopped_by_failure : True if the last session was stopped because trials failed.
    """

    def __init__(self, objective: Objective, *, keep_ended: bool = True) -> None:
        self.objective = objective
        self.trials: dict[TrialId, TrialRecord] = {}
        self.counts = dict.fromkeys(Status, 0)
        self.best: TrialRecord | None = None
        self.new_steps: tuple[Step, ...] = ()
        self.paused_by_hand: set[TrialId] = set()
        self.n_units = self.n_preemptions = self.n_resumed = 0
        self.slot_time = SlotTime()
        self.checkpoints = StoredCheckpoints()
        self.jobs: list[str] = []
        self.n_sessions = 0
        self.session_began = 0.0
        self.search_seconds = 0.0
        self.n_fallbacks = 0
        self.n_set_aside = 0
        self.stop_reason: str | None = None
        self.stopped_by_failure = False
        self._failed_at = -1.0
        self._keep_ended = keep_ended
        self._last: Record | None = None
        self._target: float | None = None
        self._takes_states = True

    @property
    def n_trials(self) -> int:
        """Number of trials started so far."""
        return sum(self.counts.values())

    @property
    def n_ended(self) -> int:
        """Number of trials that ended, with any status."""
        return sum(n for status, n in self.counts.items() if status.ended)

    @property
    def n_slots(self) -> int:
        """Number of slots that serve the study."""
        return self.slot_time.n_slots

    @property
    def seconds(self) -> float:
        """Time of the last record, in seconds since the study began."""
        return self.slot_time.now

    @property
    def best_loss(self) -> float:
        """Best loss of all trials so far; inf before the first report."""
        return math.inf if self.best is None else self.best.best_loss

    def apply(self, record: Record) -> None:
        """Process the next record."""
        last, self._last = self._last, record
        if isinstance(last, Ended) and not self._keep_ended and last.status is not Status.FAILED:
            del self.trials[last.trial]
        if record.seconds > self.slot_time.now:
            self.slot_time.advance(record.seconds)
        match record:  # the most frequent ones first, and without captures, which take time
            case Reported():
                self._reported(record)
            case Launched():
                self._launched(record)
            case Suggested():
                self._suggested(record)
            case Ended():
                self._ended(record)
            case Held():
                self._held(record)
            case Dropped():
                pass
            case Saved(number, _, ref):
                self.checkpoints.add(ref)
                owner = self.trials.get(number)
                # An older one may be saved later: another trial shares it, and its owner has
                # trained further.
                if owner is not None and (owner.checkpoint is None or owner.checkpoint.id < ref.id):
                    owner.checkpoint = ref
            case Deleted(checkpoint_id):
                ref = self.checkpoints.remove(checkpoint_id)
                owner = self.trials.get(ref.trial)
                if owner is not None and owner.checkpoint == ref:
                    owner.checkpoint = self.checkpoints.newest_of(owner.id)
            case SaveFailed(number, error=error):
                if (owner := self.trials.get(number)) is not None:
                    owner.error = error
            case Exploited(number, source, config, resource):
                trial = self.trials[number]
                trial.config, trial.resource = config, resource
                if source != number:
                    trial.furthest, trial.n_exploits = resource, trial.n_exploits + 1
            case Extended():
                self._extended(record)
            case TrialPauseRequested(number, paused):
                self.paused_by_hand.discard(number)
                if paused and number in self.trials and not self.trials[number].status.ended:
                    self.paused_by_hand.add(number)
            case Withheld(number):
                self._release(self.trials[number], Status.QUEUED)
            case RolledBack(number):
                self._release(self.trials[number], Status.PAUSED)
            case AttemptLost(number, _, reason, bad_checkpoint=bad):
                self._lose(self.trials[number], reason if bad else "")
            case Failed(number, _, error, paused=paused):
                self._failed_at = record.seconds
                self._lose(self.trials[number], error, paused=paused)
            case SetAside():
                self.n_set_aside += 1
            case SlotsChanged(n_slots, job=job):
                self.slot_time.n_slots = n_slots
                if job and job not in self.jobs:
                    self.jobs.append(job)
            case StopRequested(reason):
                self.stop_reason = reason
                # A stop that follows from a failure is recorded with the time of that event.
                self.stopped_by_failure = record.seconds == self._failed_at
                self._stop_reporter(last)
            case SessionStarted():
                self._session_started(record)

    def _suggested(self, record: Suggested) -> None:
        trial = TrialRecord(record.trial, record.config, record.bracket, record.seconds)
        trial.time.queued_since = self.slot_time.now
        self.trials[trial.id] = trial
        self.counts[trial.status] += 1
        self.search_seconds += record.waited
        self.n_fallbacks += record.fallback

    def _launched(self, record: Launched) -> None:
        trial = self.trials[record.trial]
        trial.attempt, trial.resource = record.attempt, record.resource
        self.n_resumed += trial.status is Status.PAUSED
        self._set_status(trial, Status.RUNNING)
        self.slot_time.launch(trial.id, trial.time)

    def _reported(self, record: Reported) -> None:
        trial, steps = self.trials[record.trial], record.steps
        self.new_steps = steps
        if steps:
            newest, n_again = steps[-1], 0
            if steps[0].resource <= trial.furthest:
                n_again = sum(step.resource <= trial.furthest for step in steps)
                self.new_steps = steps[n_again:]
                trial.n_retrained += n_again
            if self.new_steps:
                trial.furthest = newest.resource
            trial.resource, trial.metrics = newest.resource, newest.metrics
            trial.time.train(n_again, steps, self.slot_time.now)
            self.n_units += len(steps)
            loss = self.objective.best_loss(steps)
            if loss < trial.best_loss:
                best = newest
                if len(steps) > 1:
                    best = min(steps, key=lambda step: self.objective.loss(step.metrics))
                trial.best_loss, trial.best_resource = loss, best.resource
                trial.best_metrics = best.metrics
                if loss < self.best_loss:
                    self.best = trial
        if record.memory is not None:
            trial.memory = PeakMemory(*map(max, trial.memory, record.memory))
        self.n_preemptions += record.preempted
        match record.decision:
            case Pause():
                self._set_status(trial, Status.PAUSED)
            case Continue() if self.stop_reason is not None:
                self._set_status(trial, Status.QUEUED)
            case Continue() if trial.id in self.paused_by_hand and not self._takes_states:
                self._set_status(trial, Status.QUEUED)  # else once its state is taken
            case None if record.preempted:
                self._set_status(trial, Status.QUEUED)
        if trial.status is not Status.RUNNING:
            has_state = record.decision is not None or trial.resource > 0
            if not (has_state and self._takes_states):  # else its state is taken first
                trial.time.save(self.slot_time.now)
                self._release(trial)

    def _held(self, record: Held) -> None:
        trial = self.trials[record.trial]
        trial.time.save(self.slot_time.now)
        if trial.status is not Status.RUNNING:
            self._release(trial)
        elif self.stop_reason is not None or trial.id in self.paused_by_hand:
            # It would have continued.
            self._release(trial, Status.QUEUED)

    def _ended(self, record: Ended) -> None:
        trial = self.trials[record.trial]
        trial.reason, trial.ended = record.reason, record.seconds
        self.paused_by_hand.discard(trial.id)
        if record.status is Status.FAILED:
            self._failed_at = record.seconds
        if record.status is Status.FAILED and trial.error.strip().endswith(record.reason):
            trial.reason = headline(trial.error)  # older versions recorded a traceback's last line
        if trial.id in self.slot_time.holding:
            trial.time.save(self.slot_time.now)
        self._release(trial, record.status)

    def _extended(self, record: Extended) -> None:
        trial = self.trials.get(record.trial)
        if trial is None:  # it was forgotten, before the study was extended
            trial = TrialRecord(record.trial, record.config, record.bracket, record.seconds)
            trial.resource = trial.furthest = record.resource
            trial.status = Status.COMPLETED
            self.trials[trial.id] = trial
        trial.reason, trial.ended = "", None
        self._release(trial, Status.PAUSED if record.until is None else Status.QUEUED)

    def _stop_reporter(self, last: Record | None) -> None:
        """Queue the trial whose report reached the target: the stop follows from it."""
        target = self._target
        if target is None or not self.objective.reached(self.best_loss, target):
            return
        match last:
            case Reported(number, decision=Continue()):
                trial = self.trials[number]
                self._set_status(trial, Status.QUEUED)
                if not self._takes_states:
                    trial.time.save(self.slot_time.now)
                    self._release(trial)

    def _session_started(self, record: SessionStarted) -> None:
        self.n_sessions += 1
        self.session_began, self.stop_reason = record.seconds, None
        self.stopped_by_failure = False
        self._target, self._takes_states = record.limits.target, record.policy.write != "never"
        for number in [*self.slot_time.holding]:
            self._lose(self.trials[number])
        if record.retry_failed:
            for trial in self.trials.values():
                if trial.status is Status.FAILED:
                    trial.reason, trial.ended = "", None
                    self._release(trial, Status.QUEUED)
        self.slot_time.n_slots = 0

    def _lose(self, trial: TrialRecord, error: str = "", *, paused: bool = False) -> None:
        """Take a trial's slot, and the training in it since its last report."""
        trial.time.lose(self.slot_time.now)
        trial.error = error or trial.error
        if paused:
            self._release(trial, Status.PAUSED)
        elif trial.status is Status.RUNNING:
            self._release(trial, Status.QUEUED)
        else:  # its last decision stands
            self._release(trial)

    def _release(self, trial: TrialRecord, status: Status | None = None) -> None:
        """Take a trial's slot, if it has one, and set its status."""
        if status is not None:
            self._set_status(trial, status)
        self.slot_time.release(trial.id, trial.time, queued=trial.status is Status.QUEUED)

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
    shown = f"{seconds:.1f} slot-seconds lost waiting for the searcher"
    if n_fallbacks:
        plural = "s" * (n_fallbacks != 1)
        shown += f", {n_fallbacks} random configuration{plural} instead of late ones"
    return shown
