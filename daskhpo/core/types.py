"""Vocabulary of plug-ins: trials, reports, decisions and actions, as plain values.

A *decision* answers a report; an *action* answers a free slot. Both are closed unions of frozen
dataclasses, read by ``match``. Events are in :mod:`daskhpo.core.events`, commands to an executor in
:mod:`daskhpo.core.commands`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from daskhpo.core.out_of_memory import OnOutOfMemory, Placement

if TYPE_CHECKING:
    import numpy as np

TrialId = int
Config = Mapping[str, Any]
Metrics = Mapping[str, float]
Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
WritePolicy = Literal["auto", "every", "rung", "end", "never"]


class Status(StrEnum):
    """Status of a trial, equal to its word; only the ledger sets it."""

    QUEUED = "queued"  # has a segment to run and waits for a slot
    RUNNING = "running"  # holds a slot
    PAUSED = "paused"  # holds no slot; the scheduler may resume it
    COMPLETED = "completed"  # trained to the scheduler's max_t, or its function returned
    STOPPED = "stopped"  # ended early, by a decision or its time limit
    FAILED = "failed"  # its code raised or gave a non-finite metric, or it was lost too often

    __hash__ = str.__hash__  # that of its word; Enum's own is slower Python code

    @property
    def ended(self) -> bool:
        """True if the trial has ended: its status is final."""
        return self in _ENDED


_ENDED = frozenset({Status.COMPLETED, Status.STOPPED, Status.FAILED})


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """Immutable reference to one checkpoint; copied freely, while its bytes never are.

    Attributes
    ----------
    id : number of the checkpoint, unique within its study; the coordinator assigns it.
    trial, resource : trial whose state it is, and its units of training.
    array : name of the store's array that holds its bytes; "" until it is committed.
    n_bytes, checksum : size and CRC-32C of its bytes; 0 until committed.
    """

    id: int
    trial: TrialId
    resource: int
    array: str = ""
    n_bytes: int = 0
    checksum: int = 0

    def plain(self) -> list[Any]:
        """Return the fields in order, for messages and the journal."""
        return [self.id, self.trial, self.resource, self.array, self.n_bytes, self.checksum]


class ReuseProbability(Enum):
    """Probability that a state which a trial leaves behind is needed again.

    Of pauses by ASHA whose rank came near the top, about 17 % were promoted later; of the others,
    fewer than one in a thousand.
    """

    CERTAIN = 1.0
    LIKELY = 0.2
    UNLIKELY = 0.001

    __hash__ = object.__hash__


# -- decisions: the answer to a report -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Continue:
    """Continue the trial in the same slot, until this resource.

    ``keep``: another trial may exploit its current state, which is therefore taken first.
    """

    until: int
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Release the slot; the trial may be resumed.

    ``keep``: it has a real chance to be resumed.
    """

    keep: bool = True


@dataclass(frozen=True, slots=True)
class Stop:
    """End the trial for good; ``reason`` is for human readers."""

    reason: str


Decision = Continue | Pause | Stop


# -- actions: the answer to a free slot ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new trial and train it until this resource.

    ``explore``: its configuration is not to be chosen by a model, but drawn at random.
    """

    until: int
    bracket: int = 0
    explore: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """Resume a paused trial and train it until this resource."""

    trial: TrialId
    until: int


def _none(trial: Trial) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Choose:
    """Start a new trial, or resume a paused one: what the searcher's model prefers.

    Attributes
    ----------
    start : the new trial.
    resource : of the scores; of a paused trial its own ``until``, if that is larger.
    paused : the trials that may be resumed, and until which resource.
    can_go : False for a trial whose state is still being taken.
    margin : a paused trial's score must be better by this.
    chance : of a paused trial to be resumed for its losses alone, from 0 to 1.
    """

    start: Start
    resource: int
    paused: Mapping[TrialId, int]
    can_go: Callable[[TrialId], bool] = field(compare=False, repr=False)
    margin: float = 0.0
    chance: Callable[[Trial], float] = field(default=_none, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Exploit:
    """Give a paused trial another one's newest state, and this configuration.

    No bytes are copied: both trials refer to one checkpoint. The trial stays paused and needs
    another action. With itself as source it keeps its state, if it has one, and only changes its
    configuration.
    """

    trial: TrialId
    source: TrialId
    config: Config


@dataclass(frozen=True, slots=True)
class Discard:
    """End a paused trial that will not be resumed; another action follows at once."""

    trial: TrialId
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave the slot free until something else happens."""


Action = Start | Resume | Choose | Exploit | Discard | Wait


# -- what plug-ins receive -----------------------------------------------------------------------


class PeakMemory(NamedTuple):
    """Most memory that a trial's attempt has used so far, in bytes; 0: not known.

    Attributes
    ----------
    host : resident memory of its process and of those that it has started.
    device : what torch has allocated on the fullest of its GPUs.
    """

    host: int = 0
    device: int = 0


