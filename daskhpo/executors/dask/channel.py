"""Channel between a lease and the coordinator's thread: a socket that Dask opened.

A call by Dask passes through two event loops, and switches threads at each end. This costs more
than the decision. A channel costs one write and one read at each end.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack


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


def _unpacker() -> Any:
    return msgpack.Unpacker(use_list=False, strict_map_key=False)


class SocketChannel:
    """The worker's end of a channel: one call at a time."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._unpacker = end, _unpacker()

    def call(self, say: str, data: dict[str, Any]) -> Any:
        """Send a message and wait for the reply.

        Raises
        ------
        OSError : the other end is gone, or has closed the channel.
        """
        self._end.sendall(msgpack.packb((say, data)))
        while got := self._end.recv(65536):
            self._unpacker.feed(got)
            for reply in self._unpacker:
                return reply
        raise ConnectionError("the study has closed the channel")

    def close(self) -> None:
        self._end.close()


class Inbox:
    """The coordinator's inbox: messages from the event loop and from all channels.

    Parameters
    ----------
    heard : makes a message from (slot, say, data, socket for the reply, time of arrival in
        seconds of the monotonic clock).
    """

    def __init__(self, heard: Callable[[int, str, dict[str, Any], Any, float], Any]) -> None:
        self._heard = heard
        self._messages: deque[Any] = deque()
        self._new: deque[tuple[int, socket.socket]] = deque()
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._wakes, self._waker = socket.socketpair()
        for end in (self._wakes, self._waker):
            end.setblocking(False)
        self._selector.register(self._wakes, selectors.EVENT_READ)

    def put(self, message: Any) -> None:
        """Add a message. Thread-safe."""
        self._messages.append(message)
        self._wake()

    def listen(self, slot: int, end: socket.socket) -> None:
        """Receive messages from the channel of a slot, too. Thread-safe."""
        self._new.append((slot, end))
        self._wake()
        if self._closed:
            self._refuse()

    def empty(self) -> bool:
        return not self._messages

    def get(self, timeout: float | None = None) -> Any:
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
        """Close all channels; a lease that waits for a reply there ends."""
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
            slot, unpacker = key.data
            end: Any = key.fileobj
            try:
                got = end.recv(65536)
            except OSError:
                got = b""
            if not got:
                self._hang_up(end)
                continue
            unpacker.feed(got)
            for say, data in unpacker:
                self._messages.append(self._heard(slot, say, data, end, now))
        return bool(ready)

    def _welcome(self) -> None:
        while self._new:
            slot, end = self._new.popleft()
            self._selector.register(end, selectors.EVENT_READ, (slot, _unpacker()))

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


def send_reply(end: socket.socket, message: dict[str, Any]) -> None:
    """Send a reply on a channel. Errors are ignored: Dask reports a lost lease."""
    with contextlib.suppress(OSError):
        end.sendall(msgpack.packb(message))
