"""The vocabulary: trials, reports, decisions, actions and events, all plain values.

Closed sets carry everything that is said in a study. An *event* is something that happened; a
*decision* answers a report; an *action* answers a free slot; a *command* tells an executor what to
do. Each is a union of frozen dataclasses, read by ``match``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple

TrialId = int
Config = Mapping[str, Any]
Metrics = Mapping[str, float]
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
    row : number of the checkpoint within its study, given out by the coordinator; unique.
    trial, resource : whose state it is, and after how many units of training.
    array : name of the store's array that holds the row; "" until it is committed.
    n_bytes, checksum : size and CRC-32C of the row; 0 until committed.
    """

    row: int
    trial: TrialId
    resource: int
    array: str = ""
    n_bytes: int = 0
    checksum: int = 0

    def plain(self) -> list[Any]:
        """The fields in their order, for messages and the journal."""
        return [self.row, self.trial, self.resource, self.array, self.n_bytes, self.checksum]


class Chance(Enum):
    """How likely it is that a state which a trial leaves behind is needed again.

    The values are probabilities. Of pauses by ASHA whose rank came near the top, about 17 % were
    promoted later; of the others fewer than one in a thousand.
    """

    SURE = 1.0
    REAL = 0.2
    POOR = 0.001

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
        ``checkpoint``, which has the same row once that is committed.
    checkpoint : newest committed checkpoint, or None.
    previous : the committed checkpoint before that one, to fall back on, or None.
    best_loss : running best over all its reports; inf before the first.
    decided_at : the resource of the last report that was decided on.
    losses : one per unit since ``decided_at``.
    decision : what was answered at ``decided_at``, while it waits to be carried out.
    leaves : it hands over, and waits for its state to be taken.
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
    leaves: bool = False
    n_lost: int = 0
    n_failed: int = 0
    since: int = 0
    lost_at: int = 0

    @property
    def newest(self) -> CheckpointRef | None:
        """The state from which it would go on; None: from its start."""
        if self.held is None or (self.checkpoint and self.checkpoint.row == self.held.row):
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


# -- events: all that can happen -----------------------------------------------------------------


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
class Step:
    """Metrics of one unit of training; ``seconds`` since the study began."""

    resource: int
    metrics: Metrics
    seconds: float


@dataclass(frozen=True, slots=True)
class Began:
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
    yielded: bool = False
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
class Unsaved:
    """A state could not be written; it is still held, and will be tried again."""

    trial: TrialId
    attempt: int
    row: int
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """A state is in no worker's memory any more. If it was not saved before, it is gone."""

    trial: TrialId
    attempt: int
    row: int
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
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
    Began
    | Reported
    | Held
    | Saved
    | Unsaved
    | Dropped
    | Lost
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
class SetBack:
    """A trial that waited for a slot is paused: its states since its exploit are gone."""

    trial: TrialId
    seconds: float


@dataclass(frozen=True, slots=True)
class Deleted:
    """A committed checkpoint is deleted: nothing refers to it any more, or it had to make room."""

    row: int
    reason: str
    seconds: float


Consequence = Suggested | Launched | Ended | Exploited | SetBack | Deleted
Record = Event | Consequence


# -- commands: what an executor is told to do ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Train:
    """Train a trial until a resource: go on in its slot, or begin in a free one (``launch``).

    ``checkpoint`` may be held by some worker, committed, or both.
    """

    trial: TrialId
    attempt: int
    config: Config
    resource: int
    until: int
    checkpoint: CheckpointRef | None
    launch: bool


@dataclass(frozen=True, slots=True)
class Save:
    """Take the state of the trial in its slot, as this row, and say ``Held``.

    Whether and when it is written then follows from ``chance``; ``Saved`` and ``Dropped`` say so.
    """

    trial: TrialId
    attempt: int
    ref: CheckpointRef
    chance: Chance


@dataclass(frozen=True, slots=True)
class Write:
    """Write a state that is held, whatever it costs."""

    ref: CheckpointRef


@dataclass(frozen=True, slots=True)
class Flush:
    """Let go of all held states. These rows are written first.

    ``write``: so are those that may be needed again.
    """

    rows: tuple[int, ...]
    write: bool


@dataclass(frozen=True, slots=True)
class Release:
    """The trial leaves its slot, which is free."""

    trial: TrialId
    attempt: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Ask the trial to hand over at its next report."""

    trial: TrialId
    attempt: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Nobody needs this checkpoint any more, wherever it is. ``reason``, if it is news.

    If the reference is not complete, only what is held of it goes: it may be being written, and
    ``Saved`` may be welcome.
    """

    ref: CheckpointRef
    reason: str = ""


Command = Train | Save | Write | Flush | Release | Interrupt | Delete
