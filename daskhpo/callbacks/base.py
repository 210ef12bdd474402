"""Callbacks: readers of a study's journal while it grows."""

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
    """What a callback is told at the beginning."""

    name: str
    directory: Path
    objective: Objective
    limits: Limits
    scheduler: str
    dashboard_link: str | None
    source: str | None  # "FILE.py:study" if the command line began it


class Callback(ABC):
    """Follows a study. Every method is optional; they are called in one thread of their own.

    A callback that raises is logged once with its traceback and left out from then on; the study
    goes on.
    """

    def on_start(self, info: StudyInfo) -> None:
        """The session begins."""

    def on_record(self, record: Record, progress: StudyProgress) -> None:
        """Something was recorded; ``progress`` has taken it in. Earlier sessions come first.

        The progress forgets a trial after the record of its end.
        """

    def on_tick(self, progress: StudyProgress) -> None:
        """A fraction of a second went by, and everything recorded so far was told."""

    def on_finish(self, progress: StudyProgress) -> None:
        """The session is over."""

    def on_detach(self, progress: StudyProgress) -> None:
        """The study goes on, but is not followed here any more; by default as if it were over."""
        self.on_finish(progress)


class JournalFollower:
    """Reads the journal of a study and tells callbacks, in a thread of its own.

    It reads the file, in this process or on another machine than the coordinator's, so that no
    callback can slow a decision down.
    """

    def __init__(self, info: StudyInfo, callbacks: Sequence[Callback]) -> None:
        self._info = info
        self._callbacks = list(callbacks)
        self._progress = StudyProgress(info.objective, keep_ended=False)
        self._path = info.directory / "journal.jsonl"
        self._offset = 0
        self._damaged = False
        self._last_word = "on_finish"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="daskhpo-callbacks", daemon=True)
        if callbacks:  # else nobody asks what the journal says
            self._thread.start()

    def finish(self) -> None:
        """The session is over: tell the rest, and end."""
        self._end()

    def detach(self) -> None:
        """Follow it no further, though it goes on."""
        self._last_word = "on_detach"
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
        self._each(self._last_word, self._progress)

    def _read(self) -> None:
        if not self._path.exists() or self._damaged:
            return
        try:
            self._tell_new_records()
        except Exception:
            self._damaged = True
            logger.exception("%s cannot be followed any further", self._path)

    def _tell_new_records(self) -> None:
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
                logger.exception("%r raised and is left out from now on", callback)
                self._callbacks.remove(callback)
