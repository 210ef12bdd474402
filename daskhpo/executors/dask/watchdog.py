"""Watchdog of a slot: limits of a trial that its code cannot be asked to keep."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from daskhpo.core.out_of_memory import MemoryKind
from daskhpo.executors.dask.children import ChildProcesses

CHECK_LIMITS_SECONDS = 1.0


@dataclass(frozen=True)
class Breach:
    """A limit that is broken; ``lacked``: it is one of memory."""

    error: str
    lacked: MemoryKind | None = None


class BreachListener(Protocol):
    """The slot, as its watchdog sees it."""

    def on_breach(self, breach: Breach) -> None:
        """Handle a limit that was broken; called once, in the watchdog's thread."""


class Watchdog:
    """Watches the time since a trial's last report, and the memory of its processes.

    Parameters
    ----------
    step_timeout : seconds that code may run without a report; None: no limit.
    memory_limit : bytes of this process and its children; None: no limit.
    children : processes that the trial has started.
    """

    def __init__(
        self, step_timeout: float | None, memory_limit: int | None, children: ChildProcesses
    ) -> None:
        self._step_timeout, self._memory_limit = step_timeout, memory_limit
        self._children = children
        self._since: float | None = None  # begin of a unit; None: no code of the user runs
        self._thread = 0  # that runs it
        self._ended = threading.Event()

    @contextlib.contextmanager
    def watching(self, listener: BreachListener) -> Iterator[None]:
        """Watch a slot, as long as the block runs."""
        if self._step_timeout is None and self._memory_limit is None:
            yield
            return
        thread = threading.Thread(
            target=self._watch, args=(listener,), name="daskhpo-watchdog", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            self._ended.set()

    @contextlib.contextmanager
    def code_runs(self) -> Iterator[None]:
        """Count the time of the block, in which this thread runs the user's code."""
        self._thread = threading.get_ident()
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def unit_ended(self) -> None:
        """Count from now on: a unit of training has ended."""
        if self._since is not None:
            self._since = time.monotonic()

    def _watch(self, listener: BreachListener) -> None:
        pause = min(CHECK_LIMITS_SECONDS, (self._step_timeout or CHECK_LIMITS_SECONDS) / 4)
        while not self._ended.wait(pause):
            if (found := self.check(time.monotonic())) is not None:
                listener.on_breach(found)
                return

    def check(self, now: float) -> Breach | None:
        """Return the limit that is broken, if one is."""
        since, limit = self._since, self._step_timeout
        if since is None:
            return None
        if limit is not None and now - since > limit:
            text = f"StepTimeout: {now - since:.0f} s without a report; step_timeout={limit:g} s"
            return Breach(f"{stack_of(self._thread)}{text}")
        if self._memory_limit is not None:
            n_bytes = self._children.n_bytes()
            if n_bytes > self._memory_limit:
                gigabytes = (
                    f"{n_bytes / 1e9:.2f} GB; memory_limit={self._memory_limit / 1e9:.2f} GB"
                )
                error = f"MemoryLimit: the trial's processes use {gigabytes}"
                return Breach(error, MemoryKind.LIMIT)
        return None


def stack_of(thread: int) -> str:
    """Return where a trial's code is, as a traceback without its last line.

    A function runs in a thread of its own, for which the slot's thread waits.
    """
    frames = sys._current_frames()
    names = {one.ident: one.name for one in threading.enumerate()}
    own = next((i for i, name in names.items() if name.startswith("trial-")), thread)
    frame: FrameType | None = frames.get(own or thread)
    if frame is None:
        return ""
    lines = "".join(traceback.format_stack(frame))
    return f"Traceback (most recent call last):\n{lines}"
