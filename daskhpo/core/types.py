"""The vocabulary that plug-ins share: trials, reports, decisions and actions, all plain values.

A *decision* answers a report; an *action* answers a free slot. Both are closed unions of frozen
dataclasses, read by ``match``. What happens in a study is in :mod:`daskhpo.core.events`, what an
executor is told to do in :mod:`daskhpo.core.commands`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np

TrialId = int
Config = Mapping[str, Any]
Metrics = Mapping[str, float]
Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
WritePolicy = Literal["auto", "every", "rung", "end", "never"]


class Status(Enum):
    """Where a trial stands. Only the ledger sets it."""

    QUEUED = "queued"  # has a segment to run and waits for a slot
    RUNNING = "running"  # holds a slot
    PAUSED = "paused"  # holds no slot; the scheduler may bring it back
    COMPLETED = "completed"  # trained to the scheduler's max_t, or its function returned
    STOPPED = "stopped"  # ended early by a decision
    FAILED = "failed"  # the user's code raised, or gave a non-finite metric

    __hash__ = object.__hash__  # members are singletons; Enum's own hashes the name in Python

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the trial any more."""
        return self in _ENDED


_ENDED = frozenset({Status.COMPLETED, Status.STOPPED, Status.FAILED})


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """Where one checkpoint lies. Immutable; copied freely, its bytes never.

    Attributes
    ----------
    id : number of the checkpoint within its study, given out by the coordinator; unique.
    trial, resource : whose state it is, and after how many units of training.
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
        """The fields in their order, for messages and the journal."""
        return [self.id, self.trial, self.resource, self.array, self.n_bytes, self.checksum]


class ReuseProbability(Enum):
    """How likely it is that a state which a trial leaves behind is needed again.

    The values are probabilities. Of pauses by ASHA whose rank came near the top, about 17 % were
    promoted later; of the others fewer than one in a thousand.
    """

    CERTAIN = 1.0
    LIKELY = 0.2
    UNLIKELY = 0.001

    __hash__ = object.__hash__


# -- decisions: the answer to a report -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Continue:
    """Train on, in the same slot, until this resource.

    ``keep``: its present state may be of use, for another trial to exploit, and is taken before.
    """

    until: int
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Give the slot back; the trial may be resumed. ``keep``: the chance of that is real."""

    keep: bool = True


@dataclass(frozen=True, slots=True)
class Stop:
    """End the trial for good. ``reason`` is for people to read."""

    reason: str


Decision = Continue | Pause | Stop


# -- actions: the answer to a free slot ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new trial and train it until this resource."""

    until: int
    bracket: int = 0


@dataclass(frozen=True, slots=True)
class Resume:
    """Bring a paused trial back and train it until this resource."""

    trial: TrialId
    until: int


@dataclass(frozen=True, slots=True)
class Exploit:
    """Let a paused trial go on from another one's newest state, with this configuration.

    No bytes are copied: both refer to one row. It stays paused and asks for another action. With
    itself as source it keeps its state, if there is one, and changes its configuration.
    """

    trial: TrialId
    source: TrialId
    config: Config


@dataclass(frozen=True, slots=True)
class Discard:
    """End a paused trial that has no future; asks for another action at once."""

    trial: TrialId
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until something else happens."""


Action = Start | Resume | Exploit | Discard | Wait


# -- what plug-ins are shown ---------------------------------------------------------------------


class Trial(NamedTuple):
    """One trial as the ledger knows it now: a read-only snapshot.

    (A named tuple, because a changed copy of one costs a fifth of a dataclass's.)

    Attributes
    ----------
    until : the resource at which its current (or next) segment ends.
    resource : units of training that its present state holds and that were reported.
    since : resource at which it took over a state and its present configuration; 0 if never.
    attempt : how often it has been launched, or taken over a state; answers of an older attempt
        are dropped.
    held : newest state that a worker keeps in its memory, or None. Never older than
        ``checkpoint``, which has the same ``id`` once that is committed.
    checkpoint : newest committed checkpoint, or None.
    previous : the committed checkpoint before that one, to fall back on, or None.
    best_loss : running best over all its reports; inf before the first.
    decided_at : the resource of the last report that was decided on.
    losses : one per unit since ``decided_at``.
    decision : what was answered at ``decided_at``, while it waits to be carried out.
    preempting : it gives up its slot in mid-segment, and waits for its state to be taken.
    n_lost : losses in a row, between which it came no further than ``lost_at``.
    lost_at : resource that it had come to when it was lost; 0 if it never was.
    n_failed : how often its code raised.
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

    @property
    def newest(self) -> CheckpointRef | None:
        """The state from which it would go on; None: from its start."""
        if self.held is None or (self.checkpoint and self.checkpoint.id == self.held.id):
            return self.checkpoint
        return self.held


@dataclass(frozen=True, slots=True)
class Report:
    """What a scheduler and a searcher learn at the end of a segment; all losses are finite.

    Attributes
    ----------
    resource : units of training done; equals the segment's ``until`` unless the trial ended early.
    losses : one loss per unit of the trial since its last report, oldest first (never empty).
    best_loss : the running best over the whole trial.
    """

    resource: int
    losses: tuple[float, ...]
    best_loss: float

    @property
    def loss(self) -> float:
        """The loss at ``resource``."""
        return self.losses[-1]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration for a new trial, and what it took to have one.

    Attributes
    ----------
    waited : seconds for which the searcher was waited for.
    fallback : the searcher was too late; the configuration was drawn at random.
    """

    config: Config
    waited: float = 0.0
    fallback: bool = False


# -- what a session runs under ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    """How far one session of a study may go; None means no limit.

    Attributes
    ----------
    num_trials : trials in the whole study, earlier sessions included.
    time_budget : seconds of this session.
    target : value of the metric (as the user counts it) at which the study stops.
    max_failures : how often a trial whose code raised is tried again.
    fail_fast : stop the study at the first trial that fails for good.
    """

    num_trials: int | None = None
    time_budget: float | None = None
    target: float | None = None
    max_failures: int = 0
    fail_fast: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """Which states are written, and how much they may take. Sizes in bytes.

    Attributes
    ----------
    write : ``"auto"``: states of paused trials stay in the workers' memory and are written when
        that is worth it; written for sure are those of trials that hand over, and of the best at
        their end. ``"every"``: also after every ``every`` units, and at each pause. ``"rung"``:
        at the end of every segment. ``"end"``: at each pause, and at every trial's end.
        ``"never"``: nothing is taken or kept; what is resumed trains again from its start.
    every : units of training from one checkpoint to the next; only with ``write="every"``.
    keep_best : of so many of the best trials that have ended a checkpoint is kept; None: of one
        (``"auto"``, ``"every"``), or of all (``"rung"``, ``"end"``).
    max_bytes, max_files : what all checkpoints of the study may take on the disk, each counted as
        one file; None: no limit.
        When nine tenths are taken, the least promising are deleted.
    durability : a paused trial that has a real chance to be resumed is written once the training
        that only its worker's memory holds took so many times as long as the write would.
    memory : most bytes of one worker's memory for states of paused trials; None: a quarter of
        the worker's memory.
    staging : a folder of the worker's own machine (environment variables are expanded there) that
        takes states before they are copied to the study's folder in the background; None: no.
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
    """Hyperparameters that held while a training went from one resource to another.

    Attributes
    ----------
    start, until : units of training done before and after it; ``start < until``.
    config : the whole configuration.
    trial : whose training it was, or None.
    """

    start: int
    until: int
    config: Config
    trial: TrialId | None = None
