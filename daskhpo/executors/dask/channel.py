"""Channel between a lease and the coordinator, over a socket or a Dask connection.

A call by Dask passes through two event loops, and switches threads at each end. This costs more
than the decision. Over plain TCP, lease and coordinator therefore share the socket that Dask
opened: one write and one read at each end. Other connections (TLS, or within one process) stay with
Dask's event loop, which passes the same messages on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from daskhpo.core.events import Edit, Erred, Trained
from daskhpo.core.out_of_memory import MemoryKind
from daskhpo.executors.dask.local_socket import enter
from daskhpo.executors.dask.protocol import (
    CALLS,
    CLIENT_MESSAGES,
    COMMANDS,
    NEWS,
    Call,
    LeaseCommand,
    LeaseMessage,
    LeaseNews,
    Leaving,
    Live,
    Note,
    Notes,
    Overrun,
    Peer,
    StateEvent,
    Warn,
)

if TYPE_CHECKING:
    from daskhpo.checkpoints.codec import Snapshot

FETCH = "daskhpo-fetch"  # request of one worker to another
PEER_SECONDS = 5.0  # to connect to another worker; if it is gone, the store may have its states


# -- the worker's end ----------------------------------------------------------------------------


class Channel(Protocol):
    """A study, as its lease sees it."""

    def call(self, message: LeaseMessage) -> LeaseCommand:
        """Send a message and wait for the next command.

        Raises
        ------
        OSError : the study is gone, or has closed the channel.
        """

    def push_live(self, trained: Trained) -> None:
        """Send units of an unfinished segment; never waits, and may be lost."""

    def push_warning(self, text: str) -> None:
        """Send what the user should know of a trial's code; may be lost."""

    def push_overrun(self, trained: Trained, erred: Erred) -> None:
        """Send that the trial has broken a limit; it does not return. Thread-safe."""

    def push_leaving(self) -> None:
        """Say ahead of the next call that the worker is about to leave. Thread-safe."""

    def notify(self, event: StateEvent) -> None:
        """Send what happened to a state; arrives at least once. Thread-safe."""

    def fetch(self, peer: Peer, checkpoint_id: int) -> tuple[Snapshot, float] | None:
        """Return a state from another worker's memory, and its unsaved seconds.

        None: it is not there.

        Raises
        ------
        OSError : the worker is gone.
        """


class Transport(Protocol):
    """A connection that carries calls and their replies, one at a time."""

    def exchange(self, call: Call) -> LeaseCommand:
        """Send a call and return the reply; raise OSError if the other end is gone."""

    def close(self) -> None:
        """Close the connection."""


class StudyChannel:
    """The channel of a lease.

    *Notes* say what happened to states. They are sent ahead on Dask's stream, and again with the
    next call, which is reliable. Notes are numbered, so that the study ignores copies.

    Parameters
    ----------
    transport : carries the calls.
    push : sends a one-way message on Dask's stream. Thread-safe.
    ask : sends a request to another worker and returns the answer.
    slot : number of the lease's slot.
    is_leaving : returns True if the worker is about to leave.
    """

    def __init__(
        self,
        transport: Transport,
        push: Callable[[Any], None],
        ask: Callable[[Peer, int], tuple[Snapshot, float] | None],
        slot: int,
        is_leaving: Callable[[], bool],
    ) -> None:
        self._transport, self._push, self._ask = transport, push, ask
        self._slot, self._is_leaving = slot, is_leaving
        self._notes: deque[Note] = deque()
        self._n_notes = 0
        self._lock = threading.Lock()

    def call(self, message: LeaseMessage) -> LeaseCommand:
        with self._lock:
            notes = tuple(self._notes)
        command = self._transport.exchange(Call(message, notes, self._is_leaving()))
        with self._lock:
            for _ in notes:
                self._notes.popleft()
        return command

    def push_live(self, trained: Trained) -> None:
        self._send(Live(self._slot, trained))

    def push_warning(self, text: str) -> None:
        self._send(Warn(self._slot, text))

    def push_overrun(self, trained: Trained, erred: Erred) -> None:
        self._send(Overrun(self._slot, trained, erred))

    def push_leaving(self) -> None:
        self._send(Leaving(self._slot))

    def notify(self, event: StateEvent) -> None:
        with self._lock:
            self._n_notes += 1
            note = Note(self._n_notes, event)
            self._notes.append(note)
        self._send(Notes(self._slot, (note,)))

    def unacknowledged(self) -> Notes:
        """Return the notes that may not have arrived. Thread-safe."""
        with self._lock:
            return Notes(self._slot, tuple(self._notes))

    def fetch(self, peer: Peer, checkpoint_id: int) -> tuple[Snapshot, float] | None:
        return self._ask(peer, checkpoint_id)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _send(self, news: LeaseNews) -> None:
        self._push(NEWS.encode(news))


