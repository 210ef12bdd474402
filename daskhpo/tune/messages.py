"""Messages on options that mean something else here, or nothing."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, NoReturn

from daskhpo.core.errors import InvalidArgument

logger = logging.getLogger("daskhpo.tune")


@cache
def say(option: str, meaning: str) -> None:
    """Say once per process what an option of Ray Tune means here."""
    logger.warning("%s: %s", option, meaning)


def no_effect(options: dict[str, object], why: str) -> None:
    """Say once of each option that was given that it has no effect here."""
    for name, value in options.items():
        if value not in (None, False, (), [], {}):
            say(name, f"has no effect: {why}")


def cannot(option: str, instead: str) -> NoReturn:
    """Refuse an option of Ray Tune that cannot be meant here.

    Raises
    ------
    InvalidArgument : always; the message has the names of both libraries.
    """
    raise InvalidArgument(f"{option} of Ray Tune is not available in daskhpo: {instead}")


def unavailable(name: str, instead: str) -> Any:
    """Return what stands for a name of Ray Tune: it cannot be called or derived from."""

    class Refusing:
        """There is nothing like it here."""

        def __new__(cls, *args: Any, **kwargs: Any) -> NoReturn:
            cannot(name, instead)

        def __init_subclass__(cls) -> None:
            cannot(name, instead)

    Refusing.__name__ = Refusing.__qualname__ = name
    return Refusing
