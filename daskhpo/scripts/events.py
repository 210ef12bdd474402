"""Scalars of TensorBoard's event files, read without it.

The numbers of fields are those of TensorBoard's `event.proto`, `summary.proto` and `tensor.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from daskhpo.callbacks.tensorboard_events import records_of

FLOAT, DOUBLE = 1, 2  # dtypes of tensors
Field = tuple[int, bytes | int]


def scalars_of(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the step and the scalars, by tag, of each event that has some."""
    for record in records_of(path):
        step, values = 0, dict[str, float]()
        for number, content in _fields(record[12:-4]):
            if number == 2 and isinstance(content, int):
                step = content
            elif number == 5 and isinstance(content, bytes):
                for _, value in _fields(content):
                    if isinstance(value, bytes) and (found := _scalar(value)) is not None:
                        values[found[0]] = found[1]
        if values:
            yield step, values


def _scalar(message: bytes) -> tuple[str, float] | None:
    tag, scalar = "", None
    for number, content in _fields(message):
        if not isinstance(content, bytes):
            continue
        if number == 1:
            tag = content.decode(errors="replace")
        elif number == 2 and len(content) == 4:
            scalar = struct.unpack("<f", content)[0]
        elif number == 8:
            scalar = _tensor(content)
    return None if scalar is None else (tag, scalar)


def _tensor(message: bytes) -> float | None:
    """Return the number in a tensor of one float or double."""
    kind, shape_is_single = 0, True
    numbers: list[float] = []
    for number, content in _fields(message):
        if number == 1 and isinstance(content, int):
            kind = content
        elif isinstance(content, bytes) and number in (4, 5, 6):
            form = "<d" if number == 6 or (number == 4 and kind == DOUBLE) else "<f"
            size = struct.calcsize(form)
            shape_is_single = len(content) == size
            if shape_is_single and kind in (FLOAT, DOUBLE):
                numbers.append(struct.unpack(form, content)[0])
    return numbers[0] if shape_is_single and numbers else None


def _fields(message: bytes) -> Iterator[Field]:
    """Yield the number and the content of each field of a message of Protocol Buffers."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
            case 1:
                yield key >> 3, message[at : at + 8]
                at += 8
            case 2:
                size, at = _varint(message, at)
                yield key >> 3, message[at : at + size]
                at += size
            case 5:
                yield key >> 3, message[at : at + 4]
                at += 4
            case _:
                return  # nothing that is written today


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at
