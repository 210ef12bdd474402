"""Leases of a study on the workers of a Dask scheduler."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from daskhpo.core.errors import NoSuitableWorkers
from daskhpo.core.resource_names import hint, meant
from daskhpo.executors.dask.broker import Broker
from daskhpo.executors.dask.channel import FatalError, Inbox, LeaseLost, ReleaseSlot, RequestStop
from daskhpo.executors.dask.lease import TELL, LeaseSpec, lease
from daskhpo.executors.dask.protocol import ORDERS, LeaseOrder

logger = logging.getLogger("daskhpo")

LEASE_END_SECONDS = 10.0  # longest wait for leases to end, at the end of a study


class LeaseManager:
    """The leases of one study: a tenant of the broker, which assigns workers.

    It runs in the scheduler's event loop; methods for the coordinator's thread are thread-safe.

    Parameters
    ----------
    scheduler : Dask's scheduler.
    client : an asynchronous client of it, which submits the leases.
    spec : what each lease gets.
    inbox : receives the ends of leases, and requests to release slots.
    """

    def __init__(self, scheduler: Any, client: Any, spec: LeaseSpec, inbox: Inbox) -> None:
        self._scheduler, self._client = scheduler, client
        self._spec, self._inbox = spec, inbox
        self._resources = spec.options.resources
        self._loop = asyncio.get_running_loop()
        self._leases: dict[int, tuple[str, Any]] = {}  # slot: (worker, future)
        self._slot_of: dict[str, int] = {}  # by worker
        self._n_leases = 0
        self._ended: dict[int, asyncio.Event] = {}  # set when the slot's lease has ended
        self._tasks: set[asyncio.Task[None]] = set()  # one for each lease
        self._watch: asyncio.Task[None] | None = None
        self._idle: frozenset[int] = frozenset()
        self.wanted = float("inf")  #: slots that the study could fill now
        self.max_slots = spec.options.max_concurrent or float("inf")
        self._broker = scheduler.extensions.setdefault("daskhpo", Broker(scheduler.workers))

    def open(self) -> None:
        """Begin to take workers."""
        self._broker.join(self)
        self._watch = self._loop.create_task(self._watch_worker_count())

    async def close(self) -> None:
        """Take no more workers, and wait `LEASE_END_SECONDS` for the leases to end."""
        self._broker.leave(self)
        if self._watch is not None:
            self._watch.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEASE_END_SECONDS)

    @property
    def busy_workers(self) -> list[str]:
        """Addresses of workers whose lease has not ended."""
        return [worker for worker, _ in self._leases.values()]

    async def wait(self) -> None:
        """Wait for code that does not return; until then no other study gets its worker."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def __contains__(self, slot: int) -> bool:
        return slot in self._leases

    def end_of(self, slot: int) -> asyncio.Event:
        """Return an event that is set when the lease of a slot has ended."""
        return self._ended[slot]

    # -- for the coordinator's thread ------------------------------------------------------------

    def tell(self, slot: int, order: LeaseOrder) -> None:
        """Send an order to a lease, which may be busy."""
        self._loop.call_soon_threadsafe(self._send, slot, ORDERS.encode(order))

    def set_idle(self, slots: frozenset[int]) -> None:
        """Receive the slots that wait for a trial."""
        self._idle = slots

    def set_wanted(self, n_slots: float) -> None:
        """Receive the number of slots that the study could fill now."""
        self.wanted = min(self.max_slots, n_slots)

    def _send(self, slot: int, order: Any) -> None:
        worker, _ = self._leases.get(slot, (None, None))
        if worker in self._scheduler.stream_comms:
            message = {"op": TELL, "study": self._spec.study, "slot": slot, "order": order}
            self._scheduler.stream_comms[worker].send(message)

    # -- for the scheduler plugin ----------------------------------------------------------------

    def on_worker_added(self) -> None:
        """Let the broker assign the new worker."""
        self._broker.share()

    def on_worker_removed(self, worker: str) -> None:
        """Handle the loss of a worker."""
        if (slot := self._slot_of.get(worker)) is not None:
            self._end(slot, f"worker {worker} was lost")
        self._broker.forget(worker)

    def on_leaving(self, slot: int) -> None:
        """Handle a worker that is about to leave."""
        worker, _ = self._leases.get(slot, (None, None))
        if worker is not None:
            self._broker.retire(worker)

    # -- a `Tenant` of the broker ----------------------------------------------------------------

    def is_idle(self, worker: str) -> bool:
        return self._slot_of.get(worker) in self._idle

    def stop(self, reason: str) -> None:
        self._inbox.put(RequestStop(reason))

    def can_use(self, worker: Any) -> bool:
        return worker.nthreads >= self._resources.get("cpu", 1) and all(
            worker.resources.get(name, 0) >= amount
            for name, amount in _dask_resources(self._resources).items()
        )

    def take(self, worker: str) -> None:
        slot = self._n_leases
        self._n_leases += 1
        future = self._client.submit(
            lease,
            self._spec,
            slot,
            self._device_index(worker),
            key=f"{self._spec.study}-slot-{slot}",
            workers=[worker],
            allow_other_workers=False,
            resources=_dask_resources(self._resources) or None,
            pure=False,
            retries=0,
        )
        self._leases[slot] = (worker, future)
        self._slot_of[worker] = slot
        self._ended[slot] = asyncio.Event()
        task = self._loop.create_task(self._watch_lease(slot, future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def give_back(self, worker: str) -> None:
        self._inbox.put(ReleaseSlot(self._slot_of[worker]))

    # -- leases ----------------------------------------------------------------------------------

    async def _watch_lease(self, slot: int, future: Any) -> None:
        try:
            await future
            reason = "its lease ended"
        except Exception as error:
            reason = f"its lease failed: {error!r}"
        self._end(slot, reason)

    def _end(self, slot: int, reason: str) -> None:
        if slot not in self._leases:
            return
        worker, future = self._leases.pop(slot)
        self._ended.pop(slot).set()
        del self._slot_of[worker]
        future.release()  # else Dask waits for the worker to return
        self._inbox.put(LeaseLost(slot, reason))
        self._broker.release(worker)

    def _device_index(self, worker: str) -> int:
        """Return the index of a worker's first device, among those of its host.

        Each worker of a host gets the lowest share that no other worker there has.
        """
        gpus = self._resources.get("gpu", 0)
        if not gpus:
            return 0
        taken: dict[str, tuple[str, int]] = self._scheduler.extensions.setdefault(
            "daskhpo-devices", {}
        )
        workers = self._scheduler.workers
        host = workers[worker].host
        used = {
            share
            for other, (its_host, share) in taken.items()
            if its_host == host and other in workers and other != worker
        }
        if worker not in taken:
            share = next(n for n in range(len(used) + 1) if n not in used)
            taken[worker] = (host, share)
        per_worker = workers[worker].resources.get("GPU", gpus)
        return int(taken[worker][1] * per_worker)

    async def _watch_worker_count(self) -> None:
        """Warn if no worker can run a trial, and give up after ``worker_timeout``."""
        limit = self._spec.options.worker_timeout
        if any(meant(name) for name in self._unknown()):  # waiting would not help
            self._inbox.put(FatalError(NoSuitableWorkers(self._shortage())))
            return
        began, has_warned = time.monotonic(), False
        while not self._leases:
            if limit is not None and time.monotonic() - began >= limit:
                self._inbox.put(FatalError(NoSuitableWorkers(self._shortage())))
                return
            if not has_warned:
                logger.warning("%s; waiting for workers", self._shortage())
                has_warned = True
            await asyncio.sleep(min(0.2, limit or 0.2))

    def _shortage(self) -> str:
        offers = [
            f"{address} ({state.nthreads} threads, resources {dict(state.resources)})"
            for address, state in self._scheduler.workers.items()
        ]
        meaning = hint(self._unknown(), self._offered())
        shown = "; ".join(offers[:8]) + (f"; and {len(offers) - 8} more" if offers[8:] else "")
        return (
            f"no worker offers what a trial needs: resources={self._resources}. "
            f"Workers: {shown or 'none yet'}{'; ' * bool(meaning)}{meaning}"
        )

    def _offered(self) -> set[str]:
        return {name for worker in self._scheduler.workers.values() for name in worker.resources}

    def _unknown(self) -> list[str]:
        """Return the names of resources that no worker offers."""
        own = {"cpu", "gpu"} | self._offered()
        return [name for name in self._resources if name not in own]


def _dask_resources(resources: dict[str, float]) -> dict[str, float]:
    """Return the Dask resources that a slot takes; threads are not among them."""
    names = {"gpu": "GPU"}
    return {names.get(name, name): n for name, n in resources.items() if name != "cpu" and n}
