"""Stop requests to the process that runs a study, in the study's directory."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from daskhpo.atomic_files import open_to_append, read_small

logger = logging.getLogger("daskhpo")

REQUEST_POLL_SECONDS = 1.0


def request_stop(directory: Path, recipient: str, reason: str) -> None:
    """Request a session, or another listener, to stop.

    Parameters
    ----------
    directory : the study's directory.
    recipient : token of a session, from its lock, or name of a submission.
    reason : reason to be recorded in the journal.
    """
    line = json.dumps({"whom": recipient, "stop": reason}) + "\n"
    fd = open_to_append(_path(directory))
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def requested_stop(directory: Path, recipient: str) -> str | None:
    """Return the reason of a stop request to the recipient; None if there is none."""
    # On NFS, opening an existing file shows what other hosts wrote to it. A new file in a
    # directory may stay invisible for half a minute.
    try:
        lines = read_small(_path(directory)).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            continue  # it is still being written, or damaged
        if isinstance(request, dict) and request.get("whom") == recipient:
            return str(request.get("stop", "a request without a reason"))
    return None


class StopRequestWatcher:
    """A thread that watches for stop requests.

    Parameters
    ----------
    directory : the study's directory.
    recipient : name to which requests are addressed.
    on_stop : called once in this thread, with the reason.
    """

    def __init__(self, directory: Path, recipient: str, on_stop: Callable[[str], None]) -> None:
        self._directory, self._recipient, self._on_stop = directory, recipient, on_stop
        _path(directory).touch()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="daskhpo-requests", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(REQUEST_POLL_SECONDS):
            try:
                reason = requested_stop(self._directory, self._recipient)
            except OSError as error:  # a file server may be unreachable for a while
                logger.debug("%s cannot be read at the moment: %s", _path(self._directory), error)
                continue
            if reason is not None:
                self._on_stop(reason)
                return


def _path(directory: Path) -> Path:
    return directory / "requests.jsonl"
