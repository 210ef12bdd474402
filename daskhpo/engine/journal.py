"""The journal: one JSON line per record, appended and never changed."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from daskhpo.atomic_files import MAX_SMALL, naming, open_plain, open_to_append, write_file
from daskhpo.core.errors import JournalCorrupt, JournalNotWritten, StudyFailed
from daskhpo.core.events import Record, SessionStarted
from daskhpo.engine.record_check import RecordChecker
from daskhpo.engine.records import decode_record as decode_record
from daskhpo.engine.records import encode_record as encode_record

logger = logging.getLogger("daskhpo")

SESSION_LINE = b'{"record":"began"'  # begins the line of each `SessionStarted`
SYNC_SECONDS = 1.0
WAIT_SECONDS = 60.0  # for a file system to work again
PASSING = {  # errors that a file server, a quota or a full disk may cause for a while
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOSPC, errno.EDQUOT),
    *(errno.EBUSY, errno.ENOLCK, errno.EREMOTEIO, errno.EHOSTDOWN, errno.ENETDOWN),
}


class FileJournal:
    """A journal in a file.

    Flushed records survive the end of the process at once, and a power failure after about
    ``SYNC_SECONDS``. A separate thread syncs the file, because that takes milliseconds.

    Parameters
    ----------
    path : the file; created if it does not exist. One that exists is replaced by a copy without a
        last line that a crash cut short: a process that has it open, and was asleep when it lost
        the study, then writes to a file without a name.

    Raises
    ------
    JournalNotWritten : by :meth:`flush` and :meth:`close`: the file cannot be written for
        `WAIT_SECONDS`, or the last sync failed.
    StudyFailed : by :meth:`flush`: another process took the study over, or the file is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            with open_plain(path) as file:
                whole, _, _ = file.read().rpartition(b"\n")
            write_file(path, whole + b"\n" * bool(whole), path.stat().st_mode & 0o777)
        self._open()
        self._buffer: list[str] = []
        self._problem: JournalNotWritten | None = None
        self._unsynced, self._closing = threading.Event(), threading.Event()
        self._syncer = threading.Thread(target=self._sync, name="daskhpo-sync", daemon=True)
        self._syncer.start()

    def append(self, record: Record) -> None:
        self._buffer.append(encode_record(record))

    def flush(self) -> None:
        if self._problem is not None:
            raise self._problem
        if not self._buffer:
            return
        self._buffer.append("")
        data = "\n".join(self._buffer).encode()
        self._buffer.clear()
        self._write(data)
        self._unsynced.set()

    def close(self) -> None:
        """Flush, sync and close."""
        try:
            self.flush()
        finally:
            self._closing.set()
            self._unsynced.set()
            self._syncer.join()
            os.close(self._fd)
        if self._problem is not None:
            raise self._problem

    def _open(self) -> None:
        self._fd = open_to_append(self.path)
        found = os.fstat(self._fd)
        self._file, self._size = (found.st_dev, found.st_ino), found.st_size

    def _write(self, data: bytes) -> None:
        """Append data; wait for a file system that fails for a while."""
        began, pause, written, has_warned = time.monotonic(), 0.05, 0, False
        while True:
            try:
                self._check_place()
                while written < len(data):  # a signal or a full disk may cut a write short
                    written += os.write(self._fd, data[written:])
                self._size += len(data)
                return
            except OSError as error:
                if error.errno not in PASSING or time.monotonic() - began >= WAIT_SECONDS:
                    raise JournalNotWritten(error.errno, error.strerror, str(self.path)) from error
                if not has_warned:
                    logger.warning(
                        "%s cannot be written: %s; the study waits", self.path, error.strerror
                    )
                has_warned = True
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
                self._cut_back(self._size + written)

    def _check_place(self) -> None:
        """Check that the name still belongs to the file that is open here."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            raise StudyFailed(
                f"{self.path} is gone: the study's directory was moved or removed. Move it back "
                "and resume the study, or resume it where it is now"
            ) from None
        if (found.st_dev, found.st_ino) != self._file:
            raise StudyFailed(f"another process took over {self.path.parent}")

    def _cut_back(self, size: int) -> None:
        """Remove what a failed write may have left after so many bytes."""
        try:
            if os.fstat(self._fd).st_size != size:
                os.ftruncate(self._fd, size)
        except OSError as error:
            if error.errno == errno.ESTALE:  # a server that restarted no longer knows the handle
                with contextlib.suppress(OSError):
                    whole, file = self._size, self._file
                    os.close(self._fd)
                    self._open()
                    self._size, self._file = whole, file

    def _sync(self) -> None:
        try:
            with naming(self.path):
                while not self._closing.wait(SYNC_SECONDS):
                    self._unsynced.wait()
                    self._unsynced.clear()
                    os.fsync(self._fd)
                os.fsync(self._fd)
        except OSError as error:
            self._problem = JournalNotWritten(error.errno, error.strerror, str(self.path))


def read_journal(
    path: Path, metric: str | None = None, *, any_trial: bool = False
) -> Iterator[Record]:
    """Yield the records of a journal in order; skip an incomplete last line.

    Parameters
    ----------
    metric : the study's metric, which each report must have; None: not known.
    any_trial : True: records may name trials that were never suggested; the caller compares each
        record with what follows from those before it.

    Raises
    ------
    JournalCorrupt : a complete line is damaged; the message gives its number.
    """
    checker = RecordChecker(metric, any_trial=any_trial)
    for number, line in _numbered_lines(path):
        try:
            record = decode_record(line)
            checker.check(record)
        except _UNREADABLE as error:
            raise _damaged(path, number, line, error) from error
        yield record


def read_sessions(path: Path) -> list[SessionStarted]:
    """Return the starts of a study's sessions; other records are not decoded.

    Raises
    ------
    JournalCorrupt : such a line is damaged.
    """
    found: list[SessionStarted] = []
    if not path.exists():
        return found
    for number, line in _numbered_lines(path):
        if line.startswith(SESSION_LINE):
            try:
                record = decode_record(line)
            except _UNREADABLE as error:
                raise _damaged(path, number, line, error) from error
            assert isinstance(record, SessionStarted), record
            found.append(record)
    return found


_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the complete lines of a journal, numbered from 1."""
    with open_plain(path) as file:
        for number, line in enumerate(iter(partial(file.readline, MAX_SMALL), b""), start=1):
            if len(line) == MAX_SMALL:
                raise JournalCorrupt(
                    f"{path}, line {number} has more than {MAX_SMALL} bytes: this is no journal. "
                    "Restore the file from a copy"
                )
            if not line.endswith(b"\n"):
                return
            yield number, line


def _damaged(path: Path, number: int, line: bytes, error: Exception) -> JournalCorrupt:
    return JournalCorrupt(
        f"{path}, line {number} cannot be read ({error!r}): {line[:80]!r}. "
        "Restore the file from a copy, or remove that line and all lines after it"
    )


class JournalTail:
    """The records of a journal that grows, in parts.

    Attributes
    ----------
    n_bytes : bytes read so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_bytes = 0

    def new_records(self) -> Iterator[Record]:
        """Yield the complete records that are new; none if there is no journal."""
        if not self.path.exists():
            return
        with open_plain(self.path) as file:
            file.seek(self.n_bytes)
            for line in iter(lambda: file.readline(MAX_SMALL), b""):
                if not line.endswith(b"\n"):
                    return
                self.n_bytes += len(line)
                yield decode_record(line)
