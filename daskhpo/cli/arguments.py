"""Values of arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def positive(text: str) -> int:
    """Parse a whole number of at least 1; a type of arguments."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} must be at least 1")
    return number


def numbers(option: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    """Parse numbers separated by commas.

    Raises
    ------
    ValueError : one is malformed; the message names the option.
    """
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{option} {text} must be a number, or several separated by commas"
        ) from None
