"""A worker's own end: known in time, told to the study, and carried out by the worker itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections import deque
from typing import Any, Protocol

from distributed.diagnostics.plugin import WorkerPlugin

from daskhpo.cluster.walltime import END_TIME, find_job_end, remaining_walltime

logger = logging.getLogger("daskhpo.worker")

NAME = "daskhpo-ending"
RESERVE_SECONDS = 20.0  # before the job's end: the slot is given back, the worker closes
WRITE_TIMES = 3.0  # ... and so many times what writing its states should take
UNIT_MARGIN = 1.2  # a unit may take longer than the last few by this factor
LOOK_SECONDS = 5.0  # most between two looks at the clock
FREE_SECONDS = 3.0  # how long Dask is given to forget the leases' tasks, which it might run again


class Tenant(Protocol):
    """A lease, as its worker's ending sees it."""

    def leaves(self) -> None:
        """Tell your study that this slot comes to its end. Called in the event loop."""

    def write_seconds(self) -> float:
        """How long it should take to write what has to be written before the end."""


class Ending(WorkerPlugin):  # type: ignore[misc]
    """Has the leases of a worker leave before its Slurm job ends, and then the worker retire.

    So it does on SIGTERM, which Slurm sends before it kills (``scancel``, pre-emption, a limit):
    there is then no time but until the end of the unit that is being trained.

    Made once a worker; it stays when its leases end. Methods without a word on it may be called
    from any thread.
    """

    name = NAME

    def __init__(self) -> None:
        self.signalled = False  #: by SIGTERM, as other processes of the job may be
        self._reason: str | None = None
        self._tenants: set[Tenant] = set()
        self._reserve = RESERVE_SECONDS
        self._watch: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watches_sigterm = False

    # -- what leases ask and say -----------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether the worker is about to go."""
        return self._reason is not None

    def fits(self, seconds: float) -> bool:
        """Whether so much training can still be done here, and be handed over."""
        left = remaining_walltime()
        return not self.begun and (left is None or seconds * UNIT_MARGIN + self._reserve < left)

    def seconds_left(self) -> float | None:
        """Seconds until states in memory should be safe; None: no end is known."""
        return 0.0 if self.begun else remaining_walltime()

    def begin(self, reason: str) -> None:
        """The worker takes nothing more; it goes when its leases have ended."""
        if self._reason is None:
            self._reason = reason
            self._worker.loop.add_callback(self._announce)

    def enter(self, tenant: Tenant) -> None:
        """A lease begins."""
        self._worker.loop.add_callback(self._entered, tenant)

    def leave(self, tenant: Tenant) -> None:
        """A lease has ended."""
        self._worker.loop.add_callback(self._left, tenant)

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
            write = sum(tenant.write_seconds() for tenant in self._tenants)
            self._reserve = RESERVE_SECONDS + WRITE_TIMES * write
            if left <= self._reserve:
                self.begin("its Slurm job ends")
                return
            await asyncio.sleep(min(LOOK_SECONDS, left - self._reserve))

    def _on_sigterm(self) -> None:
        self.signalled = True
        self.begin("SIGTERM")

    def _announce(self) -> None:
        logger.info("worker %s goes: %s", self._worker.address, self._reason)
        for tenant in self._tenants:
            tenant.leaves()
        self._close_if_free()

    def _entered(self, tenant: Tenant) -> None:
        self._tenants.add(tenant)
        if self.begun:
            tenant.leaves()

    def _left(self, tenant: Tenant) -> None:
        self._tenants.discard(tenant)
        if self.begun:
            self._close_if_free()

    def _close_if_free(self) -> None:
        if not self._tenants and self._closing is None:
            self._closing = asyncio.create_task(self._close())

    async def _close(self) -> None:
        worker, end = self._worker, time.monotonic() + FREE_SECONDS
        while worker.state.tasks and time.monotonic() < end:
            await asyncio.sleep(0.05)
        await worker.close_gracefully(restart=False, reason=self._reason)


class Pace:
    """How long a unit of training takes in a slot, by the last few."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=3)

    def saw(self, seconds: float) -> None:
        """A unit took so long."""
        self._seconds.append(seconds)

    @property
    def longest(self) -> float:
        """Seconds to be prepared for; 0 before the first unit."""
        return max(self._seconds, default=0.0)


def ending_of(worker: Any) -> Ending:
    """The worker's ending, made at the first call. Not to be called in the worker's event loop."""
    if NAME not in worker.plugins:
        add = worker.plugin_add(Ending(), name=NAME)
        asyncio.run_coroutine_threadsafe(add, worker.loop.asyncio_loop).result()
    found: Ending = worker.plugins[NAME]
    return found
