"""Calls of callbacks for the records of a journal, while a study runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from daskhpo.atomic_files import open_plain
from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.values import FrozenReport, StudyInfo, freeze, summarise
from daskhpo.core.events import Ended, Launched, Record, Reported, SessionStarted
from daskhpo.engine.extension import described
from daskhpo.engine.journal import JournalTail, read_sessions
from daskhpo.engine.session import last_limits, read_manifest
from daskhpo.results.progress import StudyProgress

logger = logging.getLogger("daskhpo")

JOURNAL_POLL_SECONDS = 0.2
CALLBACK_END_SECONDS = 60.0  # for callbacks to finish, such as uploads, after the end


class CallbackList:
    """Callbacks of one study, called one after another; one that raises is removed.

    Attributes
    ----------
    callbacks : those that are still called.
    progress : the study so far.
    running : the callback that is being called, or None.
    """

    def __init__(
        self, callbacks: Sequence[Callback], info: StudyInfo, *, keep_ended: bool = False
    ) -> None:
        self.callbacks = list(callbacks)
        self.running: Callback | None = None
        self.progress = StudyProgress(info.objective, keep_ended=keep_ended)
        self._n_reports = 0
        self._each("on_study_start", info)

    def apply(self, record: Record) -> None:
        """Call the hooks for the next record of the journal."""
        for part in _by_unit(record):
            self._apply(part)
        self._each("on_record", record, self.progress)

    def tick(self) -> None:
        """Call the hooks for a moment after all new records."""
        self._each("on_tick", summarise(self.progress))

    def end(self) -> None:
        """Call the hooks for the end of the session."""
        self._each("on_study_end", summarise(self.progress))

    def detach(self) -> None:
        """Call the hooks for the end of following."""
        self._each("on_detach", summarise(self.progress))

    def _apply(self, record: Record) -> None:
        progress, best_loss = self.progress, self.progress.best_loss
        progress.apply(record)
        match record:
            case Launched(number, attempt=1):
                self._each("on_trial_start", freeze(progress.trials[number], progress))
            case Reported(number, decision=decision):
                for step in progress.new_steps:
                    trial = freeze(progress.trials[number], progress)
                    report = FrozenReport(
                        self._n_reports,
                        step.resource,
                        MappingProxyType(dict(step.metrics)),
                        step.metrics[progress.objective.metric],
                        step.seconds,
                        progress.best_loss < best_loss,
                        decision,
                    )
                    self._n_reports += 1
                    self._each("on_report", trial, report)
            case Ended(number) if progress.trials[number].attempt:  # else it was set aside
                self._each("on_trial_end", freeze(progress.trials[number], progress))

    def _each(self, hook: str, *values: object) -> None:
        for callback in [*self.callbacks]:
            self.running = callback
            try:
                getattr(callback, hook)(*values)
            except BaseException:  # SystemExit, too, ends no other callback
                logger.exception("%r raised and will not be called again", callback)
                self.callbacks.remove(callback)
            self.running = None


def _by_unit(record: Record) -> Iterator[Record]:
    """Split a report into one per unit, so that the trial is seen as it was at each."""
    if isinstance(record, Reported):
        for step in record.steps[:-1]:
            yield Reported(record.trial, record.attempt, (step,), record.seconds)
        record = replace(record, steps=record.steps[-1:])
    yield record


class JournalFollower:
    """Threads that read a study's journal and call callbacks; one per slow callback.

    They read the file, possibly on another machine than the coordinator's, so that no callback can
    delay a decision. The file is also the queue of a callback that is late: it takes no memory, and
    drops nothing.
    """

    def __init__(self, info: StudyInfo, callbacks: Sequence[Callback]) -> None:
        shared = [callback for callback in callbacks if not callback.own_thread]
        alone = [[callback] for callback in callbacks if callback.own_thread]
        groups = [shared, *alone] if shared else alone  # without any the journal is not read
        self._threads = [_FollowerThread(info, group) for group in groups]

    def finish(self) -> None:
        """Handle the remaining records, then the end of the session."""
        self._end(detach=False)

    def detach(self) -> None:
        """Handle the remaining records, then stop following a study that continues."""
        self._end(detach=True)

    def _end(self, *, detach: bool) -> None:
        for thread in self._threads:
            thread.end(detach=detach)
        deadline = time.monotonic() + CALLBACK_END_SECONDS
        for thread in self._threads:
            thread.join(deadline)


class _FollowerThread:
    """A thread that reads a study's journal and calls some callbacks in turn."""

    def __init__(self, info: StudyInfo, callbacks: Sequence[Callback]) -> None:
        self._info, self._callbacks = info, callbacks
        self._path = info.directory / "journal.jsonl"
        self._tail = JournalTail(self._path)
        self._list: CallbackList | None = None
        self._damaged = self._detaching = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="daskhpo-callbacks", daemon=True)
        self._thread.start()

    def end(self, *, detach: bool) -> None:
        """Let the thread handle the remaining records, then end; returns at once."""
        self._detaching = detach
        self._over.set()

    def join(self, deadline: float) -> None:
        """Wait for the thread's end; warn if it does not end in time."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            running = self._list.running if self._list else None
            n_missed = self._n_unread()
            missed = f", and has not heard the last {n_missed} records" if n_missed else ""
            what = "the callback %r still works %g s after the end; it is not waited for%s"
            logger.warning(what, running or self._callbacks[0], CALLBACK_END_SECONDS, missed)

    def _run(self) -> None:
        sessions = _sessions(self._path)
        info = replace(self._info, session=max(1, len(sessions)))
        was_extended = any(session.max_t is not None for session in sessions)
        callbacks = self._list = CallbackList(self._callbacks, info, keep_ended=was_extended)
        while not self._over.wait(JOURNAL_POLL_SECONDS):
            self._read(callbacks)
        self._read(callbacks)
        if self._detaching:
            callbacks.detach()
        else:
            callbacks.end()

    def _read(self, callbacks: CallbackList) -> None:
        """Handle all new records, then a tick."""
        try:
            for record in () if self._damaged else self._tail.new_records():
                callbacks.apply(record)
        except Exception:
            self._damaged = True
            logger.exception("%s cannot be read; callbacks get no more records", self._path)
        callbacks.tick()

    def _n_unread(self) -> int:
        try:
            with open_plain(self._path) as file:
                file.seek(self._tail.n_bytes)
                return sum(line.endswith(b"\n") for line in file)
        except OSError:
            return 0


def study_info(directory: Path) -> StudyInfo:
    """Return the description of a study that another process runs, or has run.

    Raises
    ------
    FileNotFoundError : the directory holds no study.
    """
    manifest = read_manifest(directory)
    return StudyInfo(
        directory.name,
        directory,
        manifest.objective,
        last_limits(directory),
        described(directory),
        None,
        manifest.source,
    )


def _sessions(journal: Path) -> list[SessionStarted]:
    """Return the sessions in a journal so far."""
    try:
        return read_sessions(journal)
    except (OSError, ValueError):  # reading its records shows what is wrong
        return []
