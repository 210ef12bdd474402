"""What a lease says to its study: calls that are answered, and news that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from daskhpo.executors.dask.channel import SocketChannel, socket_of
from daskhpo.executors.dask.shutdown import GracefulShutdown

PEER_SECONDS = 5.0  # to connect to another worker: if it is gone, the store may have its states

Instruction = dict[str, Any]
StateNote = tuple[int, str, int, list[Any], str]  # number, kind, attempt, plain ref, text


class CoordinatorClient:
    """Talks to the study in the scheduler's process; the reply to a call is the next command.

    It has a connection of its own, opened by a small event loop in the lease's thread. Plain TCP
    becomes a :class:`SocketChannel` to the coordinator's thread; any other connection stays with
    that loop.

    *Notes* say what became of states. They are sent ahead on Dask's own stream, and again with the
    next call, which is reliable; numbers tell the study which it has had.

    Each call also says whether the worker is about to go, so that the study knows that first.
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
        """Say something and wait for the next command."""
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
        """Send news, such as live metrics; costs microseconds, and nothing waits."""
        self._worker.log_event(self.channel, {"slot": self.slot, **data})

    def notify(self, kind: str, attempt: int, ref: list[Any], text: str) -> None:
        """Say what became of a state; from any thread."""
        with self._lock:
            self._n_notes += 1
            note = (self._n_notes, kind, attempt, ref, text)
            self._notes.append(note)
        self.push(notes=[note])

    async def resend_notes(self) -> None:
        """Say again, on a new connection, what may not have arrived; in the worker's event loop.

        A worker that retires is struck off by the scheduler, with Dask's stream, before it closes.
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
        """Ask another worker something.

        Raises
        ------
        OSError : it is gone.
        """
        return self._loop.run_until_complete(self._ask_peer(address, request))

    def close(self) -> None:
        """Give the connection up."""
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
        assert end is not None, f"the scheduler has plain TCP, and this worker {comm}"
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
