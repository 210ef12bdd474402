"""Messages between a study and its leases.

A message is a frozen dataclass of a closed union, read by ``match``. Where a message says what the
core says, it is the core's own class: a lease sends `Trained`, `Held` and `Erred`, and receives
`Train`, `Save` and `Interrupt`. ``seconds`` of a lease's events are its worker's clock at the time
of sending; `arrived` moves them to the study's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

from daskhpo.core.commands import Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.events import (
    Dropped,
    Erred,
    Held,
    Saved,
    SaveFailed,
    Step,
    Trained,
)
from daskhpo.core.types import CheckpointRef
from daskhpo.executors.dask.placement import Site
from daskhpo.executors.dask.wire import Codec

# -- from a lease to its study -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """A lease has begun. ``job``: id of its worker's Slurm job; empty: none."""

    worker: str
    job: str
    site: Site = field(default_factory=Site)


@dataclass(frozen=True, slots=True)
class CannotLoad:
    """The trainable cannot be loaded in this worker; ``error`` is a traceback."""

    worker: str
    error: str


@dataclass(frozen=True, slots=True)
class Happened:
    """Events of the slot's trial, in order."""

    events: tuple[Trained | Held | Erred, ...]


@dataclass(frozen=True, slots=True)
class CutOff:
    """The trial raised while its worker was being terminated, perhaps because of that."""

    trained: Trained
    error: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The trial was not begun: the worker's time is over."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The trial was not begun: its state is missing or damaged."""

    ref: CheckpointRef
    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The slot is free; nothing of its last trial is left."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """The cache is empty."""


@dataclass(frozen=True, slots=True)
class Bye:
    """The lease has written its states and ends."""


LeaseMessage = Hello | CannotLoad | Happened | CutOff | Refused | Unreadable | Ready | Flushed | Bye

StateEvent = Saved | SaveFailed | Dropped


@dataclass(frozen=True, slots=True)
class Note:
    """An event of a state in a lease's cache, numbered from 1; copies are ignored."""

    number: int
    event: StateEvent


@dataclass(frozen=True, slots=True)
class Call:
    """A message that waits for a command.

    ``notes``: those that may not have arrived yet. ``leaving``: the worker is about to leave; the
    study handles this first.
    """

    message: LeaseMessage
    notes: tuple[Note, ...]
    leaving: bool


@dataclass(frozen=True, slots=True)
class Live:
    """Units of an unfinished segment; its report has them again."""

    slot: int
    trained: Trained


@dataclass(frozen=True, slots=True)
class Notes:
    """Notes of a lease, sent ahead of its next call."""

    slot: int
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Leaving:
    """The lease's worker is about to leave."""

    slot: int


@dataclass(frozen=True, slots=True)
class Warn:
    """A warning for the user about a trial's code."""

    slot: int
    text: str


@dataclass(frozen=True, slots=True)
class Overrun:
    """The slot's trial has broken a limit, and its code does not return."""

    slot: int
    trained: Trained
    erred: Erred


LeaseNews = Live | Notes | Leaving | Warn | Overrun  # one-way

# -- from a study to its leases ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """Another slot, which has a state in its memory."""

    address: str
    slot: int


@dataclass(frozen=True, slots=True)
class Job:
    """Train; first restore the state, if any, from memory, the peer or the store."""

    train: Train
    peer: Peer | None


@dataclass(frozen=True, slots=True)
class Exit:
    """End the lease.

    ``write``: first write these checkpoints, and all states that may be needed again.
    """

    checkpoint_ids: tuple[int, ...] = ()
    write: bool = False


@dataclass(frozen=True, slots=True)
class EndProcess:
    """End this worker process at once: the study has given up the code in it."""

    reason: str


LeaseCommand = Job | Save | Release | Flush | Exit  # replies to a call
LeaseOrder = Interrupt | Write | Delete | EndProcess  # one-way, for a lease that may be busy

# -- from a user's process to a study ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Poll:
    """A question: has the study finished?"""


@dataclass(frozen=True, slots=True)
class StopStudy:
    """A request to end the study."""

    reason: str


ClientMessage = Poll | StopStudy | Notes  # notes come from a worker that has retired

# -- on the wire ---------------------------------------------------------------------------------

CALLS: Codec[Call] = Codec(Call)
COMMANDS: Codec[LeaseCommand] = Codec(LeaseCommand)
NEWS: Codec[LeaseNews] = Codec(LeaseNews)
ORDERS: Codec[LeaseOrder] = Codec(LeaseOrder)
CLIENT_MESSAGES: Codec[ClientMessage] = Codec(ClientMessage)

LeaseEvent = TypeVar("LeaseEvent", bound=Held | Erred | StateEvent)


def arrived(event: LeaseEvent, at: float) -> LeaseEvent:
    """Return an event with the time of its arrival: clocks of machines may differ."""
    return replace(event, seconds=at)


def trained_at(trained: Trained, at: float, not_before: float) -> Trained:
    """Return the event as it arrives: its units keep their distances and their order.

    Parameters
    ----------
    at : time of the arrival, in seconds of the study.
    not_before : time of the slot's last unit; this one's come no earlier.
    """
    later, last, steps = at - trained.seconds, not_before, []
    for step in trained.steps:
        last = max(last, step.seconds + later)
        steps.append(Step(step.resource, step.metrics, last))
    return replace(trained, steps=tuple(steps), seconds=at)
