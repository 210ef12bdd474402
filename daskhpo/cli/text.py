"""Tables, numbers, sizes and times as text for the command line."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import TextIO

from daskhpo.core.printable import printable


def show(
    text: str = "", *, end: str = "\n", file: TextIO | None = None, flush: bool = False
) -> None:
    """Print text; what a terminal might obey is printed as escapes."""
    print(printable(text, lines=True), end=end, file=file or sys.stdout, flush=flush)


def ask(question: str) -> bool:
    """Ask the person at the terminal; no is the default."""
    show(f"daskhpo: {question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def can_ask() -> bool:
    """Return True if there is a person at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def columns(lines: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Return a table as aligned lines; ``left``: numbers of left-aligned columns."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def count(n: int, what: str) -> str:
    """Return text such as ``1 trial``, ``2 trials``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def spread(middle: str, low: str, high: str) -> str:
    """Return text such as ``3.1 (2.8-4.0)``; the middle alone if all are the same."""
    return middle if middle == low == high else f"{middle} ({low}-{high})"


def duration(seconds: float) -> str:
    """Return seconds as text in at most two units: ``4 h``, ``3 h 58 min``."""
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    if seconds < 599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
