"""Checks of arguments of constructors, options and commands.

Each function returns the value that is kept: Python's own type for one of numpy, else what was
given. Else it raises `InvalidArgument`, a ``TypeError`` and ``ValueError``, whose message says what
was given, what is allowed, and what to do.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import short, to_python
from daskhpo.core.printable import printable

Given = TypeVar("Given")

LARGEST_COUNT = 2**63 - 1  # larger ones do not survive the way to workers and files
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # also without its second slash, as Path writes it
UNLISTED = (str, bytes, bytearray, Mapping, set, frozenset)  # iterables, but no lists of values
# Invisible marks that reverse the order in which a text is shown.
REVERSING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def optional(check: Callable[..., Given], name: str, value: Any, **limits: Any) -> Given | None:
    """Return None for None, and else what the check returns."""
    if value is None:
        return None
    try:
        return check(name, value, **limits)
    except InvalidArgument as error:
        raise InvalidArgument(f"{error} (or None)") from None


def check_int(
    name: str, value: Any, *, at_least: int | None = None, at_most: int | None = None, why: str = ""
) -> int:
    """Return an int within bounds; a bool is none, and neither is 3.0.

    ``why``: what the number means, for the message.
    """
    plain = plain_number(value)
    bounds = _bounds(at_least=at_least, at_most=at_most)
    if not isinstance(plain, int):
        raise InvalidArgument(f"{name}={shown(value)} must be an int{_of(bounds)}{_because(why)}")
    if _is_outside(plain, at_least, at_most):
        raise InvalidArgument(f"{name}={shown(value)} must be {bounds}{_because(why)}")
    if abs(plain) > LARGEST_COUNT:
        raise InvalidArgument(f"{name}={shown(value)} is too large: the largest int is 2**63 - 1")
    return plain


def check_number(
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    why: str = "",
) -> float:
    """Return a finite int or float within bounds; a bool is none.

    ``at_most=inf`` allows infinity.
    """
    plain = plain_number(value)
    bounds = _bounds(at_least=at_least, above=above, at_most=at_most)
    if plain is None:
        raise InvalidArgument(f"{name}={shown(value)} must be a number{_of(bounds)}{_because(why)}")
    try:
        size = float(plain)
    except OverflowError:
        size = math.inf
    is_allowed = math.isfinite(size) or (at_most == math.inf and plain == math.inf)
    if not is_allowed:
        raise InvalidArgument(f"{name}={shown(value)} must be finite{_because(why)}")
    if _is_outside(plain, at_least, at_most) or (above is not None and not plain > above):
        raise InvalidArgument(f"{name}={shown(value)} must be {bounds}{_because(why)}")
    return plain


def check_bool(name: str, value: Any) -> bool:
    """Return True or False; a word such as ``"no"`` is neither, and nor is 1."""
    plain = to_python(value)
    if not isinstance(plain, bool):
        raise InvalidArgument(f"{name}={shown(value)} must be True or False")
    return plain


def check_text(name: str, value: Any, *, lines: bool = False, why: str = "") -> str:
    """Return a text without control characters that a file can hold.

    It must not be empty.     ``lines``: it may have several lines, and tabs.
    """
    if not isinstance(value, str):
        raise InvalidArgument(f"{name}={shown(value)} must be a str{_because(why)}")
    text = str.__str__(value)  # also of a subclass, such as an enumeration's or numpy's
    if not text.strip():
        raise InvalidArgument(f"{name}={text!r} must not be empty{_because(why)}")
    if bad := unprintable(text, allowed="\n\t" if lines else ""):
        raise InvalidArgument(
            f"{name}={shown(text)} has the character {bad!a}: give "
            f"{'text' if lines else 'one line'} without control characters{_because(why)}"
        )
    return text


def check_word(name: str, value: Any) -> str:
    """Return a text without spaces, such as the name of a partition."""
    text = check_text(name, value)
    if any(character.isspace() for character in text):
        raise InvalidArgument(f"{name}={shown(text)} must be one word, without spaces")
    return text


def check_choice(name: str, value: Any, choices: Iterable[Given]) -> Given:
    """Return the one of several values that was given."""
    allowed = list(choices)
    if isinstance(value, str) and value in allowed:
        return allowed[allowed.index(value)]
    listed = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"
    raise InvalidArgument(f"{name}={shown(value)} must be {listed}")


def check_mapping(name: str, value: Any, *, of: str = "names to values") -> dict[str, Any]:
    """Return a copy of a mapping whose keys are texts."""
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{name}={shown(value)} must be a dict of {of}")
    for key in value:
        if type(to_python(key)) is not str or not key.strip() or unprintable(key):
            raise InvalidArgument(
                f"{name}: the name {shown(key)} must be a non-empty string without control "
                "characters"
            )
    return {to_python(key): item for key, item in value.items()}


def check_list(name: str, value: Any, *, of: str) -> list[Any]:
    """Return the items of a list or another ordered iterable; a text is none."""
    if isinstance(value, UNLISTED) or not isinstance(value, Iterable):
        raise InvalidArgument(f"{name}={shown(value)} must be a list of {of}")
    return list(value)


def check_lines(name: str, value: Any, *, multiline: bool = False) -> list[str]:
    """Return the lines of a list; a str is none, and an item is one line."""
    lines = check_list(name, value, of="lines, such as ['-C gpu']")
    return [check_text(f"{name}[{n}]", line, lines=multiline) for n, line in enumerate(lines)]


def check_path(name: str, value: Any) -> Path:
    """Return the path of a file or folder on this machine; ``~`` is the user's home.

    A URL would be taken for a folder whose name ends with a colon.
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise InvalidArgument(f"{name}={shown(value)} must be a path: a str or a pathlib.Path")
    text = check_text(name, os.fspath(value))
    if URL.match(text):
        raise InvalidArgument(
            f"{name}={text!r} is a URL: give a folder of this machine's file system, such as one "
            "that all machines share"
        )
    return Path(text).expanduser() if text.startswith("~") else Path(text)


