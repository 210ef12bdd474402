"""Plain values: what a study's messages, journal and tables hold exactly.

Values of users enter a study in four places: a space (its constants and categories), a
configuration, a report's metrics, and the text of an error. Each asks here.
"""

from __future__ import annotations

import math
import reprlib
import sys
from typing import Any

import numpy as np

LARGEST_INT = int(sys.float_info.max)  # larger ones could not be compared with floats
LONGEST_TEXT = 50_000  # characters of an error

_short = reprlib.Repr()
_short.maxother = _short.maxstring = _short.maxlong = 120


def to_python(value: Any) -> Any:
    """Convert numpy's numbers, bools and strings; return anything else unchanged."""
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        plain = value.item()  # a np.longdouble is its own item
        return float(plain) if value.dtype.kind == "f" else plain
    return value


def why_not_plain(value: Any) -> str:
    """Say why a value cannot be a category or a constant; return "" if it can.

    Allowed are str, int, float, bool, None and tuples of these; no subclasses, because a journal
    would give back another object.
    """
    if type(value) is tuple:
        return next(filter(None, map(why_not_plain, value)), "")
    if type(value) is str:
        return why_not_text(value)
    if type(value) is int:
        return "" if abs(value) <= LARGEST_INT else f"is an int beyond ±{sys.float_info.max:.1e}"
    if type(value) is float:
        return "is not equal to itself" if math.isnan(value) else ""
    if value is None or type(value) is bool:
        return ""
    allowed = "allowed are str, int, float, bool, None and tuples of these"
    if isinstance(value, (tuple, str, int, float)):
        return f"is a {type(value).__name__}, which would come back as plain data; {allowed}"
    return f"is a {type(value).__name__}; {allowed}"


def why_not_text(text: str) -> str:
    """Say why a text cannot be written to a file; return "" if it can."""
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"has the lone surrogate {text[error.start]!r}, which no file can hold as text"
    return ""


def is_number(value: Any) -> bool:
    """Return True for a finite number, numpy's too, that floats compare with."""
    value = to_python(value)
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and -LARGEST_INT <= value <= LARGEST_INT
    )


def typed(value: Any) -> Any:
    """Return a key in which 1, 1.0 and True differ."""
    if isinstance(value, tuple):
        return tuple(typed(item) for item in value)
    return type(value), value


def short(value: Any) -> str:
    """Return a short `repr` of anything, for a message."""
    try:
        return _short.repr(value)
    except Exception:  # the user's own __repr__, or an int of too many digits
        return f"<a {type(value).__name__}>"


def readable(text: str) -> str:
    """Return the text of an error: any file can hold it, and it is not endless."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
