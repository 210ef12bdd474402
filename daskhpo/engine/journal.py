"""The journal: one JSON line per record, appended and never changed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, make_dataclass
from functools import lru_cache, partial
from pathlib import Path
from sys import intern
from typing import Any

from daskhpo.atomic_files import MAX_SMALL, naming, open_plain, open_to_append, write_file
from daskhpo.core.errors import JournalCorrupt, JournalNotWritten, StudyFailed
from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Dropped,
    Ended,
    Exploited,
    Failed,
    Held,
    Judged,
    Launched,
    OutOfTime,
    Record,
    Reported,
    RolledBack,
    Saved,
    SaveFailed,
    SessionStarted,
    SlotsChanged,
    Step,
    StopRequested,
    Suggested,
    time_in_journal,
)
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Config,
    Continue,
    Decision,
    Limits,
    Pause,
    Status,
    Stop,
)
from daskhpo.engine.record_check import RecordChecker

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


def read_journal(path: Path, metric: str | None = None) -> Iterator[Record]:
    """Yield the records of a journal in order; skip an incomplete last line.

    Parameters
    ----------
    metric : the study's metric, which each report must have; None: not known.

    Raises
    ------
    JournalCorrupt : a complete line is damaged; the message gives its number.
    """
    checker = RecordChecker(metric)
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


# -- records as JSON -----------------------------------------------------------------------------


def encode_record(record: Record) -> str:
    """Encode a record as one line of JSON, without the newline."""
    return _dump(_encode_reported(record) if type(record) is Reported else _encode(record))


def decode_record(line: str | bytes) -> Record:
    """Decode a line that :func:`encode_record` made."""
    text = line if isinstance(line, str) else line.decode()
    data, end = _parse(text)
    if text[end:] != "\n" and text[end:].strip():
        raise ValueError(f"more than one value: {text[end : end + 40]!r}")
    return _DECODERS[data.pop("record")](data)


_parse = json.JSONDecoder().raw_decode  # `json.loads` takes twice as long for a short line


# Words and keys stand in users' files, so they outlive the names of classes and fields.
_REPORTED = "reported"  # nine lines of ten: it has a codec of its own, which is faster
_KINDS: dict[str, Any] = {
    "began": SessionStarted,
    "held": Held,
    "saved": Saved,
    "unsaved": SaveFailed,
    "dropped": Dropped,
    "lost": AttemptLost,
    "failed": Failed,
    "out of time": OutOfTime,
    "slots": SlotsChanged,
    "stop": StopRequested,
    "suggested": Suggested,
    "judged": Judged,
    "launched": Launched,
    "ended": Ended,
    "exploited": Exploited,
    "set back": RolledBack,
    "deleted": Deleted,
}
_WORDS = {kind: word for word, kind in _KINDS.items()}
# Fields that are not written while they are empty.
_LEFT_OUT = {"waited", "fallback", "job", "retry_failed", "clock"}


def _encode(record: Any) -> dict[str, Any]:
    data = {"record": _WORDS[type(record)], "seconds": time_in_journal(record.seconds)}
    for name in record.__slots__:
        value = getattr(record, name)
        if isinstance(value, float):
            value = time_in_journal(value)  # a time, too
        if name != "seconds" and (value or name not in _LEFT_OUT):
            data["row" if name == "checkpoint_id" else name] = value
    return data


def _plain(value: Any) -> Any:
    """Return a value of a record in a form that JSON has."""
    match value:
        case CheckpointRef():
            return value.plain()
        case Limits() | CheckpointPolicy():
            fields = {name: getattr(value, name) for name in value.__slots__}
            if not fields.get("max_failed_trials", True):  # as in journals before there was one
                del fields["max_failed_trials"]
            if fields.get("trial_time_limit", 0) is None:
                del fields["trial_time_limit"]
            return fields
        case Status():
            return value.value
        case Mapping():
            return dict(value)
    raise TypeError(f"{value!r} cannot be written to a journal")


_dump = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_plain).encode


def _tuples(value: Any) -> Any:
    """Restore the tuples of a configuration, which JSON stores as lists."""
    return tuple(map(_tuples, value)) if type(value) is list else value


def _config(config: dict[str, Any]) -> Config:
    # Each line has names of its own; the trials of a study share them.
    return {intern(name): _tuples(value) for name, value in config.items()}


_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "ref": lambda fields: CheckpointRef(*fields) if fields else None,
    "limits": lambda fields: Limits(**fields),
    "policy": lambda fields: CheckpointPolicy(**fields),
    "status": {status.value: status for status in Status}.__getitem__,
    "config": _config,
}


def _draft(kind: Any) -> Any:
    """Return a class with the fields of a frozen one, which sets them in a third of the time.

    Both have the same layout, so that its objects may be given the frozen class.
    """
    each = [(field.name, Any, dataclasses.field(default=field.default)) for field in fields(kind)]
    return make_dataclass(kind.__name__, each, slots=True)


def _decoder(kind: Any) -> Callable[[dict[str, Any]], Record]:
    restored = [(name, _FROM_JSON[name]) for name in kind.__slots__ if name in _FROM_JSON]
    has_row, draft = "checkpoint_id" in kind.__slots__, _draft(kind)

    def decode(data: dict[str, Any]) -> Record:
        if has_row:
            data["checkpoint_id"] = data.pop("row")
        for name, restore in restored:  # what JSON cannot hold as it is
            data[name] = restore(data[name])
        record: Record = draft(**data)
        record.__class__ = kind
        return record

    return decode


def _encode_reported(record: Reported) -> dict[str, Any]:
    data: dict[str, Any] = {
        "record": _REPORTED,
        "seconds": time_in_journal(record.seconds),
        "trial": record.trial,
        "attempt": record.attempt,
        "steps": [[s.resource, time_in_journal(s.seconds), s.metrics] for s in record.steps],
    }
    if record.decision is not None:
        data["decision"] = _encode_decision(record.decision)
    if record.ended:
        data["ended"] = True
    if record.preempted:
        data["yielded"] = True
    return data


def _decode_reported(data: dict[str, Any]) -> Reported:
    get, decision = data.get, data.get("decision")
    record: Reported = _DRAFT_OF_REPORTED(
        data["trial"],
        data["attempt"],
        tuple([Step(resource, metrics, seconds) for resource, seconds, metrics in data["steps"]]),
        data["seconds"],
        get("ended", False),
        get("yielded", False),
        None if decision is None else _decode_decision(decision),
    )
    record.__class__ = Reported
    return record


_DRAFT_OF_REPORTED = _draft(Reported)


def _encode_decision(decision: Decision) -> list[Any]:
    match decision:
        case Continue(until, keep):
            return ["continue", until, keep] if keep else ["continue", until]
        case Pause(keep):
            return ["pause", keep]
        case Stop(reason):
            return ["stop", reason]


def _decode_decision(data: list[Any]) -> Decision:
    word, *values = data
    decision: Decision = _DECISIONS[word](*values)
    return decision


_stop = lru_cache(100)(Stop)  # most trials end for one of a few reasons
_DECISIONS: dict[str, Any] = {"continue": Continue, "pause": Pause, "stop": _stop}


_DECODERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    word: _decoder(kind) for word, kind in _KINDS.items()
}
_DECODERS[_REPORTED] = _decode_reported
