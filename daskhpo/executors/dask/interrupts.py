"""Ctrl-C where a study starts and ends: what has begun is completed, or undone."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import TypeVar

HURRY_SECONDS = 0.05  # between two calls of ``hurry``

Outcome = TypeVar("Outcome")


def completed(act: Callable[[], Outcome], hurry: Callable[[], None] = lambda: None) -> Outcome:
    """Call a function in another thread, and wait for its end also after Ctrl-C.

    No process that it starts sees the terminal's Ctrl-C, not even before its first line of Python.

    Parameters
    ----------
    act : the function.
    hurry : called again and again after Ctrl-C, until ``act`` has ended.

    Raises
    ------
    KeyboardInterrupt : Ctrl-C was pressed; ``act`` has ended.
    """
    results: list[Outcome] = []
    errors: list[BaseException] = []

    over = threading.Event()  # an interrupted `join` may take a thread for ended

    def run() -> None:
        try:
            results.append(act())
        except BaseException as error:
            errors.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=run, name="daskhpo-start-or-end", daemon=True)
    interrupted = False
    resource_tracker.ensure_running()  # else multiprocessing does, and then unblocks the signal
    try:
        with _blocked_sigint():  # threads and processes inherit that
            thread.start()
        over.wait()
    except KeyboardInterrupt:
        interrupted = True
    while thread.ident is not None and not over.is_set():
        with contextlib.suppress(KeyboardInterrupt):
            hurry()
            over.wait(HURRY_SECONDS)
    if interrupted:
        raise KeyboardInterrupt
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def _blocked_sigint() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
