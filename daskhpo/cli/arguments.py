"""Values of arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from daskhpo.core.arguments import check_path

Number = TypeVar("Number", int, float)


def add_study_path(parser: argparse.ArgumentParser) -> None:
    """Add the argument for a study's directory."""
    parser.add_argument("path", type=path, help="the study's directory")


def path(text: str) -> Path:
    """Parse a path of this machine; a type of arguments."""
    try:
        return check_path("path", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_scheduler_address(text: str) -> None:
    """Check what names a Dask scheduler.

    Raises
    ------
    ValueError : it is no address, or a file that does not exist, for which Dask would wait without
        end.
    """
    if text.endswith(".json"):
        if not Path(text).is_file():
            raise ValueError(f"--scheduler {text!r}: there is no such file")
        return
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        is_complete = bool(parts.hostname and parts.port and not text.split()[1:])
    except ValueError:
        is_complete = False
    if not is_complete:
        raise ValueError(
            f"--scheduler {text!r} must be HOST:PORT, such as tcp://10.0.0.5:8786, or a "
            "scheduler's FILE.json"
        )


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