class Trial(NamedTuple):
    """Read-only copy of a trial's entry in the ledger.

    (A named tuple, because making a changed copy takes a fifth of the time of a dataclass.)

    Attributes
    ----------
    until : the resource at which its current (or next) segment ends.
    resource : units of training that its current state holds and that were reported.
    since : resource at which it took over a state and its current configuration; 0: never.
    attempt : number of its launches and exploits; messages of older attempts are ignored.
    held : newest state in a worker's memory, or None. Never older than ``checkpoint``, which has
        the same ``id`` once that state is committed.
    checkpoint : newest committed checkpoint, or None.
    previous : the committed checkpoint before that one, for a rollback, or None.
    best_loss : best loss of all its reports; inf before the first.
    decided_at : the resource of the last report that was decided on.
    losses : one per unit since ``decided_at``.
    decision : the decision at ``decided_at``, while it waits to be carried out; else None.
    preempting : True while it is being preempted in mid-segment and its state is being taken.
    n_lost : consecutive losses of its worker, without progress beyond ``lost_at``.
    lost_at : furthest resource at which its worker was lost; 0: never.
    placement : where it runs once more, because there was too little memory; None: anywhere.
    n_failed : number of times that its code raised.
    """

    id: TrialId
    config: Config
    status: Status
    until: int
    bracket: int = 0
    resource: int = 0
    attempt: int = 0
    held: CheckpointRef | None = None
    checkpoint: CheckpointRef | None = None
    previous: CheckpointRef | None = None
    best_loss: float = float("inf")
    decided_at: int = 0
    losses: tuple[float, ...] = ()
    decision: Decision | None = None
    preempting: bool = False
    n_lost: int = 0
    n_failed: int = 0
    since: int = 0
    lost_at: int = 0
    placement: Placement | None = None

    @property
    def newest(self) -> CheckpointRef | None:
        """The state from which it would continue; None: it would train from its start."""
        if self.held is None or (self.checkpoint and self.checkpoint.id == self.held.id):
            return self.checkpoint
        return self.held


@dataclass(frozen=True, slots=True)
class Report:
    """A trial's finite losses at a segment's end, for the scheduler and the searcher.

    Attributes
    ----------
    resource : units of training done; equals the segment's ``until`` unless the trial ended early.
    losses : one loss per unit of the trial since its last report, oldest first (never empty).
    best_loss : best loss of the whole trial so far.
    seconds : the trial's time in a slot for these units, in which it may have trained others again.
        Of units in another slot, before it was preempted, the time is estimated.
    """

    resource: int
    losses: tuple[float, ...]
    best_loss: float
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """The loss at ``resource``."""
        return self.losses[-1]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration for a new trial, and how it was obtained.

    Attributes
    ----------
    waited : seconds of waiting for the searcher.
    fallback : True if the searcher was too late, and the configuration was drawn at random.
    """

    config: Config
    waited: float = 0.0
    fallback: bool = False


# -- limits and policies of a session ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one session of a study; None: no limit.

    Attributes
    ----------
    num_trials : trials in the whole study, including earlier sessions.
    time_budget : seconds of this session.
    target : value of the user's metric at which the study stops.
    max_failures : number of retries of a trial whose code raised.
    fail_fast : True: stop the study at the first trial that fails for good.
    max_failed_trials : number of trials that, if they are the session's first and all fail by the
        same error, stop the study; 0: no limit.
    trial_time_limit : seconds that a trial may spend in slots, over all its attempts.
    on_oom : what follows for a trial that found too little memory: it fails, or runs once more.
    """

    num_trials: int | None = None
    time_budget: float | None = None
    target: float | None = None
    max_failures: int = 0
    fail_fast: bool = False
    max_failed_trials: int = 0
    trial_time_limit: float | None = None
    on_oom: OnOutOfMemory = "infeasible"


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """Policy of checkpoints: which states are written, and limits; sizes in bytes.

    Attributes
    ----------
    write : ``"auto"``: states of paused trials stay in the workers' memory and are written when
        that is worth its time. Always written are states of preempted trials, and of the best
        trials at their end. ``"every"``: also after every ``every`` units, and at each pause.
        ``"rung"``: at the end of every segment. ``"end"``: at each pause, and at every trial's end.
        ``"never"``: no state is taken; a trial that is resumed trains again from its start.
    every : units of training between checkpoints; only with ``write="every"``, where None means 1.
    keep_best : number of the best ended trials whose checkpoint is kept; None: one (``"auto"``,
        ``"every"``), or all (``"rung"``, ``"end"``).
    max_bytes, max_files : limits on all checkpoints of the study on disk, each counted as one
        file; None: no limit. When nine tenths are used, the least promising are deleted.
    durability : multiple of a write's time. The state of a paused trial with a real chance to be
        resumed is written once its unsaved training took longer than that.
    memory : bytes of one worker's memory for states of paused trials, at most; None: a quarter of
        the worker's memory.
    staging : folder on the worker's own machine (environment variables are expanded there) where
        states wait for a copy to the study's folder in the background; None: no staging.
    """

    write: WritePolicy = "auto"
    every: int | None = None
    keep_best: int | None = None
    max_bytes: int | None = None
    max_files: int | None = None
    durability: float = 100.0
    memory: int | None = None
    staging: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleSegment:
    """Hyperparameters of a training between two resources.

    Attributes
    ----------
    start, until : units of training done before and after it; ``start < until``.
    config : the whole configuration.
    trial : the trial that trained, or None.
    """

    start: int
    until: int
    config: Config
    trial: TrialId | None = None
