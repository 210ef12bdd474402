"""Events of a study and their consequences: the records of its journal.

An *event* is something that happened; executors and sessions make them. A *consequence* is what the
coordinator did about it. A *record* is a line of the journal: an event as it was received, or a
consequence. `Trained` and `Erred` are recorded with the coordinator's answer, as `Reported` and
`Failed`. All are closed unions of frozen dataclasses, read by ``match``. ``seconds``: since the
study began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from daskhpo.core.out_of_memory import MemoryKind, OutOfMemory
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Config,
    Decision,
    Limits,
    Metrics,
    PeakMemory,
    Status,
    TrialId,
)

# -- events --------------------------------------------------------------------------------------


class Step(
    NamedTuple
):  # there is one for each unit of training: a dataclass takes three times as long
    """Metrics of one unit of training; ``seconds`` since the study began."""

    resource: int
    metrics: Metrics
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """Start of a session; trials that ran in an earlier one were interrupted.

    ``retry_failed``: trials that had failed run again. ``clock``: the time of day, in seconds since
    1970; 0 in journals of older versions. ``max_t``: from now on a trial is fully trained there;
    None: as before.
    """

    limits: Limits
    policy: CheckpointPolicy
    seconds: float
    retry_failed: bool = False
    clock: float = 0.0
    max_t: int | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """Units of training that a trial has done; each has the metric, which is finite.

    A trial may report in mid-segment. At the segment's end it waits for a decision. ``ended``: its
    code returned, nothing follows. ``preempted``: it is being preempted, has stopped between two
    units, and waits. ``memory``: its attempt's peak, if that has grown.
    """

    trial: TrialId
    attempt: int
    steps: tuple[Step, ...]
    seconds: float
    ended: bool = False
    preempted: bool = False
    memory: PeakMemory | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A requested state that its worker holds in memory; the trial may leave its slot.

    ``ref``: None if the trial has no state.
    """

    trial: TrialId
    attempt: int
    ref: CheckpointRef | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Saved:
    """A held state that was committed to the store."""

    trial: TrialId
    attempt: int
    ref: CheckpointRef
    seconds: float


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """A failed write of a state, which is still held; the write will be retried."""

    trial: TrialId
    attempt: int
    checkpoint_id: int
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """A state that is no longer in any worker's memory.

    If it was not saved before, it is lost.
    """

    trial: TrialId
    attempt: int
    checkpoint_id: int
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """Loss of a running trial by a fault of its machine; the trial runs again.

    ``blame``: the trial may be the cause (its worker died), so its retries are limited.
    ``bad_checkpoint``: its checkpoint could not be read and must not be used again.
    """

    trial: TrialId
    attempt: int
    reason: str
    seconds: float
    blame: bool = True
    bad_checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class Erred:
    """Failure of the user's code; ``error`` is a traceback, or describes a bad metric.

    ``retry``: another attempt might succeed. ``fatal``: every trial would fail in the same way.
    ``out_of_memory``: it found too little memory, or was killed because of that.
    """

    trial: TrialId
    attempt: int
    error: str
    seconds: float
    retry: bool = True
    fatal: bool = False
    out_of_memory: OutOfMemory | None = None


@dataclass(frozen=True, slots=True)
class OutOfTime:
    """A trial in a slot has used its time; it ends at its next report."""

    trial: TrialId
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """New number of slots that serve the study.

    ``job``: Slurm job id of the worker whose slot came or went, if it runs in a job.
    ``host_memory``, ``device_memory``: bytes of the worker, and of the GPU, that has most; 0: not
    known.
    """

    n_slots: int
    seconds: float
    job: str = ""
    host_memory: int = 0
    device_memory: int = 0


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Request to end the study: running trials are preempted, and none is launched."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TrialStopRequested:
    """A person's request to end a trial; what it has reported counts.

    ``request``: name of the request, which may be delivered again.
    """

    trial: TrialId
    reason: str
    request: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TrialPauseRequested:
    """A person's request to launch a trial no more, or again: ``paused``.

    ``request``: name of the request, which may be delivered again.
    """

    trial: TrialId
    paused: bool
    request: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A configuration that a person adds; one of the next new trials has it.

    ``request``: name of the request, which may be delivered again.
    """

    config: Config
    request: str
    seconds: float


Edit = TrialStopRequested | TrialPauseRequested | Enqueued  # requests of people

Event = (
    SessionStarted
    | Trained
    | Held
    | Saved
    | SaveFailed
    | Dropped
    | AttemptLost
    | Erred
    | OutOfTime
    | SlotsChanged
    | StopRequested
    | TrialStopRequested
    | TrialPauseRequested
    | Enqueued
)


# -- consequences: actions of the coordinator, for readers of the journal ------------------------


@dataclass(frozen=True, slots=True)
class Reported:
    """Units of training that were not known before, as of `Trained`.

    ``decision``: the scheduler's answer, if the trial waits for one.
    """

    trial: TrialId
    attempt: int
    steps: tuple[Step, ...]
    seconds: float
    ended: bool = False
    preempted: bool = False
    decision: Decision | None = None
    memory: PeakMemory | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Failure of a trial's attempt, as of `Erred`.

    ``paused``: the scheduler's answer: the trial is paused instead of ended.
    """

    trial: TrialId
    attempt: int
    error: str
    seconds: float
    retry: bool = True
    fatal: bool = False
    paused: bool = False
    out_of_memory: OutOfMemory | None = None


