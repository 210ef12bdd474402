"""The software of a study's processes, which has to be the same in all of them."""

from __future__ import annotations

import sys

from daskhpo._version import __version__


class WrongEnvironment(RuntimeError):
    """A process has other versions of daskhpo or Python than the study's."""


def environment() -> str:
    """Return the versions that must be the same; functions are sent as bytecode."""
    return f"daskhpo {__version__}, Python {sys.version_info.major}.{sys.version_info.minor}"


def check_environment(expected: str) -> None:
    """Check that this process has the versions of the study.

    Raises
    ------
    WrongEnvironment : it has others; the message names both.
    """
    if (here := environment()) != expected:
        raise WrongEnvironment(
            f"it has {here}, and the study was started with {expected}. Use the same environment "
            "for the workers, the scheduler and the script"
        )
