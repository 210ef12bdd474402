"""Parsers of the output of Slurm's commands."""

from __future__ import annotations

import math
import re

from daskhpo.cluster.times import parse_slurm_time, slurm_time

_FIELD = re.compile(r"([\w:/]+)=(\S*)")


def records(text: str) -> list[dict[str, str]]:
    """Parse the output of ``scontrol --oneliner show ...``: one mapping per line."""
    return [fields for line in text.splitlines() if (fields := dict(_FIELD.findall(line)))]


def settings(text: str) -> dict[str, str]:
    """Parse the output of ``scontrol show config``: lines of ``Name = value``."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def rows(text: str, names: tuple[str, ...]) -> list[dict[str, str]]:
    """Parse lines with ``|`` between columns; skip those with another number of them."""
    split = (line.split("|") for line in text.splitlines())
    return [dict(zip(names, row, strict=True)) for row in split if len(row) == len(names)]


def seconds_of_limit(text: str) -> float | None:
    """Convert a time limit to seconds; infinite: no limit; None: not known."""
    return math.inf if text.lower() in ("unlimited", "infinite") else parse_slurm_time(text)


def clock(seconds: float) -> str:
    """Format seconds for users, in a form that Slurm accepts too.

    >>> clock(14400), clock(90000)
    ('04:00:00', '1-01:00:00')
    """
    return "UNLIMITED" if math.isinf(seconds) else slurm_time(seconds).removeprefix("0-")
