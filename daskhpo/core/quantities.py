"""Parsing of durations and sizes: ``"8h"``, ``"2 GB"``."""

from __future__ import annotations

import math
import re
from typing import Any

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_duration(duration: float | str, name: str = "time_budget") -> float:
    """Convert a duration to seconds.

    It is a number of seconds, or text such as ``"8h"``, ``"1h30m"``, ``"90s"``.

    Raises
    ------
    ValueError : anything else, or a duration that is not positive and finite.
    """
    if isinstance(duration, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", duration)
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
        rest = re.sub(r"(\d+(?:\.\d+)?)\s*([smhd])", "", duration).strip()
        if re.fullmatch(r"\d+(\.\d+)?", duration.strip()):
            seconds = float(duration)
        elif not parts or rest:
            raise ValueError(
                f"{name}={duration!r} is not understood; give seconds, or text like '8h', '1h30m'"
            )
    elif isinstance(duration, bool) or not isinstance(duration, (int, float)):
        raise ValueError(f"{name}={duration!r} must be a number of seconds, or text like '8h'")
    else:
        seconds = float(duration)
    if not seconds > 0 or math.isinf(seconds):
        raise ValueError(f"{name}={duration!r} must be positive and finite")
    return seconds


def parse_bytes(value: Any, name: str) -> Any:
    """Convert text such as ``"2 GB"`` to bytes; return anything else unchanged."""
    if not isinstance(value, str):
        return value
    number = value.strip().rstrip("BbIiKkMmGgTt").strip()
    unit = value.strip()[len(number) :].strip().lower() or "b"
    try:
        return int(float(number) * _BYTES[unit])
    except (ValueError, KeyError, OverflowError):
        raise ValueError(
            f"{name}={value!r} must be a number of bytes, or a text such as '500 MB' or '2 GB'"
        ) from None
