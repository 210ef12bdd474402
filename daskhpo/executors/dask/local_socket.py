"""Sockets between processes of one user on one machine.

A connection with certificates is opened first. It carries the name of a socket in a folder that
only its owner can enter; what was connected there needs no encryption.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import uuid
from pathlib import Path
from typing import Self

from daskhpo.cluster.security import private_folder

ENTER_SECONDS = 5.0  # to connect to a socket of the same machine; it is there or not


class LocalDoor:
    """A socket at which one process of the same user is let in."""

    def __init__(self, path: str, listener: socket.socket) -> None:
        self.path, self._listener = path, listener

    @classmethod
    def open(cls) -> LocalDoor | None:
        """Return a door; None: this system has none, or no folder for it."""
        if not hasattr(socket, "AF_UNIX"):
            return None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path = str(private_folder() / uuid.uuid4().hex)
            listener.bind(path)
            listener.listen(1)
        except OSError:  # such as a path of more than 107 bytes
            listener.close()
            return None
        return cls(path, listener)

    def accept(self) -> socket.socket | None:
        """Return the connection of the entered process; None: another user's."""
        self._listener.setblocking(False)
        try:
            end, _ = self._listener.accept()
        except OSError:
            return None
        if not _is_ours(end):
            end.close()
            return None
        end.setblocking(True)
        return end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        Path(self.path).unlink(missing_ok=True)


def enter(path: str) -> socket.socket | None:
    """Return a connection to a door; None: it is in another machine or container."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end.settimeout(ENTER_SECONDS)
    with contextlib.suppress(OSError):
        end.connect(path)
        if _is_ours(end):
            end.settimeout(None)
            return end
    end.close()
    return None


def _is_ours(end: socket.socket) -> bool:
    """Return True unless the other end is known to be another user's process."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the folder's mode alone decides
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(user == os.geteuid())
