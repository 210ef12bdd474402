"""Event files of TensorBoard, written without it: records and their messages.

A record is a length, its checksum, a message of Protocol Buffers and its checksum. The numbers of
fields below are those of TensorBoard's `event.proto`, `summary.proto`, and `plugin_data.proto` and
`api.proto` of its plugin for hyperparameters.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c

from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real

SUCCESS, FAILURE = 1, 2
STRING, BOOL, NUMBER = 1, 2, 3  # kinds of hyperparameters


def records_of(path: Path) -> Iterator[bytes]:
    """Yield the complete records of an event file."""
    data, start = path.read_bytes(), 0
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 8], "little") + 4
        if end > len(data):
            return
        yield data[start:end]
        start = end


def version_event(at: float) -> bytes:
    """Return the record that begins an event file; ``at``: seconds since 1970."""
    return _record(_double(1, at) + _bytes(3, b"brain.Event:2"))


def scalar_event(at: float, step: int, values: Mapping[str, float]) -> bytes:
    """Return a record of numbers at a step, by name."""
    summary = b"".join(
        _bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in values.items()
    )
    return _record(_double(1, at) + _int(2, step) + _bytes(5, summary))


def experiment_event(at: float, domains: Mapping[str, Domain], metrics: Sequence[str]) -> bytes:
    """Return a record of a study's domains and metrics, for the filters of HParams."""
    infos = [_bytes(4, _hparam_info(name, domain)) for name, domain in domains.items()]
    infos += [_bytes(5, _bytes(1, _bytes(2, name.encode()))) for name in metrics]
    return _hparams_event(at, "experiment", _bytes(2, _double(3, at) + b"".join(infos)))


def start_event(
    at: float, group: str, config: Mapping[str, Any], domains: Mapping[str, Domain]
) -> bytes:
    """Return a record of a run's hyperparameters."""
    entries = [
        _bytes(1, _bytes(1, name.encode()) + _bytes(2, _value(value, _kind(domains.get(name)))))
        for name, value in config.items()
    ]
    info = b"".join(entries) + _bytes(4, group.encode()) + _double(5, at)
    return _hparams_event(at, "session_start_info", _bytes(3, info))


def end_event(at: float, status: int) -> bytes:
    """Return a record of a run's end: `SUCCESS` or `FAILURE`."""
    return _hparams_event(at, "session_end_info", _bytes(4, _int(1, status) + _double(2, at)))


def _hparams_event(at: float, what: str, message: bytes) -> bytes:
    plugin = _bytes(1, b"hparams") + _bytes(2, message)
    value = _bytes(1, f"_hparams_/{what}".encode()) + _bytes(9, _bytes(1, plugin))
    return _record(_double(1, at) + _bytes(5, _bytes(1, value)))


def _hparam_info(name: str, domain: Domain) -> bytes:
    kind = _kind(domain)
    info = _bytes(1, name.encode()) + _int(4, kind or 0)
    match domain:
        case Real(low, high) | Integer(low, high):
            return info + _bytes(6, _double(1, low) + _double(2, high))
        case Ordinal(values) | Categorical(values):
            return info + _bytes(5, b"".join(_bytes(1, _value(each, kind)) for each in values))
    return info


def _kind(domain: Domain | None) -> int | None:
    """Return the kind of a domain's values; None: it is not known."""
    match domain:
        case Real() | Integer() | Ordinal():
            return NUMBER
        case Categorical(values):
            if all(isinstance(value, bool) for value in values):
                return BOOL
            is_number = [isinstance(v, (int, float)) and not isinstance(v, bool) for v in values]
            return NUMBER if all(is_number) else STRING
    return None


def _value(value: Any, kind: int | None) -> bytes:
    """Return a value as a message; what is no number or bool is text."""
    if isinstance(value, bool) and kind in (BOOL, None):
        return _int(4, int(value))
    if isinstance(value, (int, float)) and kind in (NUMBER, None):
        return _double(2, value)
    return _bytes(3, (value if isinstance(value, str) else repr(value)).encode())


def _record(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return length + _checksum(length) + message + _checksum(message)


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _int(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _double(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)


def _float(field: int, number: float) -> bytes:
    try:
        return _varint(field << 3 | 5) + struct.pack("<f", number)
    except OverflowError:  # too large for four bytes
        return _float(field, float("inf") if number > 0 else float("-inf"))


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data
