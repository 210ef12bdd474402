"""Output of trials: what each prints, logs and warns of, in a file of its own."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import open_to_append

LOG_VARIABLE = "DASKHPO_TRIAL_LOG"  # of processes that a trial starts: its file
FLUSH_SECONDS = 1.0  # least time between two writes to a file
FLUSH_CHARACTERS = 8192
MAX_BYTES = 10_000_000  # of a file; then it becomes the older one, of which there is one
OTHER_THREADS = (
    "Dask",
    "daskhpo",
    "IO loop",
    "Profile",
    "TCP-Executor",
    "ThreadPoolExecutor",
    "asyncio",
)


def log_path(directory: Path, trial: int) -> Path:
    """Return the file of a trial's output, in its study's directory."""
    return directory / "logs" / f"{trial}.log"


def older_path(path: Path) -> Path:
    """Return the file in which the older half of a long output is."""
    return path.with_name(path.name + ".1")


def tail(path: Path, n_bytes: int = 4_000) -> str:
    """Return the last whole lines of a trial's output; "": there is none."""
    try:
        with path.open("rb") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - n_bytes)
            file.seek(begin)
            text = file.read(n_bytes).decode(errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[2] or text if begin else text


class TrialLog:
    """The file of a trial's output, which appears with its first text. Thread-safe.

    It is written in few pieces: at once if the last one is a second old, else a second later. Each
    piece opens the file again, so that other machines see it, and child processes may write, too.

    Parameters
    ----------
    attempt : number of the trial's attempt, whose output begins with a line that says so; 0: with
        none.
    is_child : True: this is a process that the trial has started, whose end is not seen: each line
        is written at once.
    """

    def __init__(self, path: str, attempt: int = 0, *, is_child: bool = False) -> None:
        self.path, self.is_child = path, is_child
        self._attempt, self._buffer = attempt, ""
        self._flushed_at = 0.0
        self._timer: threading.Timer | None = None
        self._is_broken = self._is_used = False
        self._lock = threading.Lock()
        _LOGS.add(self)

    def be_child(self) -> None:
        """Begin again after a fork: no other thread is left, and the buffer is written."""
        self._lock, self._buffer, self._attempt = threading.Lock(), "", 0
        self.is_child, self._timer = True, None

    def write(self, text: str) -> None:
        """Add text; it raises nothing."""
        if self._is_broken or not text:
            return
        with self._lock:
            if not self._is_used and self._attempt:
                self._buffer = _title(self._attempt)
            self._is_used = True
            self._buffer += text
            if self.is_child:
                if "\n" in text or len(self._buffer) > FLUSH_CHARACTERS:
                    self._write()
                return
            is_due = time.monotonic() - self._flushed_at > FLUSH_SECONDS and text.endswith("\n")
            if is_due or len(self._buffer) > FLUSH_CHARACTERS:
                self._write()
            elif self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self.flush)
                self._timer.name, self._timer.daemon = "daskhpo-output", True
                self._timer.start()

    def flush(self) -> None:
        """Write what there is."""
        if not self._is_used:
            return
        with self._lock:
            self._timer = None
            self._write()

    def close(self) -> None:
        """Write what there is, and wait for nothing more."""
        if (timer := self._timer) is not None:
            timer.cancel()
        self.flush()

    def _write(self) -> None:
        text, self._buffer = self._buffer, ""
        if not text or self._is_broken:
            return
        try:
            folder = os.path.dirname(self.path)
            os.makedirs(folder, exist_ok=True)
            if os.path.islink(folder):
                raise OSError(f"{folder} is a link")
            handle = open_to_append(Path(self.path))
            try:
                os.write(handle, text.encode(errors="replace"))
                is_full = os.fstat(handle).st_size > MAX_BYTES
            finally:
                os.close(handle)
            if is_full:
                os.replace(self.path, older_path(Path(self.path)))
        except OSError as error:  # the trial's own work is not to fail for it
            self._is_broken = True
            with contextlib.suppress(Exception):
                sys.__stderr__.write(f"{self.path} cannot be written: {error}\n")  # type: ignore[union-attr]
        self._flushed_at = time.monotonic()


def _title(attempt: int) -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"[attempt {attempt} on {socket.gethostname()}, process {os.getpid()}, {now}]\n"


