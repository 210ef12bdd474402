"""Events and actions of a worker's cache: closed unions, read by ``match``.

`daskhpo.checkpoints.cache_state.CacheState` answers each event with actions;
`daskhpo.checkpoints.cache.StateCache` performs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from daskhpo.checkpoints.codec import Snapshot
from daskhpo.checkpoints.tree import ByteArray
from daskhpo.core.events import Dropped, Saved, SaveFailed
from daskhpo.core.types import CheckpointRef, ReuseProbability

# -- events: calls -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StatePut:
    """A state to hold.

    ``unsaved_seconds``: training that is lost with the state, since the trial's last committed
    checkpoint, or since its start.
    """

    ref: CheckpointRef
    attempt: int
    snapshot: Snapshot
    probability: ReuseProbability
    unsaved_seconds: float


@dataclass(frozen=True, slots=True)
class BufferWanted:
    """A request for memory of a former state, answered by `Lend` if there is some."""

    n_bytes: int


@dataclass(frozen=True, slots=True)
class WriteRequested:
    """A request to write a state, whatever the cost."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class Discarded:
    """A state is no longer needed."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class FlushRequested:
    """A request to write all states that are worth a write, answered by `Settle`."""

    number: int


@dataclass(frozen=True, slots=True)
class ClearRequested:
    """A request to remove all states, answered by `Settle`.

    ``write``: first write those worth a write.
    """

    number: int
    write: bool


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """A request to write and remove all states and hold no more, answered by `Settle`."""

    number: int


# -- events: results of actions, and time --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StateStaged:
    """The end of `StartStaging`: a memory map of the state's copy in ``file``."""

    snapshot: Snapshot
    file: Path


@dataclass(frozen=True, slots=True)
class StagingFailed:
    """The end of `StartStaging`: the state has to go to the store directly."""


@dataclass(frozen=True, slots=True)
class WriteFinished:
    """The end of `StartWrite`: the complete reference, and the seconds of the write."""

    ref: CheckpointRef
    seconds: float


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """The end of `StartWrite`: the store holds nothing of the state."""

    error: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The passage of about a second.

    ``seconds_left``: until the job ends; None: no end.
    """

    seconds_left: float | None


CacheEvent = (
    StatePut
    | BufferWanted
    | WriteRequested
    | Discarded
    | FlushRequested
    | ClearRequested
    | CloseRequested
    | StateStaged
    | StagingFailed
    | WriteFinished
    | WriteFailed
    | Tick
)

# -- actions -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartWrite:
    """Write a state to the store; no write or staging is in flight."""

    ref: CheckpointRef
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class StartStaging:
    """Copy a state to the staging folder; no write or staging is in flight."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Unlink:
    """Remove a file from the staging folder."""

    file: Path


@dataclass(frozen=True, slots=True)
class Notify:
    """Report what happened to a state, in the core's own vocabulary.

    `Saved`: it is in the store, and may still be held. `SaveFailed`: its first failed write; it is
    held, and the write will be retried. `Dropped`: it is no longer held; it is lost unless it was
    saved before.

    ``event.seconds`` is the cache's clock. The clocks of machines differ, so the receiver replaces
    it by the time of arrival.
    """

    event: Saved | SaveFailed | Dropped


@dataclass(frozen=True, slots=True)
class Settle:
    """Let a `FlushRequested`, `ClearRequested` or `CloseRequested` return."""

    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Lend:
    """The answer to `BufferWanted`; the cache no longer counts this memory."""

    buffer: ByteArray


CacheAction = StartWrite | StartStaging | Unlink | Notify | Settle | Lend
