"""Requests to who runs a study, left in its directory by other processes."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger("daskhpo")

REQUEST_POLL_SECONDS = 1.0


def request_stop(directory: Path, recipient: str, reason: str) -> None:
    """Ask a session, or whoever else listens by that name, to stop.

    Parameters
    ----------
    directory : of the study.
    recipient : a session's token, as its lock says; or the name of a submission.
    reason : what the journal shall say.
    """
    line = json.dumps({"whom": recipient, "stop": reason}) + "\n"
    fd = os.open(_path(directory), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def requested_stop(directory: Path, recipient: str) -> str | None:
    """The reason why it is asked to stop, or None if nobody has asked."""
    # Opening a file that exists shows what others wrote to it, on NFS too; whether a new file
    # has appeared in a directory may be known half a minute later only.
    try:
        lines = _path(directory).read_text().splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        try:
            request = json.loads(line)
        except ValueError:
            continue  # it is being written
        if request["whom"] == recipient:
            return str(request["stop"])
    return None


class StopRequestWatcher:
    """Looks whether somebody asks to stop, in a thread of its own.

    Parameters
    ----------
    directory : of the study.
    recipient : the name that requests are addressed to.
    on_stop : called once, with the reason.
    """

    def __init__(self, directory: Path, recipient: str, on_stop: Callable[[str], None]) -> None:
        self._directory, self._recipient, self._on_stop = directory, recipient, on_stop
        _path(directory).touch()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="daskhpo-requests", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(REQUEST_POLL_SECONDS):
            try:
                reason = requested_stop(self._directory, self._recipient)
            except OSError as error:  # a file server may be away for a while
                logger.debug("%s cannot be read just now: %s", _path(self._directory), error)
                continue
            if reason is not None:
                self._on_stop(reason)
                return


def _path(directory: Path) -> Path:
    return directory / "requests.jsonl"
