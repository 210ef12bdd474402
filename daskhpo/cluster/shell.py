"""Calls of other programs, such as Slurm's commands."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from daskhpo.core.errors import DaskhpoError


class CommandMissing(DaskhpoError, FileNotFoundError):
    """A program is not on the ``PATH``."""

    def __str__(self) -> str:  # OSError would expect an errno
        return str(self.args[0])


class CommandFailed(DaskhpoError, RuntimeError):
    """A program failed, or did not answer in time.

    Attributes
    ----------
    argv : program and arguments.
    code : exit code; None: it did not answer in time.
    output : standard output, then standard error.
    """

    def __init__(self, argv: Sequence[str], code: int | None, output: str) -> None:
        super().__init__(argv, code, output)
        self.argv, self.code, self.output = list(argv), code, output

    def __str__(self) -> str:
        how = "did not answer in time" if self.code is None else f"ended with code {self.code}"
        return f"{shlex.join(self.argv)} {how}: {self.output or '(no output)'}"


def call(
    argv: Sequence[str],
    *,
    timeout: float = 60.0,
    text: str | None = None,
    with_errors: bool = False,
) -> str:
    """Run a program and return its standard output.

    Parameters
    ----------
    argv : program and arguments, which no shell interprets.
    timeout : seconds until the program is killed.
    text : standard input; None: empty.
    with_errors : append the standard error to what is returned.

    Raises
    ------
    CommandMissing, CommandFailed : the program is not on the ``PATH``; it failed or took too long.
    """
    try:
        done = subprocess.run(
            argv,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandMissing(f"{argv[0]} was not found; is it on the PATH?") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(argv, None, _joined(error.stdout, error.stderr)) from error
    if done.returncode:
        raise CommandFailed(argv, done.returncode, _joined(done.stdout, done.stderr))
    return _joined(done.stdout, done.stderr) if with_errors else done.stdout


def _joined(*parts: str | bytes | None) -> str:
    texts = [p.decode(errors="replace") if isinstance(p, bytes) else p or "" for p in parts]
    return "\n".join(text.strip() for text in texts if text.strip())
