"""A running program with all its processes: frozen, continued, stopped, read."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

FROZEN = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
WRITE_SECONDS = 10.0  # to wait until it writes to no file of a folder


class Program:
    """A program, and the processes that it starts."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,  # so that a signal reaches all its processes, and no other
        )
        threading.Thread(target=self._pump, daemon=True).start()

    def line(self, timeout: float | None) -> str | None:
        """Return the next line that it prints; None, and always None, after the last.

        Raises
        ------
        queue.Empty : it has printed none within ``timeout`` seconds.
        """
        line = self._lines.get(timeout=timeout)
        if line is None:
            self._lines.put(None)
        return line

    def freeze(self) -> None:
        """Let it run no further."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def freeze_between_writes(self, folder: Path) -> None:
        """Freeze it when none of its processes has a file of a folder open to write.

        After `WRITE_SECONDS` it is frozen anyway.
        """
        deadline = time.monotonic() + WRITE_SECONDS
        while not self._is_quiet(folder) and time.monotonic() < deadline:
            self.go_on()
            time.sleep(0.005)

    def stop(self, grace: float) -> None:
        """End it and its processes by SIGTERM, after ``grace`` seconds by SIGKILL."""
        self._signal(signal.SIGTERM)
        self.go_on()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self._signal(signal.SIGKILL)  # also what it has left behind
        self._process.wait()

    def wait(self) -> int:
        """Wait until it has ended, and return its exit status; negative: of a signal."""
        return self._process.wait()

    def remaining_lines(self) -> Iterator[str]:
        """Yield what it has printed and was not read yet, until its end."""
        while (line := self.line(None)) is not None:
            yield line

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _is_quiet(self, folder: Path) -> bool:
        """Freeze it; return True if none of its processes has a file there open to write."""
        self.freeze()
        if self._process.poll() is not None:
            return True
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self._process.pid)
            return not any(_writes(each, folder) for each in (own, *own.children(recursive=True)))
        return True

    def _pump(self) -> None:
        """Put each line that it prints into the queue, and None at its end."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            left = b""
            while chunk := output.read1(65536):  # type: ignore[attr-defined]
                *complete, left = (left + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in complete:
                    self._lines.put(line.decode(errors="replace"))
            if left:
                self._lines.put(left.decode(errors="replace"))
        self._lines.put(None)


def _writes(process: psutil.Process, folder: Path) -> bool:
    """Return True if a process does not freeze, or may write a file of a folder."""
    try:
        deadline = time.monotonic() + 1.0
        while process.status() not in FROZEN:  # it may be in a call of the system's
            if time.monotonic() > deadline:
                return True
            time.sleep(0.001)
        return any(
            file.path.startswith(str(folder)) and getattr(file, "mode", "w") != "r"
            for file in process.open_files()
        )
    except psutil.Error:  # it has ended
        return False
