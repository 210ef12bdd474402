"""Output of the embedded cluster's workers, printed by the user's own process.

A live panel in the terminal draws over what other processes print there. Their output therefore
comes through a pipe, and what this process prints appears above the panel.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "DASKHPO_OUTPUT"  # of the workers: the pipe


@contextlib.contextmanager
def collected_output() -> Iterator[dict[str, str]]:
    """Print what workers write, if this process prints to a terminal.

    Yields the environment variables that the workers need. All of them must have ended at its end.
    """
    if not sys.stderr.isatty() or not hasattr(os, "mkfifo"):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="daskhpo-") as folder:
        path = Path(folder) / "output"
        os.mkfifo(path, 0o600)
        end = os.open(path, os.O_RDWR)  # also for writing, so that no read sees an end
        thread = threading.Thread(target=_print, args=(end,), name="daskhpo-output", daemon=True)
        thread.start()
        try:
            yield {VARIABLE: str(path)}
        finally:
            os.set_blocking(end, False)  # the thread ends when nothing is left to read
            with contextlib.suppress(BlockingIOError):  # full: the thread is awake
                os.write(end, b"\n")
            thread.join()
            os.close(end)


def send_output() -> None:
    """Let this worker write to the pipe of the user's process, if there is one."""
    if (path := os.environ.get(VARIABLE)) is None:
        return
    with contextlib.suppress(OSError):  # then the terminal remains
        end = os.open(path, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(end, stream)
        os.close(end)


def _print(end: int) -> None:
    text = b""
    while True:
        try:
            text += os.read(end, 65536)
        except BlockingIOError:
            return
        whole, _, text = text.rpartition(b"\n")
        _write(whole.decode(errors="replace"))


def _write(text: str) -> None:
    if text:
        with contextlib.suppress(OSError, ValueError):  # the user's stream is closed
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
