"""Requests to the process that runs a study, in the study's directory."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import open_to_append, read_small
from daskhpo.core.events import Edit, Enqueued, TrialPauseRequested, TrialStopRequested
from daskhpo.engine.records import restored_config

logger = logging.getLogger("daskhpo")

REQUEST_POLL_SECONDS = 1.0
ANY_SESSION = "study"  # recipient: no token of a session and no submission has this name
OnEdit = Callable[[Edit], None]


def request_stop(directory: Path, recipient: str, reason: str) -> None:
    """Request a session, or another listener, to stop.

    Parameters
    ----------
    directory : the study's directory.
    recipient : token of a session, from its lock, or name of a submission.
    reason : reason to be recorded in the journal.
    """
    _append(_path(directory), {"whom": recipient, "stop": reason})


def request_edit(directory: Path, edit: Edit) -> None:
    """Request this or the next session to end, pause or add a trial.

    Parameters
    ----------
    edit : with a name of its own as ``request``; its time does not count.
    """
    _append(_path(directory), encode_edit(edit))


def encode_edit(edit: Edit) -> dict[str, Any]:
    """Return a request as a line of the file."""
    line: dict[str, Any] = {"whom": ANY_SESSION, "request": edit.request}
    match edit:
        case TrialStopRequested(trial, reason):
            return line | {"stop trial": trial, "reason": reason}
        case TrialPauseRequested(trial, paused):
            return line | {"pause trial": trial, "paused": paused}
        case Enqueued(config):
            return line | {"enqueue": dict(config)}


def requested_edits(directory: Path) -> list[Edit]:
    """Return all requests about trials, in order; their time is 0."""
    edits: list[Edit] = []
    for line in _lines(directory, ANY_SESSION):
        match line:
            case {"request": str(name), "stop trial": int(trial)}:
                if trial is not True and trial is not False:
                    reason = str(line.get("reason", "stopped by hand"))
                    edits.append(TrialStopRequested(trial, reason, name, 0.0))
            case {"request": str(name), "pause trial": int(trial), "paused": bool(paused)}:
                if trial is not True and trial is not False:
                    edits.append(TrialPauseRequested(trial, paused, name, 0.0))
            case {"request": str(name), "enqueue": dict(config)}:
                edits.append(Enqueued(restored_config(config), name, 0.0))
    return edits


def requested_stop(directory: Path, recipient: str) -> str | None:
    """Return the reason of a stop request to the recipient; None if there is none."""
    for request in _lines(directory, recipient):
        return str(request.get("stop", "a request without a reason"))
    return None


def _lines(directory: Path, recipient: str) -> Iterator[dict[str, Any]]:
    """Yield the requests to a recipient."""
    # On NFS, opening an existing file shows what other hosts wrote to it. A new file in a
    # directory may stay invisible for half a minute.
    try:
        lines = read_small(_path(directory)).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            continue  # it is still being written, or damaged
        if isinstance(request, dict) and request.get("whom") == recipient:
            yield request


def _append(path: Path, request: dict[str, Any]) -> None:
    fd = open_to_append(path)
    try:
        os.write(fd, (json.dumps(request) + "\n").encode())
    finally:
        os.close(fd)


class StopRequestWatcher:
    """A thread that watches for requests.

    Parameters
    ----------
    directory : the study's directory.
    recipient : name to which requests are addressed.
    on_stop : called once in this thread, with the reason; that is the last call.
    on_edit : called with each request to end or to add a trial: at once with those that are there,
        also of earlier sessions, and in this thread with later ones; None: others do that.
    """

    def __init__(
        self,
        directory: Path,
        recipient: str,
        on_stop: Callable[[str], None],
        on_edit: OnEdit | None = None,
    ) -> None:
        self._directory, self._recipient = directory, recipient
        self._on_stop, self._on_edit = on_stop, on_edit
        self._known: set[str] = set()
        _path(directory).touch()
        with contextlib.suppress(OSError):  # a file server may be unreachable for a while
            self._tell_edits()  # what was asked before comes before the first suggestion
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
                self._tell_edits()
                reason = requested_stop(self._directory, self._recipient)
            except OSError as error:  # a file server may be unreachable for a while
                logger.debug("%s cannot be read at the moment: %s", _path(self._directory), error)
                continue
            if reason is not None:
                self._on_stop(reason)
                return

    def _tell_edits(self) -> None:
        for edit in () if self._on_edit is None else requested_edits(self._directory):
            if edit.request not in self._known and self._on_edit is not None:
                self._known.add(edit.request)
                self._on_edit(edit)


def _path(directory: Path) -> Path:
    return directory / "requests.jsonl"
