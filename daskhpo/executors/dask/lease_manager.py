"""Leases of a study on the workers of a Dask scheduler."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from distributed import Status
from distributed.scheduler import KilledWorker

from daskhpo._version import __version__
from daskhpo.cluster.supply import SUPPLY, WorkerOutlook, WorkerSupply
from daskhpo.core.errors import NoSuitableWorkers, StudyFailed
from daskhpo.core.resource_names import hint, meant
from daskhpo.executors.dask.broker import Broker
from daskhpo.executors.dask.channel import FatalError, Inbox, LeaseLost, ReleaseSlot, RequestStop
from daskhpo.executors.dask.demand import Demand, is_adaptive, removable
from daskhpo.executors.dask.devices import GpuShares, NoGpu, SeenGpus
from daskhpo.executors.dask.environment import WrongEnvironment
from daskhpo.executors.dask.implied_gpus import Sight, implied_gpus
from daskhpo.executors.dask.killed_workers import KilledWorkers
from daskhpo.executors.dask.lease import TELL, LeaseSpec, introduce, lease
from daskhpo.executors.dask.protocol import ORDERS, LeaseOrder

logger = logging.getLogger("daskhpo")

LEASE_END_SECONDS = 10.0  # longest wait for leases to end, at the end of a study
TEND_SECONDS = 0.2  # between two looks at what the study wants and has
SURPLUS_SECONDS = 2.0  # idle slots are freed for adaptive scaling after so long without work
QUIET_SECONDS = 10.0  # between two words on why no worker is there
NEIGHBOUR_SECONDS = 5.0  # longest wait for what other workers of a host see
# The worker went, or the cluster was restarted: this says nothing about the worker's software.
_PASSING = (OSError, KilledWorker, concurrent.futures.CancelledError)


@dataclass
class _Lease:
    worker: str
    future: Any = None  # None: the worker's GPUs are not known yet
    has_begun: bool = False  # the study has heard from it
    is_ending: bool = False  # its slot was asked back


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
        self._leases: dict[int, _Lease] = {}  # by slot
        self._slot_of: dict[str, int] = {}  # by worker
        self._n_leases = 0
        self._ended: dict[int, asyncio.Event] = {}  # set when the slot's lease has ended
        self._tasks: set[asyncio.Task[None]] = set()  # one for each lease
        self._watches: list[asyncio.Task[None]] = []
        self._unfit: dict[str, str] = {}  # why a worker cannot run trials, by its address
        self._surplus_since: float | None = None
        self._has_had_slots = False
        self._idle: frozenset[int] = frozenset()
        self.wanted = float("inf")  #: slots that the study could fill now
        self.max_slots = spec.options.max_concurrent or float("inf")
        self._broker: Broker = scheduler.extensions.setdefault("daskhpo", Broker(scheduler.workers))
        self._gpus: GpuShares = scheduler.extensions.setdefault(
            "daskhpo-gpus", GpuShares(scheduler.workers)
        )
        self._killed: KilledWorkers = scheduler.extensions.setdefault(
            "daskhpo-killed", KilledWorkers(scheduler)
        )
        self._sights: dict[str, Sight | None] = {}  # of workers that offer no GPU by name
        self._implied: dict[str, float] = {}  # GPUs that they may offer
        self._demand = Demand(scheduler, client, spec.study)

    def open(self) -> None:
        """Begin to take workers."""
        self._broker.join(self)
        watches = (self._watch_worker_count(), self._tend())
        self._watches = [self._loop.create_task(watch) for watch in watches]

    async def close(self) -> None:
        """Take no more workers, and wait `LEASE_END_SECONDS` for the leases to end."""
        self._broker.leave(self)
        for watch in self._watches:
            watch.cancel()
        self._demand.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEASE_END_SECONDS)

    @property
    def busy_workers(self) -> list[str]:
        """Addresses of workers whose lease has not ended."""
        return [lease.worker for lease in self._leases.values()]

    async def wait(self) -> None:
        """Wait for code that does not return; until then no other study gets its worker."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def __contains__(self, slot: int) -> bool:
        return slot in self._leases

    def end_of(self, slot: int) -> asyncio.Event:
        """Return an event that is set when the lease of a slot has ended."""
        return self._ended[slot]

    def on_begun(self, slot: int) -> None:
        """Handle the first message of a lease."""
        self._leases[slot].has_begun = self._has_had_slots = True

    def removable(self, candidates: list[Any]) -> list[Any]:
        """Return those of some workers (states on the scheduler) that no study needs."""
        return removable(candidates, self._scheduler.workers.values(), self._broker.is_held)

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

    def refuse(self, slot: int, why: str, error: str, *, fatal: bool) -> None:
        """Use a slot's worker no more. ``fatal``: the study fails if no other worker fits."""
        self._loop.call_soon_threadsafe(self._refuse, slot, why, error, fatal)

    def _send(self, slot: int, order: Any) -> None:
        worker = self._leases[slot].worker if slot in self._leases else None
        if worker in self._scheduler.stream_comms:
            message = {"op": TELL, "study": self._spec.study, "slot": slot, "order": order}
            self._scheduler.stream_comms[worker].send(message)

    # -- for the scheduler plugin ----------------------------------------------------------------

    def on_worker_added(self) -> None:
        """Let the broker assign the new worker."""
        self._broker.share()
        self._ask()

    def on_worker_removed(self, worker: str) -> None:
        """Handle the loss of a worker."""
        if (slot := self._slot_of.get(worker)) is not None:
            self._end(slot, f"worker {worker} was lost", was_lost=True)
        self._broker.forget(worker)
        self._unfit.pop(worker, None)
        self._sights.pop(worker, None)

    def on_memory_restart(self, message: Any) -> None:
        """Handle a nanny's message that it ends its worker, which takes too much memory."""
        self._killed.on_memory_restart(message)

    def on_leaving(self, slot: int) -> None:
        """Handle a worker that is about to leave."""
        if slot in self._leases:
            self._broker.retire(self._leases[slot].worker)

    # -- a `Tenant` of the broker ----------------------------------------------------------------

    def is_idle(self, worker: str) -> bool:
        return self._slot_of.get(worker) in self._idle

    def stop(self, reason: str) -> None:
        self._inbox.put(RequestStop(reason))

    def can_use(self, worker: Any) -> bool:
        return (
            worker.address not in self._unfit
            and worker.status is not Status.closing_gracefully  # Dask is about to close it
            and worker.nthreads >= self._resources.get("cpu", 1)
            and all(
                max(worker.resources.get(name, 0), self._implied_by(worker.address, name)) >= amount
                for name, amount in _dask_resources(self._resources).items()
            )
        )

    def _implied_by(self, worker: str, resource: str) -> float:
        return self._implied.get(worker, 0.0) if resource == "GPU" else 0.0

    def take(self, worker: str) -> None:
        slot = self._n_leases
        self._n_leases += 1
        self._leases[slot] = _Lease(worker)
        self._killed.watch(worker)
        self._slot_of[worker] = slot
        self._ended[slot] = asyncio.Event()
        task = self._loop.create_task(self._run_lease(slot, worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def give_back(self, worker: str) -> None:
        slot = self._slot_of[worker]
        self._leases[slot].is_ending = True
        self._inbox.put(ReleaseSlot(slot))

    # -- leases ----------------------------------------------------------------------------------

    async def _run_lease(self, slot: int, worker: str) -> None:
        try:
            device = await self._device_of(worker)
            if slot not in self._leases:  # its worker is gone
                return
            future = self._client.submit(
                lease,
                self._spec,
                slot,
                device,
                self._gpus.ids_of(worker),
                key=f"{self._spec.study}-slot-{slot}",
                workers=[worker],
                allow_other_workers=False,
                resources=self._taken_from(worker) or None,
                pure=False,
                retries=0,
            )
            self._leases[slot].future = future
            await future
            reason = "its lease ended"
        except Exception as error:
            reason = f"its lease failed: {error!r}"
            held = self._leases.get(slot)
            if held is not None and not held.has_begun and not isinstance(error, _PASSING):
                self._refuse(slot, _cannot_run(error))
        self._end(slot, reason)

    def _end(self, slot: int, reason: str, *, was_lost: bool = False) -> None:
        if slot not in self._leases:
            return
        held = self._leases.pop(slot)
        self._ended.pop(slot).set()
        del self._slot_of[held.worker]
        if held.future is not None:
            held.future.release()  # else Dask waits for the worker to return
        if was_lost and held.has_begun:
            asking = self._loop.create_task(self._tell_cause(slot, held.worker, reason))
            self._tasks.add(asking)
            asking.add_done_callback(self._tasks.discard)
        else:
            self._inbox.put(LeaseLost(slot, reason))
        self._broker.release(held.worker)

    async def _tell_cause(self, slot: int, worker: str, reason: str) -> None:
        """Tell the coordinator that a slot is lost, and whether its worker lacked memory."""
        lacked = None
        try:
            lacked = await self._killed.cause(worker)
        finally:
            self._inbox.put(LeaseLost(slot, reason, lacked))

    def _refuse(self, slot: int, why: str, error: str = "", fatal: bool = False) -> None:
        """Use a slot's worker no more, and say so."""
        if slot not in self._leases:
            return
        worker = self._leases[slot].worker
        self._unfit[worker] = why
        message = f"worker {worker} is not used: {why}{error}"
        if fatal and not any(map(self.can_use, self._scheduler.workers.values())):
            self._inbox.put(FatalError(StudyFailed(message)))
        else:
            logger.warning("%s", message)

    def _taken_from(self, worker: str) -> dict[str, float]:
        """Return the Dask resources of a lease; a worker without a GPU by name gives none."""
        taken, state = _dask_resources(self._resources), self._scheduler.workers.get(worker)
        if state is not None and "GPU" in taken and "GPU" not in state.resources:
            del taken["GPU"]
        return taken

    async def _device_of(self, worker: str) -> str:
        """Return the device of a worker's trials, when its host's workers told theirs.

        A worker that cannot run trials raises an error that says why.
        """
        state, gpus = self._scheduler.workers[worker], self._resources.get("gpu", 0)
        asked = self._client.run(introduce, self._spec.environment, gpus > 0, workers=[worker])
        answers = await asked
        if not gpus:
            return "cpu"
        if worker not in answers:
            raise OSError(f"{worker} is gone")
        self._gpus.learn(worker, state.host, answers[worker], state.resources.get("GPU", gpus))
        until = time.monotonic() + NEIGHBOUR_SECONDS
        while self._awaits_neighbour(state.host) and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return self._gpus.choose(worker)

    def _awaits_neighbour(self, host: str) -> bool:
        """True if another worker of a host has not told yet which GPUs it sees."""
        workers = self._scheduler.workers
        asked = {lease.worker for lease in self._leases.values() if lease.future is None}
        return any(w in workers and workers[w].host == host and w not in self._gpus for w in asked)

    # -- what the study wants, and what it has ---------------------------------------------------

    async def _tend(self) -> None:
        """Tell Dask how many workers the study lacks, and free those it does not need."""
        while True:
            if self._resources.get("gpu", 0):
                await self._look_for_gpus()
            if self._ask() > 0:
                self._broker.share()
            self._free_surplus()
            await asyncio.sleep(TEND_SECONDS)

    async def _look_for_gpus(self) -> None:
        """Learn which GPUs workers see, if none of them says by name what it offers."""
        workers = self._scheduler.workers
        if any("GPU" in worker.resources for worker in workers.values()):
            self._implied = {}
            return
        new = [address for address in workers if address not in self._sights]
        if new:
            answers = await self._client.run(
                introduce, self._spec.environment, True, workers=new, on_error="return"
            )
            for address, seen in answers.items():
                state = workers.get(address)
                if state is not None and not isinstance(seen, _PASSING):
                    known = isinstance(seen, SeenGpus)
                    self._sights[address] = Sight(state.host, seen) if known else None
        self._implied = implied_gpus(
            {address: sight for address, sight in self._sights.items() if sight is not None}
        )

    def _ask(self) -> float:
        """Ask for the workers that the study could fill and has not; return their number."""
        held = len(self._leases)
        missing = self.wanted - sum(not lease.is_ending for lease in self._leases.values())
        workers = self._scheduler.workers.values()
        if workers and not any(map(self.can_use, workers)):
            missing = min(missing, len(workers))  # more of their kind would not help
        self._demand.set(missing, held, time.monotonic())
        return missing

    def _free_surplus(self) -> None:
        """Free idle workers for adaptive scaling, which closes none that has a lease."""
        staying = {n: lease.worker for n, lease in self._leases.items() if not lease.is_ending}
        surplus = len(staying) - self.wanted
        idle = [worker for slot, worker in staying.items() if slot in self._idle]
        now = time.monotonic()
        if surplus <= 0 or not idle or not is_adaptive(self._scheduler):
            self._surplus_since = None
        elif self._surplus_since is None:
            self._surplus_since = now
        elif now - self._surplus_since >= SURPLUS_SECONDS:
            for worker in idle[-int(surplus) :]:
                self._broker.spare(worker)

    async def _watch_worker_count(self) -> None:
        """Say why no worker runs a trial; give up if none will, or after `worker_timeout`."""
        limit = self._spec.options.worker_timeout
        if any(meant(name) for name in self._unknown()):  # waiting would not help
            self._inbox.put(FatalError(NoSuitableWorkers(self._shortage(self._outlook()))))
            return
        since, said, said_at = time.monotonic(), "", -math.inf
        while True:
            now = time.monotonic()
            if self._leases or not self.wanted:
                since, said = now, ""
            elif (outlook := self._outlook()).is_hopeless or (
                limit is not None and now - since >= limit and not self._has_had_slots
            ):
                self._inbox.put(FatalError(NoSuitableWorkers(self._shortage(outlook))))
                return
            elif not self._has_had_slots or now - since >= QUIET_SECONDS:
                message = self._shortage(outlook)
                if message != said and now - said_at >= QUIET_SECONDS:
                    logger.warning("%s; waiting for workers", message)
                    said, said_at = message, now
            await asyncio.sleep(min(TEND_SECONDS, limit or TEND_SECONDS))

    def _outlook(self) -> WorkerOutlook:
        supply: WorkerSupply | None = self._scheduler.extensions.get(SUPPLY)
        return WorkerOutlook() if supply is None else supply.outlook()

    def _shortage(self, outlook: WorkerOutlook) -> str:
        offers = [
            f"{address} ({state.nthreads} threads, resources {dict(state.resources)})"
            + (f" is not used: {self._unfit[address]}" if address in self._unfit else "")
            for address, state in self._scheduler.workers.items()
        ]
        meaning = hint(self._unknown(), self._offered())
        if not (offers or meaning) and outlook.why:
            return f"there is no worker: {outlook.why}"
        shown = "; ".join(offers[:8]) + (f"; and {len(offers) - 8} more" if offers[8:] else "")
        return f"no worker offers what a trial needs: resources={self._resources}. " + "; ".join(
            filter(None, (f"Workers: {shown or 'none yet'}", meaning, self._advice(), outlook.why))
        )

    def _advice(self) -> str:
        """Say how workers come to offer the GPUs that a trial needs."""
        gpus = self._resources.get("gpu", 0)
        workers = self._scheduler.workers.values()
        if not gpus or any(state.resources.get("GPU", 0) >= gpus for state in workers):
            return ""
        start = f"start workers with `dask worker --resources GPU={gpus:g}`"
        if gpus > 1:
            return (
                f"a trial's {gpus:g} GPUs must be those of one worker: {start}, or give "
                f"slurm_cluster(gpus_per_trial={gpus:g})"
            )
        return f"a worker that has a GPU offers it by a Dask resource: {start}"

    def _offered(self) -> set[str]:
        return {name for worker in self._scheduler.workers.values() for name in worker.resources}

    def _unknown(self) -> list[str]:
        """Return the names of resources that no worker offers."""
        own = {"cpu", "gpu"} | self._offered()
        return [name for name in self._resources if name not in own]


def _cannot_run(error: Exception) -> str:
    """Return why a lease did not begin on a worker."""
    if isinstance(error, NoGpu | WrongEnvironment):
        return str(error)
    shown = str(error) if type(error) is Exception else f"{type(error).__name__}: {error}"
    return (
        f"daskhpo {__version__} cannot be loaded there ({shown}). Install it in the environment of "
        "the workers, in the same version as here"
    )


def _dask_resources(resources: dict[str, float]) -> dict[str, float]:
    """Return the Dask resources that a slot takes; threads are not among them."""
    names = {"gpu": "GPU"}
    return {names.get(name, name): n for name, n in resources.items() if name != "cpu" and n}
