"""Python's tracebacks: the error itself, its place, and a short one for Ctrl-C."""

from __future__ import annotations

import re
from collections.abc import Sequence

HEADER = "Traceback"
GROUP_HEADER = "+ Exception Group Traceback"
CHAIN_LINKS = (  # between the traceback of a cause and that of its consequence
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_MEMBER = re.compile(r"  (?:\+-|  )\+-+ (?:\d+|\.\.\.) -+")  # begins a member of a group
_FRAME = re.compile(r'  File "(.*)", line \d+')
_LIBRARY = re.compile(r"[/\\](?:site-packages|dist-packages|python3\.\d+)[/\\]|^<frozen ")
_VALUE = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)


class BriefInterrupt:
    """A ``with`` block that Ctrl-C leaves without a traceback of the calls in it.

    It stands in the methods that users call: their traceback ends at their own line.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            error.__traceback__ = error.__context__ = None


def headline(error: str) -> str:
    """Return the error itself in a line: type, and first line of the message.

    Parameters
    ----------
    error : a traceback, with causes, notes, or groups of exceptions; or another description, of
        which the first line counts.

    Examples
    --------
    >>> headline('''Traceback (most recent call last):
    ...   File "train.py", line 3, in train
    ... RuntimeError: CUDA error: device-side assert triggered
    ... For debugging consider passing CUDA_LAUNCH_BLOCKING=1''')
    'RuntimeError: CUDA error: device-side assert triggered'
    """
    lines = _last_block(error)
    if not _is_header(lines[0]):
        return lines[0].strip()
    if not lines[0].lstrip().startswith("+"):
        _, rest = _after_frames(lines)
        return _with_message(rest)
    return _group_headline([line[4:] for line in lines[1:] if line.startswith("  | ")], lines)


def kind(error: str) -> str:
    """Return the headline without its numbers, in which similar errors differ."""
    return _VALUE.sub("#", headline(error))


def place(error: str) -> str:
    """Return where an error was raised, as lines of its traceback; "" if unknown.

    It is the innermost call in code that is neither Python's nor a library's, if there is one.
    """
    lines = _last_block(error)
    if _is_header(lines[0]) and lines[0].lstrip().startswith("+"):
        lines = [lines[0], *(line[4:] for line in lines[1:] if line.startswith("  | "))]
    frames, _ = _after_frames(lines)
    starts = [i for i, line in enumerate(frames) if _FRAME.match(line)]
    if not starts:
        return ""
    own = [i for i in starts if not _LIBRARY.search(_FRAME.match(frames[i])[1])]  # type: ignore[index]
    chosen = (own or starts)[-1]
    shown = [frames[chosen]]
    if chosen + 1 < len(frames) and frames[chosen + 1].startswith("    "):
        shown.append(frames[chosen + 1])
    return "\n".join(shown)


def _is_header(line: str) -> bool:
    return line.strip().startswith((HEADER, GROUP_HEADER))


def _last_block(error: str) -> list[str]:
    """Return the lines of the traceback that follows those of its causes."""
    lines = error.strip("\n").splitlines() or [""]
    start = 0
    for i, line in enumerate(lines[:-2]):
        if line.strip() in CHAIN_LINKS and _is_header(lines[i + 2]):
            start = i + 2
    if start == 0:  # a description may begin with empty lines
        while len(lines) > 1 and not lines[0].strip():
            del lines[0]
    return lines[start:]


def _after_frames(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the calls of a traceback, and the lines that follow them."""
    for i, line in enumerate(lines[1:], start=1):
        if line and not line.startswith(" "):
            return [*lines[1:i]], [*lines[i:]]
    return [*lines[1:]], []


def _with_message(lines: Sequence[str]) -> str:
    """Return the line of an exception; if its message begins further below, with that."""
    if not lines:
        return ""
    first = lines[0].rstrip()
    if first.endswith(":") and " " not in first:
        first = " ".join([first, *[line.strip() for line in lines[1:] if line.strip()][:1]])
    return first


def _group_headline(own: Sequence[str], block: Sequence[str]) -> str:
    """Return a group's line, and those of the exceptions in it."""
    _, rest = _after_frames(["", *own])
    members: list[list[str]] = []
    for line in block[1:]:
        if _MEMBER.fullmatch(line):
            members.append([])
        elif members and line.startswith("    | "):
            members[-1].append(line[6:])
    named = "; ".join(headline("\n".join(lines)) for lines in members if lines)
    shown = _with_message(rest)
    return f"{shown}: {named}" if named else shown
