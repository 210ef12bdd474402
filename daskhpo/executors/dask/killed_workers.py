"""Causes of lost workers: what a nanny and the kernel say of their memory.

A nanny tells the scheduler when it ends a worker that exceeds its memory limit. Of the kernel's
kills each worker sends the number with its heartbeat; when it is lost, its nanny, which lives on,
reads the same counter again.
"""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import Any

from distributed.core import rpc
from distributed.protocol.pickle import dumps

from daskhpo.core.out_of_memory import MemoryKind
from daskhpo.executors.dask.oom_kills import kill_counter, read_kills

logger = logging.getLogger("daskhpo")

KILLS = "daskhpo-kills"  # in a worker's heartbeat
MEMORY_RESTARTS = "worker-restart-memory"  # Dask's topic of workers that their nannies end
ASK_SECONDS = 2.0  # longest wait for a nanny: it may be gone, too


def send_kills(worker: Any) -> None:
    """Let a worker send the kernel's count of kills with each heartbeat."""
    worker.metrics.setdefault(KILLS, _count)


@cache
def _counter() -> str:
    return kill_counter()


def n_kills() -> int:
    """Return the kernel's count of kills for want of memory around this process."""
    return read_kills(_counter()) or 0


def _count(worker: Any) -> tuple[str, int] | None:
    found = read_kills(_counter())
    return None if found is None else (_counter(), found)


class KilledWorkers:
    """The lost workers of a scheduler, in its event loop.

    Parameters
    ----------
    scheduler : Dask's scheduler.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._states: dict[str, Any] = {}  # of workers with a lease, also after they are lost
        self._over_limit: set[str] = set()

    def watch(self, worker: str) -> None:
        """Note a worker that takes a lease."""
        self._states[worker] = self._scheduler.workers.get(worker)
        self._over_limit.discard(worker)

    def on_memory_restart(self, message: Any) -> None:
        """Note that a nanny ends its worker, because that exceeds its memory limit."""
        if isinstance(message, dict) and message.get("worker") in self._states:
            self._over_limit.add(message["worker"])

    async def cause(self, worker: str) -> MemoryKind | None:
        """Return the memory that a lost worker lacked; None: no sign of that."""
        state = self._states.pop(worker, None)
        found = None if state is None else await self._killed(state)
        if worker in self._over_limit:  # the nanny's message may have come meanwhile
            self._over_limit.discard(worker)
            return MemoryKind.LIMIT
        return found

    async def _killed(self, state: Any) -> MemoryKind | None:
        before = state.metrics.get(KILLS)
        if not state.nanny or before is None:
            return None
        path, n_before = before
        try:
            async with (
                asyncio.timeout(ASK_SECONDS),
                rpc(state.nanny, connection_args=self._scheduler.connection_args) as nanny,
            ):
                answer = await nanny.run(function=dumps(read_kills), args=dumps((path,)))
        except (OSError, TimeoutError) as error:
            logger.debug("the nanny of %s does not say how it ended: %r", state.address, error)
            return None
        now = answer.get("result") if answer.get("status") == "OK" else None
        return MemoryKind.HOST if now is not None and now > n_before else None
