"""Slurm's ``Name=value`` lines."""

from __future__ import annotations

import re

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