def check_kind(name: str, value: Given, kind: type, such_as: str) -> Given:
    """Return an object of a class; ``such_as``: what to give instead, for the message."""
    if isinstance(value, kind):
        return value
    hint = " (an object, not the class)" if isinstance(value, type) else ""
    raise InvalidArgument(f"{name}={shown(value)} must be {such_as}{hint}")


def check_callable(name: str, value: Any, such_as: str) -> Any:
    """Return something that can be called."""
    if not callable(value):
        raise InvalidArgument(f"{name}={shown(value)} must be {such_as}")
    return value


def plain_number(value: Any) -> int | float | None:
    """Return Python's number for an int or a float, also of numpy; None for all else."""
    plain = to_python(value)
    if isinstance(plain, bool) or not isinstance(plain, (int, float)):
        return None
    return int(plain) if isinstance(plain, int) else float(plain)


def unprintable(text: str, allowed: str = "") -> str:
    """Return the first character that could be misread; ``""`` if there is none.

    These are control characters, line separators, halves of surrogate pairs (which no encoding
    can write), and marks that reverse the order of what is shown.
    """
    for character in text:
        if character in allowed or character == " ":
            continue
        if character in REVERSING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            return character
    return ""


def shown(value: Any) -> str:
    """Return a value's repr for a message: short, and safe to print."""
    return printable(short(value))


def _is_outside(value: float, at_least: float | None, at_most: float | None) -> bool:
    return (at_least is not None and value < at_least) or (at_most is not None and value > at_most)


def _bounds(
    *, at_least: float | None = None, above: float | None = None, at_most: float | None = None
) -> str:
    if at_least is not None and at_most is not None and at_most < math.inf:
        return f"between {at_least} and {at_most}"
    parts = []
    if at_least is not None:
        parts.append(f"at least {at_least}")
    if above is not None:
        parts.append(f"above {above}")
    if at_most is not None and at_most < math.inf:
        parts.append(f"at most {at_most}")
    return " and ".join(parts)


def _of(bounds: str) -> str:
    return f" of {bounds}" if bounds.startswith("at") else f" {bounds}" if bounds else ""


def _because(why: str) -> str:
    return f": {why}" if why else ""


def check_each(
    name: str, values: Sequence[Any], check: Callable[..., Given], **limits: Any
) -> list[Given]:
    """Return what a check returns for each item of a list."""
    return [check(f"{name}[{n}]", value, **limits) for n, value in enumerate(values)]
