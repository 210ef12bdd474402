"""Records as lines of JSON: the words and keys that stand in users' files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, make_dataclass
from functools import lru_cache
from sys import intern
from typing import Any

from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Dropped,
    Ended,
    Enqueued,
    Exploited,
    Extended,
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
    SetAside,
    SlotsChanged,
    Step,
    StopRequested,
    Suggested,
    TrialPauseRequested,
    TrialStopRequested,
    Withheld,
    time_in_journal,
)
from daskhpo.core.out_of_memory import MemoryKind, OutOfMemory
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Config,
    Continue,
    Decision,
    Limits,
    Pause,
    PeakMemory,
    Status,
    Stop,
)


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
    "stop trial": TrialStopRequested,
    "pause trial": TrialPauseRequested,
    "enqueued": Enqueued,
    "suggested": Suggested,
    "set aside": SetAside,
    "judged": Judged,
    "launched": Launched,
    "withheld": Withheld,
    "ended": Ended,
    "exploited": Exploited,
    "extended": Extended,
    "set back": RolledBack,
    "deleted": Deleted,
}
_WORDS = {kind: word for word, kind in _KINDS.items()}
# Fields that are not written while they are empty.
_LEFT_OUT = {
    *("waited", "fallback", "job", "retry_failed", "clock", "max_t", "out_of_memory"),
    *("host_memory", "device_memory"),
}


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
            if fields.get("on_oom") == "infeasible":
                del fields["on_oom"]
            return fields
        case OutOfMemory(of, n_bytes, has_larger):
            return [of, n_bytes, has_larger]
        case Status():
            return value.value
        case Mapping():
            return dict(value)
    raise TypeError(f"{value!r} cannot be written to a journal")


_dump = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_plain).encode


def _tuples(value: Any) -> Any:
    """Restore the tuples of a configuration, which JSON stores as lists."""
    return tuple(map(_tuples, value)) if type(value) is list else value


def restored_config(config: dict[str, Any]) -> Config:
    """Return a configuration as it was before JSON."""
    # Each line has names of its own; the trials of a study share them.
    return {intern(name): _tuples(value) for name, value in config.items()}


_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "ref": lambda fields: CheckpointRef(*fields) if fields else None,
    "limits": lambda fields: Limits(**fields),
    "policy": lambda fields: CheckpointPolicy(**fields),
    "status": {status.value: status for status in Status}.__getitem__,
    "config": restored_config,
    "of": MemoryKind,
    "out_of_memory": lambda fields: OutOfMemory(MemoryKind(fields[0]), *fields[1:]),
}


def _draft(kind: Any) -> Any:
    """Return a class with the fields of a frozen one, which sets them faster.

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
            if name in data or name not in _LEFT_OUT:
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
    if record.memory is not None:
        data["memory"] = [*record.memory]
    return data


def _decode_reported(data: dict[str, Any]) -> Reported:
    get, decision, memory = data.get, data.get("decision"), data.get("memory")
    record: Reported = _DRAFT_OF_REPORTED(
        data["trial"],
        data["attempt"],
        tuple([Step(resource, metrics, seconds) for resource, seconds, metrics in data["steps"]]),
        data["seconds"],
        get("ended", False),
        get("yielded", False),
        None if decision is None else _decode_decision(decision),
        None if memory is None else PeakMemory(*memory),
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
