"""What happens in a study and what follows from it: the records of its journal.

An *event* is something that happened; a *consequence* is what the coordinator made of it. Both are
closed unions of frozen dataclasses, read by ``match``. ``seconds``: since the study began.
"""

from __future__ import annotations

from dataclasses import dataclass

from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Config,
    Decision,
    Limits,
    Metrics,
    Status,
    TrialId,
)

# -- events: all that can happen -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """Metrics of one unit of training; ``seconds`` since the study began."""

    resource: int
    metrics: Metrics
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """A session of the study began; what ran in an earlier one was interrupted."""

    limits: Limits
    policy: CheckpointPolicy
    seconds: float


@dataclass(frozen=True, slots=True)
class Reported:
    """A trial reported units of training; the metric is in each of them, and finite.

    It may report in mid-segment. At the segment's end it waits for a decision, which is recorded
    here. ``ended``: its code returned, nothing follows. ``yielded``: it was asked to hand over,
    stands between two units, and waits.
    """

    trial: TrialId
    attempt: int
    steps: tuple[Step, ...]
    seconds: float
    ended: bool = False
    preempted: bool = False
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The state that was asked for is in its worker's memory; the trial may leave its slot.

    ``ref`` None: the trial has no state to give.
    """

    trial: TrialId
    attempt: int
    ref: CheckpointRef | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint was committed: a state that was held is in the store."""

    trial: TrialId
    attempt: int
    ref: CheckpointRef
    seconds: float


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """A state could not be written; it is still held, and will be tried again."""

    trial: TrialId
    attempt: int
    checkpoint_id: int
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """A state is in no worker's memory any more. If it was not saved before, it is gone."""

    trial: TrialId
    attempt: int
    checkpoint_id: int
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """A machine's fault took a running trial: it runs again.

    ``blame``: the trial may be the cause (its worker died), so it is not retried for ever.
    ``bad_checkpoint``: its checkpoint could not be read and must not be used again.
    """

    trial: TrialId
    attempt: int
    reason: str
    seconds: float
    blame: bool = True
    bad_checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The user's code raised; ``error`` is its traceback, or says what was wrong with a metric.

    ``retry``: another attempt might do better. ``fatal``: it would fail every trial alike.
    ``paused``: the scheduler has a use for the trial, which is recorded here: it does not end.
    """

    trial: TrialId
    attempt: int
    error: str
    seconds: float
    retry: bool = True
    fatal: bool = False
    paused: bool = False


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """So many slots serve the study from now on.

    ``job``: Slurm's number of the job in which a new slot's worker runs, if it runs in one.
    """

    n_slots: int
    seconds: float
    job: str = ""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The study shall end: running trials are asked to hand over, nothing new starts."""

    reason: str
    seconds: float


Event = (
    SessionStarted
    | Reported
    | Held
    | Saved
    | SaveFailed
    | Dropped
    | AttemptLost
    | Failed
    | SlotsChanged
    | StopRequested
)


# -- consequences: what the coordinator did, recorded for those who read the journal -------------


@dataclass(frozen=True, slots=True)
class Suggested:
    """The searcher gave a configuration, which became this trial.

    ``waited``: slot-seconds lost while it was waited for. ``fallback``: the searcher was too late,
    and the configuration was drawn at random. Both are measured: a replay would find others.
    """

    trial: TrialId
    config: Config
    bracket: int
    seconds: float
    waited: float = 0.0
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Launched:
    """A trial was given to a slot, to train from one resource until another."""

    trial: TrialId
    attempt: int
    resource: int
    until: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial came to its end."""

    trial: TrialId
    status: Status
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Exploited:
    """A trial took over another one's state, which it shares, or its own; and a configuration."""

    trial: TrialId
    source: TrialId
    config: Config
    resource: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A trial that waited for a slot is paused: its states since its exploit are gone."""

    trial: TrialId
    seconds: float


@dataclass(frozen=True, slots=True)
class Deleted:
    """A committed checkpoint is deleted: nothing refers to it any more, or it had to make room."""

    checkpoint_id: int
    reason: str
    seconds: float


Consequence = Suggested | Launched | Ended | Exploited | RolledBack | Deleted
Record = Event | Consequence
