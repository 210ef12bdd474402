"""What Slurm prints, and times as it writes them."""

from __future__ import annotations

import math
import re

from daskhpo.cluster.times import parse_slurm_time, slurm_time

_FIELD = re.compile(r"([\w:/]+)=(\S*)")


def records(text: str) -> list[dict[str, str]]:
    """What ``scontrol --oneliner show ...`` printed: one mapping a line."""
    return [fields for line in text.splitlines() if (fields := dict(_FIELD.findall(line)))]


def settings(text: str) -> dict[str, str]:
    """What ``scontrol show config`` printed, ``Name = value`` a line."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def rows(text: str, names: tuple[str, ...]) -> list[dict[str, str]]:
    """What a command printed with ``|`` between its columns, if there are as many on a line."""
    split = (line.split("|") for line in text.splitlines())
    return [dict(zip(names, row, strict=True)) for row in split if len(row) == len(names)]


def seconds_of_limit(text: str) -> float | None:
    """Seconds of a limit: infinite if there is none; None if Slurm does not say."""
    return math.inf if text.lower() in ("unlimited", "infinite") else parse_slurm_time(text)


def clock(seconds: float) -> str:
    """A time for people, which Slurm would read, too.

    >>> clock(14400), clock(90000)
    ('04:00:00', '1-01:00:00')
    """
    return "UNLIMITED" if math.isinf(seconds) else slurm_time(seconds).removeprefix("0-")