class OutputRouter:
    """A stream that copies what trials write to it into their files."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> Any:
        n = self.stream.write(text)
        if (log := _current()) is not None:
            log.write(text)
        return n

    def flush(self) -> None:
        self.stream.flush()
        if (log := _current()) is not None and log.is_child:  # perhaps it ends now
            log.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class TrialOutput:
    """The output of a slot's trials, one after another, on its way to their files.

    Parameters
    ----------
    directory : of the study; None: the output goes to no file.
    is_own : True: this process serves only trials, one at a time, so that children which it starts
        learn where to write.
    """

    def __init__(self, directory: Path | None = None, *, is_own: bool = False) -> None:
        self._folder = "" if directory is None else str(directory / "logs") + os.sep
        self._is_own = is_own
        self._log: TrialLog | None = None
        self._token: contextvars.Token[TrialLog | None]

    @contextlib.contextmanager
    def routed(self) -> Iterator[None]:
        """Route the output of this process while the block runs."""
        if not self._folder:
            yield
            return
        with _LOCK:
            _install(+1)
        try:
            yield
        finally:
            self.end()
            with _LOCK:
                _install(-1)

    def begin(self, trial: int, attempt: int) -> None:
        """Let the output of this thread, and of those that it starts, be a trial's."""
        self.end()
        if not self._folder:
            return
        path = f"{self._folder}{trial}.log"  # as `log_path`, which takes ten times as long
        self._log = TrialLog(path, attempt)
        self._token = _LOG.set(self._log)
        _ACTIVE.append(self._log)
        if self._is_own:
            os.environ[LOG_VARIABLE] = path

    def end(self) -> None:
        """Let no further output be the trial's, and write what there is."""
        log, self._log = self._log, None
        if log is None:
            return
        _ACTIVE.remove(log)
        with contextlib.suppress(ValueError):  # the end of a lease in another context
            _LOG.reset(self._token)
        if self._is_own:
            os.environ.pop(LOG_VARIABLE, None)
        log.close()


def join_parent() -> None:
    """Write the output of this process to the file of the trial that started it."""
    if (path := os.environ.get(LOG_VARIABLE)) is None or _ACTIVE:
        return
    log = TrialLog(path, is_child=True)
    _ACTIVE.append(log)
    atexit.register(log.flush)
    with _LOCK:
        _install(+1)
    _OLD_THREADS.clear()  # all threads are the trial's


_LOCK = threading.Lock()
_LOGS: weakref.WeakSet[TrialLog] = weakref.WeakSet()
_LOG: contextvars.ContextVar[TrialLog | None] = contextvars.ContextVar("trial-log", default=None)
_ACTIVE: list[TrialLog] = []  # of the trials that this process trains
_OLD_THREADS: set[int] = set()  # threads that no trial has started
_ROUTERS: dict[str, OutputRouter] = {}
_n_users = [0]


def _current() -> TrialLog | None:
    """Return the file of the trial that this thread works for, if that can be told."""
    if (log := _LOG.get()) is not None:
        return log
    if len(_ACTIVE) != 1 or threading.get_ident() in _OLD_THREADS:
        return None
    thread = threading.current_thread().name
    return None if thread.startswith(OTHER_THREADS) else _ACTIVE[0]


def _install(change: int) -> None:
    """Replace the streams for the first user, and put them back after the last one."""
    _n_users[0] += change
    if change > 0 and _n_users[0] == 1:
        _OLD_THREADS.update(thread.ident or 0 for thread in threading.enumerate())
        _OLD_THREADS.discard(threading.get_ident())
        for name in ("stdout", "stderr"):
            if (stream := getattr(sys, name)) is not None:
                _ROUTERS[name] = OutputRouter(stream)
                setattr(sys, name, _ROUTERS[name])
    elif _n_users[0] == 0:
        _OLD_THREADS.clear()
        for name, router in _ROUTERS.items():
            if getattr(sys, name) is router:  # else other code has replaced it meanwhile
                setattr(sys, name, router.stream)
        _ROUTERS.clear()


def _before_fork() -> None:
    for log in [*_ACTIVE]:
        log.flush()


def _after_fork() -> None:
    for log in _LOGS:
        log.be_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
