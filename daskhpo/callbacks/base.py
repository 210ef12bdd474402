"""The callback interface, and the thread that calls callbacks with new records."""

from __future__ import annotations

import logging
import threading
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daskhpo.core.events import Record
from daskhpo.core.objective import Objective
from daskhpo.core.types import Limits
from daskhpo.engine.journal import decode_record
from daskhpo.results.progress import StudyProgress

logger = logging.getLogger("daskhpo")

JOURNAL_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class StudyInfo:
    """Description of a study, which callbacks get at the start."""

    name: str
    directory: Path
    objective: Objective
    limits: Limits
    scheduler: str
    dashboard_link: str | None
    source: str | None  # "FILE.py:study" if it was started from the command line


class Callback(ABC):
    """An object that follows a study. Every method is optional.

    All methods are called in one separate thread. If a callback raises, its traceback is logged and
    it is not called again; the study continues.
    """

    def on_start(self, info: StudyInfo) -> None:
        """Handle the start of the session."""

    def on_record(self, record: Record, progress: StudyProgress) -> None:
        """Handle a new record, which ``progress`` includes.

        Records of earlier sessions come first. ``progress`` forgets a trial after the record of its
        end.
        """

    def on_tick(self, progress: StudyProgress) -> None:
        """Handle a tick: called every fraction of a second, after all new records."""

    def on_finish(self, progress: StudyProgress) -> None:
        """Handle the end of the session."""

    def on_detach(self, progress: StudyProgress) -> None:
        """Handle the end of following, while the study continues.

        By default the same as :meth:`on_finish`.
        """
        self.on_finish(progress)


class JournalFollower:
    """A thread that reads a study's journal and calls callbacks.

    It reads the file, possibly on another machine than the coordinator's, so that no callback can
    delay a decision.
    """

    def __init__(self, info: StudyInfo, callbacks: Sequence[Callback]) -> None:
        self._info = info
        self._callbacks = list(callbacks)
        self._progress = StudyProgress(info.objective, keep_ended=False)
        self._path = info.directory / "journal.jsonl"
        self._offset = 0
        self._damaged = False
        self._last_method = "on_finish"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="daskhpo-callbacks", daemon=True)
        if callbacks:  # else the journal need not be read
            self._thread.start()

    def finish(self) -> None:
        """Handle the remaining records, then the end of the session."""
        self._end()

    def detach(self) -> None:
        """Handle the remaining records, then stop following a study that continues."""
        self._last_method = "on_detach"
        self._end()

    def _end(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        self._each("on_start", self._info)
        while not self._over.wait(JOURNAL_POLL_SECONDS):
            self._read()
            self._each("on_tick", self._progress)
        self._read()
        self._each("on_tick", self._progress)
        self._each(self._last_method, self._progress)

    def _read(self) -> None:
        if not self._path.exists() or self._damaged:
            return
        try:
            self._handle_new_records()
        except Exception:
            self._damaged = True
            logger.exception("%s cannot be read; callbacks get no more records", self._path)

    def _handle_new_records(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                record = decode_record(line)
                self._progress.apply(record)
                self._each("on_record", record, self._progress)

    def _each(self, method: str, *args: object) -> None:
        for callback in [*self._callbacks]:
            try:
                getattr(callback, method)(*args)
            except Exception:
                logger.exception("%r raised and will not be called again", callback)
                self._callbacks.remove(callback)
