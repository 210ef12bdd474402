"""Messages between a study and its leases, and their form on the wire.

A message is a frozen dataclass of a closed union, read by ``match``. Where a message says what the
core says, it is the core's own class: a lease sends `Trained`, `Held` and `Erred`, and receives
`Train`, `Save` and `Interrupt`. ``seconds`` of a lease's events are its worker's clock at the time
of sending; `arrived` moves them to the study's.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from operator import attrgetter
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import msgpack

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

# -- from a lease to its study -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """A lease has begun. ``job``: id of its worker's Slurm job; empty: none."""

    worker: str
    job: str


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
    """What the user should know of a trial's code."""

    slot: int
    text: str


LeaseNews = Live | Notes | Leaving | Warn  # one-way

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


LeaseCommand = Job | Save | Release | Flush | Exit  # replies to a call
LeaseOrder = Interrupt | Write | Delete  # one-way, for a lease that may be busy

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

WireMessage = TypeVar("WireMessage")
_Convert = Callable[[Any], Any]


class Codec(Generic[WireMessage]):
    """Conversion of messages of one type to bytes, and back.

    The bytes are msgpack's. What msgpack cannot hold passes unchanged, too: ints of any size, and
    text with lone surrogates (file names that are not UTF-8).
    """

    def __init__(self, kind: Any) -> None:
        encode, decode = _converters(kind)
        if encode is None or decode is None:
            raise TypeError(f"{kind} is no message: it must be a dataclass or a union of them")
        self._encode: Callable[[WireMessage], Any] = encode
        self._decode: Callable[[Any], WireMessage] = decode

    def encode(self, message: WireMessage) -> bytes:
        """Return a message as bytes."""
        data: bytes = msgpack.packb(
            self._encode(message), default=_pack_other, unicode_errors=_SURROGATES
        )
        return data

    def decode(self, data: bytes) -> WireMessage:
        """Return the message that these bytes hold."""
        [message] = self.reader()(data)
        return message

    def reader(self) -> Callable[[bytes], list[WireMessage]]:
        """Return a function that takes bytes of a stream and returns the messages they complete."""
        unpacker = msgpack.Unpacker(
            use_list=False,
            strict_map_key=False,
            ext_hook=_unpack_other,
            unicode_errors=_SURROGATES,
            max_buffer_size=0,  # no limit but msgpack's own, 4 GiB
        )

        def read(data: bytes) -> list[WireMessage]:
            unpacker.feed(data)
            return [self._decode(item) for item in unpacker]

        return read


_SURROGATES, _INT = "surrogatepass", 1  # how msgpack treats lone surrogates; our type of ints


def _pack_other(value: Any) -> msgpack.ExtType:
    if isinstance(value, int):  # of more than 64 bits
        size = value.bit_length() // 8 + 1
        return msgpack.ExtType(_INT, value.to_bytes(size, "big", signed=True))
    raise TypeError(f"a message cannot hold {value!r}, a {type(value).__name__}")


def _unpack_other(code: int, data: bytes) -> int:
    assert code == _INT, f"unknown type {code} in a message"
    return int.from_bytes(data, "big", signed=True)


def _converters(kind: Any) -> tuple[_Convert | None, _Convert | None]:
    """Return functions to plain data and back; None: values of this type are plain."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(args)
    if origin is tuple:
        return _sequence(args[0])
    if origin is not None and issubclass(origin, Mapping):
        return dict, None
    if isinstance(kind, type) and issubclass(kind, Enum):
        return (lambda value: value.name), kind.__getitem__
    if is_dataclass(kind):
        return _record(kind)
    return None, None


def _union(members: tuple[Any, ...]) -> tuple[_Convert, _Convert]:
    """Convert one of several classes with its name, or one type or None."""
    if types.NoneType in members:
        (member,) = (m for m in members if m is not types.NoneType)
        encode, decode = (convert or _same for convert in _converters(member))
        return (
            lambda value: None if value is None else encode(value),
            lambda data: None if data is None else decode(data),
        )
    encoders = {member: _record(member)[0] for member in members}
    decoders = {member.__name__: _record(member)[1] for member in members}
    return (
        lambda value: (type(value).__name__, encoders[type(value)](value)),
        lambda data: decoders[data[0]](data[1]),
    )


def _sequence(item: Any) -> tuple[_Convert, _Convert]:
    encode, decode = _converters(item)
    return (
        tuple if encode is None else lambda values: [encode(value) for value in values],
        tuple if decode is None else lambda data: tuple([decode(item) for item in data]),
    )


def _record(cls: Any) -> tuple[_Convert, _Convert]:
    """Convert a dataclass to the tuple of its fields."""
    names = [field.name for field in fields(cls)]
    if not names:
        return (lambda value: ()), (lambda data: cls())
    hints = get_type_hints(cls)
    converters = [_converters(hints[name]) for name in names]
    encoders = [(i, encode) for i, (encode, _) in enumerate(converters) if encode is not None]
    decoders = [(i, decode) for i, (_, decode) in enumerate(converters) if decode is not None]
    get = attrgetter(*names) if names[1:] else lambda value: (getattr(value, names[0]),)

    def encode(value: Any) -> Any:
        data = [*get(value)]
        for i, convert in encoders:
            data[i] = convert(data[i])
        return data

    def decode(data: Any) -> Any:
        values = [*data]
        for i, convert in decoders:
            values[i] = convert(values[i])
        return cls(*values)

    return (encode if encoders else get), (decode if decoders else lambda data: cls(*data))


def _same(value: Any) -> Any:
    return value


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
    return Trained(
        trained.trial, trained.attempt, tuple(steps), at, trained.ended, trained.preempted
    )
