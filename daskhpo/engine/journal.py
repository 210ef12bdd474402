"""The journal: one JSON line per record, appended and never changed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import naming
from daskhpo.core.errors import JournalCorrupt
from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Dropped,
    Ended,
    Exploited,
    Failed,
    Held,
    Launched,
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
)
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Continue,
    Decision,
    Limits,
    Pause,
    Status,
    Stop,
)

SYNC_SECONDS = 1.0


class FileJournal:
    """A journal in a file.

    Flushed records survive the end of the process at once, and a power failure after about
    ``SYNC_SECONDS``. A separate thread syncs the file, because that takes milliseconds.

    Parameters
    ----------
    path : the file; created if it does not exist. A last line that a crash cut short is removed.

    Raises
    ------
    OSError : by :meth:`flush` and :meth:`close`: the file cannot be written, or the last sync
        failed. Records that were read back before are valid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _cut_torn_line(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._buffer: list[str] = []
        self._problem: OSError | None = None
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
        with naming(self.path):
            while data:  # a signal or a full disk may cut a write short
                data = data[os.write(self._fd, data) :]
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

    def _sync(self) -> None:
        try:
            with naming(self.path):
                while not self._closing.wait(SYNC_SECONDS):
                    self._unsynced.wait()
                    self._unsynced.clear()
                    os.fsync(self._fd)
                os.fsync(self._fd)
        except OSError as error:
            self._problem = error


def read_journal(path: Path) -> Iterator[Record]:
    """Yield the records of a journal in order; skip an incomplete last line.

    Raises
    ------
    JournalCorrupt : a complete line is damaged; the message gives its number.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield decode_record(line)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise JournalCorrupt(
                    f"{path}, line {number} cannot be read ({error!r}): {line[:80]!r}. "
                    "Restore the file from a copy, or remove that line and all lines after it"
                ) from error


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
        with self.path.open("rb") as file:
            file.seek(self.n_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.n_bytes += len(line)
                yield decode_record(line)


def _cut_torn_line(path: Path) -> None:
    """Cut off an incomplete last line; nothing was done about its record yet."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            step = min(position, 4096)
            position -= step
            file.seek(position)
            newline = file.read(step).rfind(b"\n")
            if newline >= 0:
                position += newline + 1
                break
        if position < end:
            file.truncate(position)


# -- records as JSON -----------------------------------------------------------------------------


def encode_record(record: Record) -> str:
    """Encode a record as one line of JSON, without the newline."""
    return _dump(_encode_reported(record) if type(record) is Reported else _encode(record))


def decode_record(line: str | bytes) -> Record:
    """Decode a line that :func:`encode_record` made."""
    data = json.loads(line)
    word = data.pop("record")
    return _decode_reported(data) if word == _REPORTED else _decode(word, data)


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
    "slots": SlotsChanged,
    "stop": StopRequested,
    "suggested": Suggested,
    "launched": Launched,
    "ended": Ended,
    "exploited": Exploited,
    "set back": RolledBack,
    "deleted": Deleted,
}
_WORDS = {kind: word for word, kind in _KINDS.items()}
# Fields that are not written while they are empty.
_LEFT_OUT = {"waited", "fallback", "job", "retry_failed"}


def _encode(record: Any) -> dict[str, Any]:
    data = {"record": _WORDS[type(record)], "seconds": round(record.seconds, 6)}
    for name in record.__slots__:
        value = getattr(record, name)
        if isinstance(value, float):
            value = round(value, 6)  # a time in seconds
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
            return fields
        case Status():
            return value.value
        case Mapping():
            return dict(value)
    raise TypeError(f"{value!r} cannot be written to a journal")


_dump = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_plain).encode


def _decode(word: str, data: dict[str, Any]) -> Record:
    if "row" in data:
        data["checkpoint_id"] = data.pop("row")
    for name, restore in _RESTORED[word]:
        data[name] = restore(data[name])
    record: Record = _KINDS[word](**data)
    return record


def _tuples(value: Any) -> Any:
    """Restore the tuples of a configuration, which JSON stores as lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "ref": lambda fields: CheckpointRef(*fields) if fields else None,
    "limits": lambda fields: Limits(**fields),
    "policy": lambda fields: CheckpointPolicy(**fields),
    "status": Status,
    "config": lambda config: {name: _tuples(value) for name, value in config.items()},
}
_RESTORED = {  # by word: the fields that JSON cannot hold as they are
    word: [(name, _FROM_JSON[name]) for name in kind.__slots__ if name in _FROM_JSON]
    for word, kind in _KINDS.items()
}


def _encode_reported(record: Reported) -> dict[str, Any]:
    data: dict[str, Any] = {
        "record": _REPORTED,
        "seconds": round(record.seconds, 6),
        "trial": record.trial,
        "attempt": record.attempt,
        "steps": [[s.resource, round(s.seconds, 6), s.metrics] for s in record.steps],
    }
    if record.decision is not None:
        data["decision"] = _encode_decision(record.decision)
    if record.ended:
        data["ended"] = True
    if record.preempted:
        data["yielded"] = True
    return data


def _decode_reported(data: dict[str, Any]) -> Reported:
    return Reported(
        data["trial"],
        data["attempt"],
        tuple(Step(resource, metrics, seconds) for resource, seconds, metrics in data["steps"]),
        data["seconds"],
        data.get("ended", False),
        data.get("yielded", False),
        _decode_decision(data.get("decision")),
    )


def _encode_decision(decision: Decision) -> list[Any]:
    match decision:
        case Continue(until, keep):
            return ["continue", until, keep] if keep else ["continue", until]
        case Pause(keep):
            return ["pause", keep]
        case Stop(reason):
            return ["stop", reason]


def _decode_decision(data: list[Any] | None) -> Decision | None:
    match data:
        case None:
            return None
        case ["continue", until, *keep]:
            return Continue(until, *keep)
        case ["pause", keep]:
            return Pause(keep)
        case ["stop", reason]:
            return Stop(reason)
    raise ValueError(f"not a decision: {data!r}")
