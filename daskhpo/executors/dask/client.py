"""Messages from a lease to its study: calls with a reply, and one-way messages."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from daskhpo.executors.dask.channel import SocketChannel, socket_of
from daskhpo.executors.dask.shutdown import GracefulShutdown

PEER_SECONDS = 5.0  # to connect to another worker; if it is gone, the store may have its states

Instruction = dict[str, Any]
StateNote = tuple[int, str, int, list[Any], str]  # number, kind, attempt, plain ref, text


class CoordinatorClient:
    """A lease's connection to the study in the scheduler's process.

    The reply to a call is the next command.

    Each lease has its own connection, opened by a small event loop in the lease's thread. Plain
    TCP becomes a :class:`SocketChannel` to the coordinator's thread; any other connection stays
    with that loop.

    *Notes* report what happened to states. They are sent ahead on Dask's stream, and again with
    the next call, which is reliable. Notes are numbered, so that the study ignores duplicates.

    Each call also reports whether the worker is about to leave; the study handles this first.
    """

    def __init__(self, worker: Any, channel: str, slot: int, shutdown: GracefulShutdown) -> None:
        self._worker, self._shutdown = worker, shutdown
        self.channel, self.slot = channel, slot
        self._notes: list[StateNote] = []
        self._n_notes = 0
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._comm: Any = None
        self._channel: SocketChannel | None = self._loop.run_until_complete(self._connect())

    def call(self, say: str, **data: Any) -> Instruction:
        """Send a message and wait for the next command."""
        with self._lock:
            notes = list(self._notes)
        data |= {"notes": notes, "leaving": self._shutdown.started}
        command: Instruction
        if self._channel is not None:
            command = self._channel.call(say, data)
        else:
            command = self._loop.run_until_complete(self._call(say, data))
        with self._lock:
            del self._notes[: len(notes)]
        return command

    def push(self, **data: Any) -> None:
        """Send a one-way message, such as live metrics; costs microseconds, never waits."""
        self._worker.log_event(self.channel, {"slot": self.slot, **data})

    def notify(self, kind: str, attempt: int, ref: list[Any], text: str) -> None:
        """Send a note on a state. Thread-safe."""
        with self._lock:
            self._n_notes += 1
            note = (self._n_notes, kind, attempt, ref, text)
            self._notes.append(note)
        self.push(notes=[note])

    async def resend_notes(self) -> None:
        """Send again, on a new connection, the notes that may not have arrived.

        Runs in the worker's event loop. The scheduler removes a worker that retires, and Dask's
        stream to it, before the worker closes.
        """
        with self._lock:
            notes = list(self._notes)
        if not notes:
            return
        comm = await _connect(self._worker, self._worker.scheduler.address)
        try:
            await comm.write({"op": self.channel, "slot": -1, "reply": False})
            await comm.write(("notes", {"slot": self.slot, "notes": notes}))
            await comm.read()
        finally:
            comm.abort()

    def ask_peer(self, address: str, request: dict[str, Any]) -> Any:
        """Send a request to another worker and return the answer.

        Raises
        ------
        OSError : the worker is gone.
        """
        return self._loop.run_until_complete(self._ask_peer(address, request))

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel.close()
        self._loop.run_until_complete(self._abort())
        self._loop.close()

    async def _connect(self) -> SocketChannel | None:
        self._comm = comm = await _connect(self._worker, self._worker.scheduler.address)
        await comm.write({"op": self.channel, "slot": self.slot, "reply": False})
        if not await comm.read():
            return None
        end = socket_of(comm)
        assert end is not None, f"the scheduler has plain TCP, but this worker has {comm}"
        return SocketChannel(end)

    async def _call(self, say: str, data: dict[str, Any]) -> Any:
        await self._comm.write((say, data))
        return await self._comm.read()

    async def _ask_peer(self, address: str, request: dict[str, Any]) -> Any:
        from distributed.core import send_recv

        comm = await _connect(self._worker, address, timeout=PEER_SECONDS)
        try:
            return await send_recv(comm, **request)
        finally:
            comm.abort()

    async def _abort(self) -> None:
        self._comm.abort()


async def _connect(worker: Any, address: str, timeout: float | None = None) -> Any:
    from distributed.comm import connect

    return await connect(address, timeout=timeout, **worker.connection_args)
