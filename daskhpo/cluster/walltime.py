"""Lengths of time as Slurm reads and writes them."""

from __future__ import annotations

import math
import re

from daskhpo.study.limits import seconds_of

_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")
_ENDLESS = ("unlimited", "infinite")


def slurm_seconds(text: str) -> float | None:
    """Seconds of a time in Slurm's notation; infinite for one without end; None if it is none.

    >>> slurm_seconds("1-02:00:00"), slurm_seconds("90"), slurm_seconds("UNLIMITED")
    (93600.0, 5400.0, inf)
    """
    text = text.strip()
    if text.lower() in _ENDLESS:
        return math.inf
    if (match := _CLOCK.fullmatch(text)) is None:
        return None
    parts = [float(part) for part in match["clock"].split(":")]
    if match["days"] is not None:  # days-hours, days-hours:minutes, days-hours:minutes:seconds
        hours, minutes, seconds = (*parts, 0.0, 0.0)[:3]
        return ((float(match["days"]) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(parts) == 1:  # minutes
        return parts[0] * 60
    hours, minutes, seconds = (0.0, *parts)[-3:]  # minutes:seconds, hours:minutes:seconds
    return (hours * 60 + minutes) * 60 + seconds


def walltime_seconds(text: str) -> float:
    """Seconds of a walltime as users write one: in Slurm's notation, or as ``"4h"``, ``"1h30m"``.

    Raises
    ------
    ValueError : it is neither, or not a time that a job can have.
    """
    seconds = slurm_seconds(text)
    if seconds is None:
        try:
            seconds = seconds_of(text, "walltime")
        except ValueError:
            raise ValueError(
                f"walltime={text!r} is not understood; give it as Slurm does, '04:00:00' or "
                "'1-00:00:00' (a number alone is minutes), or as '4h', '1h30m'"
            ) from None
    if not 0 < seconds < math.inf:
        raise ValueError(f"walltime={text!r} must be positive, and have an end")
    return seconds


def slurm_text(seconds: float) -> str:
    """A time in Slurm's notation, in whole seconds.

    >>> slurm_text(93600), slurm_text(90)
    ('1-02:00:00', '00:01:30')
    """
    if math.isinf(seconds):
        return "UNLIMITED"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours:02}:{minutes:02}:{rest:02}"
    return f"{days}-{clock}" if days else clock