@dataclass(frozen=True, slots=True)
class Suggested:
    """A configuration from the searcher, which became this trial.

    ``waited``: slot-seconds lost while slots waited for it. ``fallback``: the searcher was too
    late, and the configuration was drawn at random. Both depend on measured times, which a replay
    cannot reproduce.
    """

    trial: TrialId
    config: Config
    bracket: int
    seconds: float
    waited: float = 0.0
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class SetAside:
    """A new trial that is not launched: there would be too little memory for it.

    ``needs``, ``has``: bytes, see `Shortage`. They come from the user or a model, which a replay
    does not ask.
    """

    trial: TrialId
    of: MemoryKind
    needs: int
    has: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Judged:
    """A new verdict on the searcher's model, for the scheduler.

    ``trusted``: it tells good configurations from bad ones. At first no model is trusted.
    """

    trusted: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Launched:
    """Launch of a trial into a slot, to train from one resource until another."""

    trial: TrialId
    attempt: int
    resource: int
    until: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """End of a trial."""

    trial: TrialId
    status: Status
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Exploited:
    """Takeover of a state and a configuration by a trial.

    The state is another trial's, and is shared with it, or the trial's own.
    """

    trial: TrialId
    source: TrialId
    config: Config
    resource: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Extended:
    """Return of a trial that was fully trained, because trials now train further.

    ``until``: it is queued, to train until this resource. None: it is paused. ``config``,
    ``bracket`` and ``resource`` are those of its end, for readers that have forgotten it.
    """

    trial: TrialId
    until: int | None
    config: Config
    bracket: int
    resource: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Withheld:
    """Decision to train a trial until ``until``, which a person has paused: it waits."""

    trial: TrialId
    until: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Pause of a queued trial that lost all its states since its exploit."""

    trial: TrialId
    seconds: float


@dataclass(frozen=True, slots=True)
class Deleted:
    """Deletion of a committed checkpoint that is unreferenced, or had to make room."""

    checkpoint_id: int
    reason: str
    seconds: float


Consequence = (
    Suggested
    | SetAside
    | Judged
    | Launched
    | Withheld
    | Ended
    | Extended
    | Exploited
    | RolledBack
    | Deleted
)
Record = (
    SessionStarted
    | Reported
    | Held
    | Saved
    | SaveFailed
    | Dropped
    | AttemptLost
    | Failed
    | OutOfTime
    | SlotsChanged
    | StopRequested
    | TrialStopRequested
    | TrialPauseRequested
    | Enqueued
    | Consequence
)


def time_in_journal(seconds: float) -> float:
    """Return a time as the journal holds it: in whole microseconds."""
    return round(seconds, 6)


def event_of(record: Record) -> Event | None:
    """Return the event that a record holds; None: the coordinator acted by itself."""
    match record:
        case Reported(trial, attempt, steps, seconds, ended, preempted, _, memory):
            return Trained(trial, attempt, steps, seconds, ended, preempted, memory)
        case Failed(trial, attempt, error, seconds, retry, fatal, _, out_of_memory):
            return Erred(trial, attempt, error, seconds, retry, fatal, out_of_memory)
        case Suggested() | SetAside() | Judged() | Launched() | Withheld() | Ended():
            return None
        case Extended() | Exploited() | RolledBack() | Deleted():
            return None
    return record
