"""The journal: one JSON line per record, appended and never changed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    return _dump(_ENCODERS[type(record)](record))


def decode_record(line: str | bytes) -> Record:
    """Decode a line that :func:`encode_record` made."""
    data = json.loads(line)
    return _DECODERS[data.pop("record")](data)


_dump = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


_KEYS = {"checkpoint_id": "row"}  # fields with another name in a journal


def _fields(record: Any) -> dict[str, Any]:
    return {_KEYS.get(name, name): getattr(record, name) for name in record.__slots__}


def _with_id(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"checkpoint_id": data.pop("row")}


def _encode_decision(decision: Decision | None) -> list[Any] | None:
    match decision:
        case None:
            return None
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


def _encode_reported(record: Reported) -> dict[str, Any]:
    data: dict[str, Any] = {
        "record": "reported",
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


def _encode_fields(name: str, record: Any) -> dict[str, Any]:
    data = _fields(record)
    seconds = round(data.pop("seconds"), 6)
    return {"record": name, "seconds": seconds, **data}


def _encode_suggested(record: Suggested) -> dict[str, Any]:
    data = _encode_fields("suggested", record) | {"config": dict(record.config)}
    waited, fallback = round(data.pop("waited"), 6), data.pop("fallback")
    if waited:
        data["waited"] = waited
    if fallback:
        data["fallback"] = True
    return data


def _encode_slots(record: SlotsChanged) -> dict[str, Any]:
    data = _encode_fields("slots", record)
    if not record.job:
        del data["job"]
    return data


_ENCODERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    Reported: _encode_reported,
    SessionStarted: lambda r: (
        _encode_fields("began", r) | {"limits": _fields(r.limits), "policy": _fields(r.policy)}
    ),
    Held: lambda r: _encode_fields("held", r) | {"ref": r.ref.plain() if r.ref else None},
    Saved: lambda r: _encode_fields("saved", r) | {"ref": r.ref.plain()},
    SaveFailed: lambda r: _encode_fields("unsaved", r),
    Dropped: lambda r: _encode_fields("dropped", r),
    AttemptLost: lambda r: _encode_fields("lost", r),
    Failed: lambda r: _encode_fields("failed", r),
    SlotsChanged: _encode_slots,
    StopRequested: lambda r: _encode_fields("stop", r),
    Suggested: _encode_suggested,
    Launched: lambda r: _encode_fields("launched", r),
    Ended: lambda r: _encode_fields("ended", r) | {"status": r.status.value},
    Exploited: lambda r: _encode_fields("exploited", r) | {"config": dict(r.config)},
    RolledBack: lambda r: _encode_fields("set back", r),
    Deleted: lambda r: _encode_fields("deleted", r),
}

_DECODERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    "reported": _decode_reported,
    "began": lambda d: SessionStarted(
        **d | {"limits": Limits(**d["limits"]), "policy": CheckpointPolicy(**d["policy"])}
    ),
    "held": lambda d: Held(**d | {"ref": CheckpointRef(*d["ref"]) if d["ref"] else None}),
    "saved": lambda d: Saved(**d | {"ref": CheckpointRef(*d["ref"])}),
    "unsaved": lambda d: SaveFailed(**_with_id(d)),
    "dropped": lambda d: Dropped(**_with_id(d)),
    "lost": lambda d: AttemptLost(**d),
    "failed": lambda d: Failed(**d),
    "slots": lambda d: SlotsChanged(**d),
    "stop": lambda d: StopRequested(**d),
    "suggested": lambda d: Suggested(**d | {"config": _tuples(d["config"])}),
    "launched": lambda d: Launched(**d),
    "ended": lambda d: Ended(**d | {"status": Status(d["status"])}),
    "exploited": lambda d: Exploited(**d | {"config": _tuples(d["config"])}),
    "set back": lambda d: RolledBack(**d),
    "deleted": lambda d: Deleted(**_with_id(d)),
}


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    """Restore the tuples of a configuration, which JSON stores as lists."""

    def back(value: Any) -> Any:
        return tuple(back(item) for item in value) if isinstance(value, list) else value

    return {name: back(value) for name, value in config.items()}
