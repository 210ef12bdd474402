"""Durations and sizes as users write them: ``"8h"``, ``"2 GB"``."""

from __future__ import annotations

import math
import re
from typing import Any

from daskhpo.core.arguments import check_int, check_number, shown
from daskhpo.core.errors import InvalidArgument

_PARTS = re.compile(
    r"\s*".join(rf"(?:([0-9]+(?:\.[0-9]+)?)\s*{unit})?" for unit in "dhms"), re.ASCII
)
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_SECONDS = (86400.0, 3600.0, 60.0, 1.0)
LONGEST_SECONDS = 100 * 365 * 86400.0  # a clock's timeout must not overflow
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"(-?[0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([kmgt]?i?b)?", re.ASCII | re.IGNORECASE)


def check_duration(name: str, duration: Any) -> float:
    """Return a duration in seconds.

    It is a number of seconds, or text such as ``"8h"``, ``"1h30m"``, ``"90s"``: each unit once,
    the largest first.

    Raises
    ------
    InvalidArgument : anything else, or a duration that is not positive and finite.
    """
    if isinstance(duration, str):
        text = duration.strip()
        if _PLAIN.fullmatch(text):
            seconds = float(text)
        elif text and (found := _PARTS.fullmatch(text)):
            parts = zip(found.groups(), _SECONDS, strict=True)
            seconds = sum(float(number) * unit for number, unit in parts if number)
        else:
            raise InvalidArgument(
                f"{name}={shown(duration)} is not understood; give seconds, or text like '8h' or "
                "'1h30m': days, hours, minutes and seconds, each once and in this order"
            )
    else:
        hint = "seconds, or text like '8h'"
        seconds = float(check_number(name, duration, at_most=math.inf, why=hint))
    if not 0 < seconds < math.inf:
        raise InvalidArgument(f"{name}={shown(duration)} must be positive and finite")
    if seconds > LONGEST_SECONDS:
        raise InvalidArgument(f"{name}={shown(duration)} must be at most a hundred years")
    return seconds


def check_bytes(name: str, value: Any, *, at_least: int = 0) -> int:
    """Return a number of bytes, from an int or from text such as ``"2 GB"``.

    Raises
    ------
    InvalidArgument : anything else.
    """
    if isinstance(value, str):
        if (found := _SIZE.fullmatch(value.strip())) is None:
            raise InvalidArgument(
                f"{name}={shown(value)} must be a number of bytes, or a text such as '500 MB' or "
                "'2 GB'"
            )
        number, unit = found.groups()
        size = float(number) * _BYTES[(unit or "b").lower()]
        if not size < 2**63:
            raise InvalidArgument(f"{name}={shown(value)} is more than any disk or memory holds")
        value = int(size)
    return check_int(name, value, at_least=at_least, why="bytes, or a text such as '2 GB'")
