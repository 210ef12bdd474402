"""Shutdown of a worker on SIGTERM or before its walltime: notify, save, retire."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from distributed.diagnostics.plugin import WorkerPlugin

from daskhpo.cluster.walltime import (
    END_TIME,
    WalltimeReserve,
    find_job_end,
    remaining_walltime,
)

logger = logging.getLogger("daskhpo.worker")

SHUTDOWN_PLUGIN = "daskhpo-ending"
RESERVE_SECONDS = 20.0  # before the job's end: the slot is released, the worker closes
WRITE_TIMES = 3.0  # ... plus so many times the expected time of the worker's writes
CLOCK_CHECK_SECONDS = 5.0  # longest time between two checks of the clock
FREE_SECONDS = 3.0  # for Dask to forget the leases' tasks; else it might run them again


class ShutdownListener(Protocol):
    """A lease, as its worker's shutdown sees it."""

    def on_shutdown(self) -> None:
        """Notify the study that this slot is about to end. Called in the event loop."""

    def write_seconds(self) -> float:
        """Estimate the seconds that the writes before the end take."""


class GracefulShutdown:
    """The end of a worker: it takes no more work, its leases end, and then it retires.

    It starts before the worker's Slurm job ends, or on SIGTERM, which Slurm sends before it kills
    (``scancel``, preemption, a limit); then there is time only until the current unit ends.

    There is one per worker; it stays when its leases end. Methods are thread-safe unless noted.

    Parameters
    ----------
    in_loop : calls a function in the worker's event loop, soon. Thread-safe.
    retire : closes the worker, or restarts it (True); called once, in the event loop, when no lease
        is left.
    remaining : returns the seconds until the worker's Slurm job ends; None: no end is known.
    """

    def __init__(
        self,
        in_loop: Callable[..., None],
        retire: Callable[[str, bool], None],
        remaining: Callable[[], float | None] = remaining_walltime,
    ) -> None:
        self.signalled = False  #: by SIGTERM, which other processes of the job may also get
        self._in_loop, self._retire, self._remaining = in_loop, retire, remaining
        self._reason: str | None = None
        self._restart = False
        self._leases: set[ShutdownListener] = set()
        self._reserve = WalltimeReserve(RESERVE_SECONDS)
        self._has_retired = False

    # -- for leases ------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """True if the worker is about to leave."""
        return self._reason is not None

    def fits(self, seconds: float) -> bool:
        """True if ``seconds`` of training, and then preemption, still fit here."""
        return not self.started and self._reserve.fits(seconds, self._remaining())

    def seconds_left(self) -> float | None:
        """Return the seconds until states should be written; None: no end is known."""
        return 0.0 if self.started else self._remaining()

    def start(self, reason: str, *, restart: bool = False) -> None:
        """Stop taking work; the worker leaves when its leases have ended.

        ``restart``: its nanny, if there is one, then starts a new process.
        """
        if self._reason is None:
            self._reason, self._restart = reason, restart
            self._in_loop(self._announce)

    def register(self, lease: ShutdownListener) -> None:
        """Add a lease that begins."""
        self._in_loop(self._registered, lease)

    def unregister(self, lease: ShutdownListener) -> None:
        """Remove a lease that has ended."""
        self._in_loop(self._unregistered, lease)

    # -- in the event loop -----------------------------------------------------------------------

    def on_sigterm(self) -> None:
        """Handle SIGTERM."""
        self.signalled = True
        self.start("SIGTERM")

    def check_clock(self) -> float | None:
        """Start if the job is about to end; return the seconds until the next check.

        None: no more checks are needed.
        """
        if (left := self._remaining()) is None:
            return None
        write = sum(lease.write_seconds() for lease in self._leases)
        self._reserve = WalltimeReserve(RESERVE_SECONDS + WRITE_TIMES * write)
        if not self._reserve.fits(0.0, left):
            self.start("its Slurm job ends")
            return None
        return min(CLOCK_CHECK_SECONDS, left - self._reserve.seconds)

    def _announce(self) -> None:
        logger.info("this worker leaves: %s", self._reason)
        for lease in self._leases:
            lease.on_shutdown()
        self._retire_if_free()

    def _registered(self, lease: ShutdownListener) -> None:
        self._leases.add(lease)
        if self.started:
            lease.on_shutdown()

    def _unregistered(self, lease: ShutdownListener) -> None:
        self._leases.discard(lease)
        if self.started:
            self._retire_if_free()

    def _retire_if_free(self) -> None:
        if self._reason is not None and not self._leases and not self._has_retired:
            self._has_retired = True
            self._retire(self._reason, self._restart)


class ShutdownPlugin(WorkerPlugin):  # type: ignore[misc]
    """Worker plugin that runs a worker's :class:`GracefulShutdown`."""

    name = SHUTDOWN_PLUGIN

    def __init__(self) -> None:
        self.shutdown: GracefulShutdown
        self._watch: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watches_sigterm = False

    async def setup(self, worker: Any) -> None:
        self._worker = worker
        self.shutdown = GracefulShutdown(worker.loop.add_callback, self._retire)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            loop = worker.loop.asyncio_loop
            loop.add_signal_handler(signal.SIGTERM, self.shutdown.on_sigterm)
            self._watches_sigterm = True
        if END_TIME not in os.environ and "SLURM_JOB_ID" in os.environ:
            end = await asyncio.to_thread(find_job_end)
            if end is not None:
                os.environ[END_TIME] = str(int(end))
        self._watch = asyncio.create_task(self._watch_the_clock())

    async def teardown(self, worker: Any) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._watches_sigterm:
            worker.loop.asyncio_loop.remove_signal_handler(signal.SIGTERM)

    async def _watch_the_clock(self) -> None:
        while (seconds := self.shutdown.check_clock()) is not None:
            await asyncio.sleep(seconds)

    def _retire(self, reason: str, restart: bool) -> None:
        self._closing = asyncio.create_task(self._close(reason, restart))

    async def _close(self, reason: str, restart: bool) -> None:
        worker, end = self._worker, time.monotonic() + FREE_SECONDS
        while worker.state.tasks and time.monotonic() < end:
            await asyncio.sleep(0.05)
        await worker.close_gracefully(restart=restart, reason=reason)


def shutdown_of(worker: Any) -> GracefulShutdown:
    """Return the worker's shutdown, made at the first call.

    Must not be called in the worker's event loop.
    """
    if SHUTDOWN_PLUGIN not in worker.plugins:
        add = worker.plugin_add(ShutdownPlugin(), name=SHUTDOWN_PLUGIN)
        asyncio.run_coroutine_threadsafe(add, worker.loop.asyncio_loop).result()
    plugin: ShutdownPlugin = worker.plugins[SHUTDOWN_PLUGIN]
    return plugin.shutdown