class SocketTransport:
    """A plain socket, which no event loop serves at either end."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._bytes_of, self._read = end, CALLS.writer(), COMMANDS.reader()

    def exchange(self, call: Call) -> LeaseCommand:
        self._end.sendall(self._bytes_of(call))
        while got := self._end.recv(65536):
            for reply in self._read(got):
                return reply
        raise ConnectionError("the study has closed the channel")

    def close(self) -> None:
        self._end.close()


class DaskTransport:
    """A Dask connection of any kind, and the event loop that serves it.

    The small loop of its own runs in the lease's thread, so that no call waits for the worker's.

    Parameters
    ----------
    worker : the Dask worker, for its scheduler's address and security.
    name : the study's handler on the scheduler.
    """

    def __init__(self, worker: Any, name: str, slot: int) -> None:
        self._worker, self._name = worker, name
        self._loop = asyncio.new_event_loop()
        self._comm, self._plain = self._loop.run_until_complete(self._connect(slot))

    def taken(self) -> Transport:
        """Return the plain socket as a transport if there is one, else this."""
        return self if self._plain is None else SocketTransport(self._plain)

    def exchange(self, call: Call) -> LeaseCommand:
        return self._loop.run_until_complete(self._exchange(call))

    def ask(self, peer: Peer, checkpoint_id: int) -> tuple[Snapshot, float] | None:
        """Return a state of another worker's lease; see :meth:`Channel.fetch`."""
        return self._loop.run_until_complete(self._ask(peer, checkpoint_id))

    def close(self) -> None:
        self._loop.run_until_complete(self._abort())
        self._loop.close()

    async def _connect(self, slot: int) -> tuple[Any, socket.socket | None]:
        comm = await _connect(self._worker, self._worker.scheduler.address)
        await comm.write({"op": self._name, "slot": slot, "reply": False})
        match await comm.read():
            case False:
                return comm, None
            case True:
                end = socket_of(comm)
                assert end is not None, f"the scheduler has plain TCP, but this worker has {comm}"
                return comm, end
            case path:
                end = enter(path)
                await comm.write(end is not None)
                return comm, end

    async def _exchange(self, call: Call) -> LeaseCommand:
        await self._comm.write(CALLS.encode(call))
        return COMMANDS.decode(await self._comm.read())

    async def _ask(self, peer: Peer, checkpoint_id: int) -> tuple[Snapshot, float] | None:
        from distributed.core import send_recv

        from daskhpo.checkpoints.codec import Layout, Snapshot

        request = {"op": FETCH, "study": self._name, "slot": peer.slot, "id": checkpoint_id}
        comm = await _connect(self._worker, peer.address, timeout=PEER_SECONDS)
        try:
            found = await send_recv(comm, **request)
        finally:
            comm.abort()
        if found is None:
            return None
        return Snapshot(found["row"], Layout.from_json(found["layout"])), found["unsaved_seconds"]

    async def _abort(self) -> None:
        self._comm.abort()


async def send_notes(worker: Any, name: str, notes: Notes) -> None:
    """Send notes on a new connection, and wait until they have arrived.

    The scheduler removes a worker that retires, and Dask's stream to it, before the worker closes.
    """
    comm = await _connect(worker, worker.scheduler.address)
    try:
        await comm.write({"op": name, "slot": -1, "reply": False})
        await comm.write(CLIENT_MESSAGES.encode(notes))
        await comm.read()
    finally:
        comm.abort()


async def _connect(worker: Any, address: str, timeout: float | None = None) -> Any:
    from distributed.comm import connect

    return await connect(address, timeout=timeout, **worker.connection_args)


def socket_of(comm: Any) -> socket.socket | None:
    """Detach the socket of a Dask connection from the event loop and return it.

    The connection stays open until ``comm`` is aborted. The result is None if the connection is
    encrypted or not TCP.
    """
    from distributed.comm.tcp import TCP

    if type(comm) is not TCP:
        return None
    stream = comm.stream
    stream.io_loop.remove_handler(stream.fileno())  # Tornado reads even without a request
    taken = socket.socket(fileno=os.dup(stream.socket.fileno()))
    taken.setblocking(True)
    return taken


# -- the coordinator's end -----------------------------------------------------------------------


