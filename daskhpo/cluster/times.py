"""Durations in Slurm's formats."""

from __future__ import annotations

import re

from daskhpo.core.quantities import check_duration


def slurm_time(seconds: float) -> str:
    """Format a duration for Slurm: ``D-HH:MM:SS``.

    >>> slurm_time(12 * 3600), slurm_time(90)
    ('0-12:00:00', '0-00:01:30')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"


def parse_walltime(walltime: float | str) -> float:
    """Convert a walltime to seconds.

    It is a number of seconds, text such as ``"12h"``, or in Slurm's format: ``"1-12:00:00"``.

    Raises
    ------
    ValueError : anything else; less than a minute; a bare number as text, since Slurm would read
        it as minutes.
    """
    if isinstance(walltime, str) and walltime.strip().isdecimal():
        raise ValueError(
            f"walltime={walltime!r} may mean minutes or seconds: write '{walltime}m' or "
            f"'{walltime}s'"
        )
    if isinstance(walltime, str) and re.search("[:-]", walltime):
        if (seconds := parse_slurm_time(walltime)) is None:
            raise ValueError(
                f"walltime={walltime!r} is not understood; give '12h', '1h30m', or D-HH:MM:SS"
            )
        walltime = seconds
    seconds = check_duration("walltime", walltime)
    if seconds < 60:
        raise ValueError(f"walltime={walltime!r} must be at least a minute")
    return seconds


def parse_slurm_time(text: str) -> float | None:
    """Convert a time that Slurm printed to seconds.

    Formats are ``"1-02:03:04"``, ``"2:03:04"`` and ``"3:04"``. None: other text, such as
    ``UNLIMITED`` or that of an unknown time.
    """
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
