"""Server of a study in Dask's scheduler: connections of leases and clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import cloudpickle
from distributed import Status
from distributed.comm.tcp import TCP

from daskhpo.executors.dask.channel import FutureReply, Inbox, Received, ReceivedNews, socket_of
from daskhpo.executors.dask.lease_manager import LeaseManager
from daskhpo.executors.dask.local_socket import LocalDoor
from daskhpo.executors.dask.protocol import (
    CALLS,
    CLIENT_MESSAGES,
    COMMANDS,
    NEWS,
    Call,
    ClientMessage,
    Exit,
    LeaseCommand,
    Leaving,
    Notes,
    Poll,
    StopStudy,
)


class Server:
    """The handler of a study's messages, in the scheduler's event loop.

    Parameters
    ----------
    inbox : receives the messages for the coordinator.
    leases : the study's leases; a connection of any other lease is refused.
    outcome : returns None while the study runs, then a tuple of the error that ended it, or None.
    stop : asks the study to end.
    """

    def __init__(
        self,
        inbox: Inbox,
        leases: LeaseManager,
        outcome: Callable[[], tuple[BaseException | None] | None],
        stop: Callable[[str], None],
    ) -> None:
        self._inbox, self._leases = inbox, leases
        self._outcome, self._stop = outcome, stop
        self._loop = asyncio.get_running_loop()
        self._closing = False

    def close(self) -> None:
        """Answer the calls that the coordinator did not, and all later ones: leases end."""
        self._closing = True
        while not self._inbox.empty():  # messages that arrived after the executor closed
            if isinstance(message := self._inbox.get(), Received):
                message.reply.send(Exit())

    async def serve(self, comm: Any, slot: int) -> Any:
        """Serve a connection from a lease, or from a client or retired worker (slot -1)."""
        with contextlib.suppress(OSError):  # the other side is gone; the scheduler notices it, too
            if slot < 0:
                while True:
                    message = CLIENT_MESSAGES.decode(await comm.read())
                    await comm.write(self._on_client(message))
            if slot in self._leases:
                await self._serve_lease(comm, slot)
            comm.abort()
        return Status.dont_reply

    async def _serve_lease(self, comm: Any, slot: int) -> None:
        ended = self._leases.end_of(slot)
        self._leases.on_begun(slot)
        if (end := await self._plain_end(comm)) is not None:
            self._inbox.listen(slot, end)
            await ended.wait()
            return
        while True:
            call = CALLS.decode(await comm.read())
            await comm.write(COMMANDS.encode(await self._answer(slot, call)))

    async def _plain_end(self, comm: Any) -> socket.socket | None:
        """Return a plain socket to the lease, for the coordinator's thread; or None.

        It is faster than an encrypted connection, which Dask's event loop has to serve. If that is
        plain, it is the connection itself: the lease sends nothing before this answer, so that the
        loop's buffers hold none of it. Otherwise it is a local one that only this user can open.
        """
        if self._closing:
            await comm.write(False)
        elif type(comm) is TCP:
            await comm.write(True)
            return socket_of(comm)
        elif (door := await asyncio.to_thread(LocalDoor.open)) is None:
            await comm.write(False)
        else:
            with door:
                await comm.write(door.path)
                return door.accept() if await comm.read() else None
        return None

    async def _answer(self, slot: int, call: Call) -> LeaseCommand:
        if slot not in self._leases or self._closing:
            return Exit()
        reply = FutureReply(self._loop)
        self._inbox.put(Received(slot, call, reply, time.monotonic()))
        return await reply.future

    def _on_client(self, message: ClientMessage) -> Any:
        match message:
            case Poll():
                outcome = self._outcome()
                return None if outcome is None else cloudpickle.dumps(outcome)
            case StopStudy(reason):
                return self._stop(reason)
            case Notes():
                return self._inbox.put(ReceivedNews(message, time.monotonic()))

    def on_news(self, data: Any) -> None:
        """Handle a one-way message of a lease."""
        match NEWS.decode(data):
            case Leaving(slot):
                self._leases.on_leaving(slot)
            case news:
                self._inbox.put(ReceivedNews(news, time.monotonic()))
