"""Studies as the pages see them: read from their journals while a page is open."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from daskhpo.core.events import Extended
from daskhpo.core.objective import Objective
from daskhpo.engine.journal import JournalTail
from daskhpo.engine.session import read_manifest
from daskhpo.plots.alternatives import Alternatives, replays
from daskhpo.plots.importance import Importance, importance
from daskhpo.plots.tables import StudyTables
from daskhpo.plots.trials_page import detail_html
from daskhpo.results.progress import StudyProgress
from daskhpo.results.recorder import Recorder
from daskhpo.trial_output import log_path, tail

logger = logging.getLogger("daskhpo")

SLICE_SECONDS = 0.02  # of reading, before other threads get their turn
SHARE = 0.02  # of a core that watching may take, once a study's past has been read
FIT_SECONDS = 30.0  # least time between two forests
REPLAY_SECONDS = 300.0  # least time between two rounds of replays


class WatchedStudy:
    """A study whose journal is read when someone looks at it.

    Parameters
    ----------
    name : as the selector shows it.
    directory : the study's directory.

    Attributes
    ----------
    lock : to be held while its tables are used in another thread than the one that reads.
    """

    def __init__(self, name: str, directory: Path, objective: Objective) -> None:
        self.name, self.directory = name, directory
        self.lock = threading.Lock()
        self._objective, self._is_damaged = objective, False
        self._begin(keep_ended=False)
        self._importance = Importance(problem="It is being computed.")
        self._fit_at = 0.0
        self._n_fitted = -1
        self._alternatives = Alternatives(problem="The curves are to be replayed.")
        self._replays: Iterator[Alternatives] | None = None
        self._replay_at = 0.0
        self._n_replayed = -1

    def _begin(self, *, keep_ended: bool) -> None:
        """Read the journal from its beginning."""
        self._keeps_ended, self._is_described = keep_ended, False
        self._progress = StudyProgress(self._objective, keep_ended=keep_ended)
        self._recorder = Recorder(self._progress)
        self._tail = JournalTail(self.directory / "journal.jsonl")

    @property
    def tables(self) -> StudyTables:
        """The study as read so far."""
        return self._recorder.tables

    @property
    def version(self) -> int:
        """A number that grows whenever something was read."""
        return self._tail.n_bytes

    def read(self) -> bool:
        """Read new records for at most `SLICE_SECONDS`; return True if there are more."""
        if self._is_damaged:
            return False
        until = time.perf_counter() + SLICE_SECONDS
        with self.lock:
            self._describe()
            try:
                for number, record in enumerate(self._tail.new_records()):
                    if isinstance(record, Extended) and not self._keeps_ended:
                        self._read_again()  # it is of a trial that was forgotten
                        return True
                    self._progress.apply(record)
                    self._recorder.apply(record)
                    if number % 16 == 15 and time.perf_counter() > until:
                        return True
            except Exception:
                self._is_damaged = True
                logger.exception("%s cannot be read; its pages show no more", self._tail.path)
        return False

    def _describe(self) -> None:
        if not self._is_described and (self.directory / "study.json").exists():
            self._is_described = True
            self._recorder.describe(self.name, read_manifest(self.directory), self.directory)

    def _read_again(self) -> None:
        """Read all again, at once: no open page must see fewer trials than before."""
        self._begin(keep_ended=True)
        self._describe()
        for record in self._tail.new_records():
            self._progress.apply(record)
            self._recorder.apply(record)

    def log_size(self, number: int) -> int:
        """Return the bytes of what a trial has printed."""
        try:
            return log_path(self.directory, number).stat().st_size
        except OSError:
            return 0

    def detail(self, number: int) -> str:
        """Return all that is known of a trial as HTML."""
        refs = self._progress.checkpoints.refs.values()
        own = sorted((ref for ref in refs if ref.trial == number), key=lambda ref: ref.id)
        return detail_html(self.tables, number, own, tail(log_path(self.directory, number)))

    def importance(self) -> Importance:
        """Return the importance of hyperparameters, which may be somewhat old."""
        now = time.monotonic()
        if now < self._fit_at or self.version == self._n_fitted:
            return self._importance
        self._n_fitted = self.version
        self._importance = importance(self.tables)
        took = time.monotonic() - now
        self._fit_at = now + max(FIT_SECONDS, took / SHARE)
        return self._importance

    @property
    def is_replaying(self) -> bool:
        """True if replays of the curves are not complete."""
        return self._replays is not None

    def alternatives(self) -> Alternatives:
        """Return what other schedulers would have cost; add one replay if due."""
        now = time.monotonic()
        if self._replays is None and now >= self._replay_at and self.version != self._n_replayed:
            self._replays, self._n_replayed = replays(self.tables), self.version
        if self._replays is None:
            return self._alternatives
        found = next(self._replays, None)
        if found is None:
            self._replays, self._replay_at = None, now + REPLAY_SECONDS
        elif found.problem or found.n_orders or not self._alternatives.n_orders:
            self._alternatives = found  # what was known before stays until there is as much again
        return self._alternatives


class Pace:
    """The pauses with which work takes no more than `SHARE` of a core.

    Attributes
    ----------
    busy : seconds of work so far.
    """

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most
        self.busy = 0.0

    def pause(self, worked: float) -> float:
        """Return the seconds to pause after some seconds of work."""
        self.busy += worked
        return min(max(self._least, worked / SHARE - worked), self._most)