class Reply(Protocol):
    """The place where a lease waits for its next command."""

    def send(self, command: LeaseCommand) -> None:
        """Send the command. Errors are ignored: Dask reports a lost lease."""


class SocketReply:
    """Reply on a socket, sent by the calling thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._bytes_of = end, COMMANDS.writer()

    def send(self, command: LeaseCommand) -> None:
        with contextlib.suppress(OSError):
            self._end.sendall(self._bytes_of(command))


class FutureReply:
    """Reply that a task of the event loop waits for, and passes on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[LeaseCommand] = loop.create_future()

    def send(self, command: LeaseCommand) -> None:
        self._loop.call_soon_threadsafe(self._set, command)

    def _set(self, command: LeaseCommand) -> None:
        if not self.future.done():  # it is cancelled if its connection was closed
            self.future.set_result(command)


@dataclass(frozen=True, slots=True)
class Received:
    """A call of a lease. ``at``: its arrival, on the monotonic clock."""

    slot: int
    call: Call
    reply: Reply
    at: float


@dataclass(frozen=True, slots=True)
class ReceivedNews:
    """A one-way message of a lease."""

    news: Live | Notes | Warn | Overrun
    at: float


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The loss of a slot: its worker left, or its lease ended.

    ``lacked``: the memory for want of which its worker was killed.
    """

    slot: int
    reason: str
    lacked: MemoryKind | None = None


@dataclass(frozen=True, slots=True)
class ReleaseSlot:
    """A request to end a slot's lease when its trial leaves.

    The slot's worker is needed by another study, or is about to leave.
    """

    slot: int


@dataclass(frozen=True, slots=True)
class RequestStop:
    """A request to stop the study."""

    reason: str


@dataclass(frozen=True, slots=True)
class RequestEdit:
    """A request to end or to add a trial."""

    edit: Edit


@dataclass(frozen=True, slots=True)
class FatalError:
    """An error after which the study cannot continue."""

    error: Exception


Message = Received | ReceivedNews | LeaseLost | ReleaseSlot | RequestStop | RequestEdit | FatalError


class Inbox:
    """The coordinator's inbox: messages from the event loop and from all sockets."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._new: deque[tuple[int, socket.socket]] = deque()
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._wakes, self._waker = socket.socketpair()
        for end in (self._wakes, self._waker):
            end.setblocking(False)
        self._selector.register(self._wakes, selectors.EVENT_READ)

    def put(self, message: Message) -> None:
        """Add a message. Thread-safe."""
        self._messages.append(message)
        self._wake()

    def listen(self, slot: int, end: socket.socket) -> None:
        """Receive messages from the socket of a slot, too. Thread-safe."""
        self._new.append((slot, end))
        self._wake()
        if self._closed:
            self._refuse()

    def empty(self) -> bool:
        return not self._messages

    def get(self, timeout: float | None = None) -> Message:
        """Return the next message.

        Parameters
        ----------
        timeout : seconds; None: no limit.

        Raises
        ------
        queue.Empty : no message arrived in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._messages:
            left = None if deadline is None else deadline - time.monotonic()
            if not self._listen(left) and deadline is not None and time.monotonic() >= deadline:
                raise queue.Empty
        return self._messages.popleft()

    def close(self) -> None:
        """Close all sockets; a lease that waits for a reply there ends."""
        self._closed = True
        self._refuse()
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._hang_up(key.fileobj)
        self._selector.close()
        self._wakes.close()
        self._waker.close()

    def _listen(self, timeout: float | None) -> bool:
        self._welcome()
        ready = self._selector.select(timeout)
        now = time.monotonic()
        for key, _ in ready:
            if key.data is None:
                self._wakes.recv(4096)
                continue
            slot, reply, read = key.data
            end: Any = key.fileobj
            try:
                got = end.recv(65536)
            except OSError:
                got = b""
            if not got:
                self._hang_up(end)
                continue
            for call in read(got):
                self._messages.append(Received(slot, call, reply, now))
        return bool(ready)

    def _welcome(self) -> None:
        while self._new:
            slot, end = self._new.popleft()
            self._selector.register(
                end, selectors.EVENT_READ, (slot, SocketReply(end), CALLS.reader())
            )

    def _refuse(self) -> None:
        with contextlib.suppress(IndexError):  # another thread may empty it, too
            while True:
                _shut(self._new.popleft()[1])

    def _hang_up(self, end: Any) -> None:
        self._selector.unregister(end)
        _shut(end)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it will wake up anyway, or is closed
            self._waker.send(b"\0")


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
