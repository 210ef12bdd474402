"""Text that is safe to print: names and messages of users and their trials."""

from __future__ import annotations

import shlex


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return text with escapes for its control characters, and others without a shape.

    A terminal then shows a name as it is, instead of obeying it.

    Parameters
    ----------
    lines : True: keep line ends and tabs, as of a traceback.

    Examples
    --------
    >>> printable("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in str(text))


def shell_word(value: object) -> str:
    """Return text, such as a path, as one word of a command to paste.

    >>> shell_word("runs/my study")
    "'runs/my study'"
    """
    return shlex.quote(printable(value))
