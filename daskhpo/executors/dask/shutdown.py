"""A worker's own end: known in time, told to the study, and carried out by the worker itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from typing import Any, Protocol

from distributed.diagnostics.plugin import WorkerPlugin

from daskhpo.cluster.walltime import END_TIME, STEP_MARGIN, find_job_end, remaining_walltime

logger = logging.getLogger("daskhpo.worker")

SHUTDOWN_PLUGIN = "daskhpo-ending"
RESERVE_SECONDS = 20.0  # before the job's end: the slot is given back, the worker closes
WRITE_TIMES = 3.0  # ... and so many times what writing its states should take
CLOCK_CHECK_SECONDS = 5.0  # most between two looks at the clock
FREE_SECONDS = 3.0  # how long Dask is given to forget the leases' tasks, which it might run again


class ShutdownListener(Protocol):
    """A lease, as its worker's ending sees it."""

    def on_shutdown(self) -> None:
        """Tell your study that this slot comes to its end. Called in the event loop."""

    def write_seconds(self) -> float:
        """How long it should take to write what has to be written before the end."""


class GracefulShutdown(WorkerPlugin):  # type: ignore[misc]
    """Has the leases of a worker leave before its Slurm job ends, and then the worker retire.

    So it does on SIGTERM, which Slurm sends before it kills (``scancel``, pre-emption, a limit):
    there is then no time but until the end of the unit that is being trained.

    Made once a worker; it stays when its leases end. Methods without a word on it may be called
    from any thread.
    """

    name = SHUTDOWN_PLUGIN

    def __init__(self) -> None:
        self.signalled = False  #: by SIGTERM, as other processes of the job may be
        self._reason: str | None = None
        self._leases: set[ShutdownListener] = set()
        self._reserve = RESERVE_SECONDS
        self._watch: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watches_sigterm = False

    # -- what leases ask and say -----------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the worker is about to go."""
        return self._reason is not None

    def fits(self, seconds: float) -> bool:
        """Whether so much training can still be done here, and be handed over."""
        left = remaining_walltime()
        return not self.started and (left is None or seconds * STEP_MARGIN + self._reserve < left)

    def seconds_left(self) -> float | None:
        """Seconds until states in memory should be safe; None: no end is known."""
        return 0.0 if self.started else remaining_walltime()

    def start(self, reason: str) -> None:
        """The worker takes nothing more; it goes when its leases have ended."""
        if self._reason is None:
            self._reason = reason
            self._worker.loop.add_callback(self._announce)

    def register(self, lease: ShutdownListener) -> None:
        """A lease begins."""
        self._worker.loop.add_callback(self._registered, lease)

    def unregister(self, lease: ShutdownListener) -> None:
        """A lease has ended."""
        self._worker.loop.add_callback(self._unregistered, lease)

    # -- in the event loop -----------------------------------------------------------------------

    async def setup(self, worker: Any) -> None:
        self._worker = worker
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            worker.loop.asyncio_loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
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
        while (left := remaining_walltime()) is not None:
            write = sum(lease.write_seconds() for lease in self._leases)
            self._reserve = RESERVE_SECONDS + WRITE_TIMES * write
            if left <= self._reserve:
                self.start("its Slurm job ends")
                return
            await asyncio.sleep(min(CLOCK_CHECK_SECONDS, left - self._reserve))

    def _on_sigterm(self) -> None:
        self.signalled = True
        self.start("SIGTERM")

    def _announce(self) -> None:
        logger.info("worker %s goes: %s", self._worker.address, self._reason)
        for lease in self._leases:
            lease.on_shutdown()
        self._close_if_free()

    def _registered(self, lease: ShutdownListener) -> None:
        self._leases.add(lease)
        if self.started:
            lease.on_shutdown()

    def _unregistered(self, lease: ShutdownListener) -> None:
        self._leases.discard(lease)
        if self.started:
            self._close_if_free()

    def _close_if_free(self) -> None:
        if not self._leases and self._closing is None:
            self._closing = asyncio.create_task(self._close())

    async def _close(self) -> None:
        worker, end = self._worker, time.monotonic() + FREE_SECONDS
        while worker.state.tasks and time.monotonic() < end:
            await asyncio.sleep(0.05)
        await worker.close_gracefully(restart=False, reason=self._reason)


def shutdown_of(worker: Any) -> GracefulShutdown:
    """The worker's ending, made at the first call. Not to be called in the worker's event loop."""
    if SHUTDOWN_PLUGIN not in worker.plugins:
        add = worker.plugin_add(GracefulShutdown(), name=SHUTDOWN_PLUGIN)
        asyncio.run_coroutine_threadsafe(add, worker.loop.asyncio_loop).result()
    found: GracefulShutdown = worker.plugins[SHUTDOWN_PLUGIN]
    return found
