"""Calls of other programs, such as Slurm's commands."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from daskhpo.core.errors import DaskhpoError

Answer = TypeVar("Answer")


class CommandError(DaskhpoError):
    """A program did not do what it was called for: all that :func:`call` raises."""


class CommandMissing(CommandError, FileNotFoundError):
    """A program is not on the ``PATH``."""

    def __str__(self) -> str:  # OSError would expect an errno
        return str(self.args[0])


class CommandFailed(CommandError, RuntimeError):
    """A program failed, could not be started, or did not answer in time.

    Attributes
    ----------
    argv : program and arguments.
    code : exit code; None: it has none.
    output : standard output, then standard error.
    how : what happened.
    """

    def __init__(
        self, argv: Sequence[str], code: int | None, output: str, how: str | None = None
    ) -> None:
        super().__init__(argv, code, output, how)
        self.argv, self.code, self.output = list(argv), code, output
        self.how = how or f"ended with code {code}"

    def __str__(self) -> str:
        return f"{shlex.join(self.argv)} {self.how}: {self.output or '(no output)'}"


class CommandTimedOut(CommandFailed):
    """A program did not answer in time and was killed; what it began may have effect."""

    def __init__(self, argv: Sequence[str], output: str) -> None:
        super().__init__(argv, None, output, "did not answer in time")
        self.args = (argv, output)  # for pickle


def call(
    argv: Sequence[str],
    *,
    timeout: float = 60.0,
    text: str | None = None,
    with_errors: bool = False,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Run a program and return its standard output.

    Bytes that are no UTF-8 are replaced.

    Parameters
    ----------
    argv : program and arguments, which no shell interprets.
    timeout : seconds until the program and its children are killed.
    text : standard input; None: empty.
    with_errors : append the standard error to what is returned.
    environ : environment of the program; None: that of this process.

    Raises
    ------
    CommandError : the program is not on the ``PATH``, cannot be started, failed or took too long.
    """
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if environ is None else dict(environ),
            start_new_session=True,  # so that children die with it, and Ctrl-C is not theirs
        )
    except FileNotFoundError as error:
        raise CommandMissing(f"{argv[0]} was not found; is it on the PATH?") from error
    except (OSError, ValueError) as error:  # no permission, no memory, no program, too long
        raise CommandFailed(argv, None, str(error), "could not be started") from error
    try:
        out, err = child.communicate(None if text is None else text.encode(), timeout)
    except subprocess.TimeoutExpired as error:
        _kill(child)
        raise CommandTimedOut(argv, _joined(error.stdout, error.stderr)) from error
    except BaseException:
        _kill(child)
        raise
    if child.returncode:
        raise CommandFailed(argv, child.returncode, _joined(out, err))
    return _joined(out, err) if with_errors else out.decode(errors="replace")


async def in_thread(function: Callable[..., Answer], *args: Any) -> Answer:
    """Run a blocking function in a thread of its own, and await its result.

    An event loop can close while the thread still runs; the threads of its executor would keep it
    from closing.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Answer] = loop.create_future()

    def settle(result: Answer | None, error: BaseException | None) -> None:
        if done.done():  # cancelled
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = function(*args)
        except BaseException as raised:
            error = raised
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:  # it has closed meanwhile
                return

    threading.Thread(target=run, name=f"daskhpo-{function.__name__}", daemon=True).start()
    return await done


def _kill(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, 9)
    except OSError:
        child.kill()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()
    child.wait()


def _joined(*parts: bytes | None) -> str:
    texts = [part.decode(errors="replace") for part in parts if part]
    return "\n".join(text.strip() for text in texts if text.strip())
