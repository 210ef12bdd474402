"""The study plugin of Dask's scheduler: leases, messages, coordinator's thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import Client, Status
from distributed.comm.tcp import TCP
from distributed.diagnostics.plugin import SchedulerPlugin

from daskhpo.cluster.jobs import is_over
from daskhpo.core.errors import NoSuitableWorkers, StudyFailed
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.coordinator import Problem, drive
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.engine.session import Session
from daskhpo.executors.dask.broker import Broker
from daskhpo.executors.dask.channel import Inbox, send_reply, socket_of
from daskhpo.executors.dask.checkpoint_manager import TELL
from daskhpo.executors.dask.executor import EXIT, DaskExecutor
from daskhpo.executors.dask.lease import LeaseSpec, lease
from daskhpo.executors.dask.messages import (
    Call,
    FatalError,
    LeaseLost,
    LiveUpdate,
    ReleaseSlot,
    RequestStop,
)

logger = logging.getLogger("daskhpo")

LEASE_END_SECONDS = 10.0  # longest wait for leases to end, at the end of a study


@dataclass(frozen=True)
class SlotRequest:
    """Resources that a slot needs, and how many slots to hold.

    Attributes
    ----------
    resources : what a slot needs of a worker: ``cpu`` (threads), ``gpu`` (of the worker's ``GPU``
        resource, may be a fraction); any other name is a Dask resource.
    max_concurrent : most slots to hold; None: no limit.
    worker_timeout : seconds to wait for the first suitable worker; None: no limit.
    """

    resources: dict[str, float]
    max_concurrent: int | None
    worker_timeout: float | None


@dataclass(frozen=True)
class StudySpec:
    """All that a study plugin needs; may be sent to a scheduler in another process."""

    directory: Path
    store: CheckpointStore
    problem: Problem
    limits: Limits
    policy: CheckpointPolicy
    resume: bool
    source: str | None
    trainable: bytes
    slots: SlotRequest
    reuse: bool
    verify_reuse: bool


class StudyPlugin(SchedulerPlugin):  # type: ignore[misc]
    """One session of a study inside a Dask scheduler."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.name = f"daskhpo-{spec.directory.name}-{uuid.uuid4().hex[:8]}"
        self.max_slots = spec.slots.max_concurrent or float("inf")

    # -- start and end, in the event loop --------------------------------------------------------

    async def start(self, scheduler: Any) -> None:
        """Open the study and begin; raise an error if its directory cannot be used."""
        spec = self.spec
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(Call)
        self._channels_ended: dict[int, asyncio.Event] = {}  # set when the slot's lease has ended
        self._leases: dict[int, tuple[str, Any]] = {}
        self._slot_of: dict[str, int] = {}
        self._n_leases = 0
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._lease_tasks: set[asyncio.Task[None]] = set()
        self.error: BaseException | None = None
        self.finished = threading.Event()
        self._session = await asyncio.to_thread(
            Session,
            spec.directory,
            spec.problem,
            spec.limits,
            spec.policy,
            resume=spec.resume,
            source=spec.source,
            on_lock_lost=self._on_lock_lost,
            on_stop=self.stop,
            job_is_over=is_over,
            ahead=True,
        )
        self._lease_spec = LeaseSpec(
            self.name,
            spec.trainable,
            spec.problem.objective,
            spec.problem.seed,
            spec.problem.scheduler.max_t,
            spec.store,
            spec.policy,
            spec.slots.resources.get("gpu", 0),
            spec.reuse,
            spec.verify_reuse,
        )
        try:
            await asyncio.to_thread(self._collect_garbage)
            self._client = await Client(
                scheduler.address,
                asynchronous=True,
                set_as_default=False,
                security=scheduler.security,
            )
        except BaseException:
            self._session.close()
            raise
        self._executor = DaskExecutor(self._inbox, self, spec.store.delete, self._session.began_at)
        scheduler.handlers[self.name] = self._serve
        self._broker = scheduler.extensions.setdefault("daskhpo", Broker(scheduler.workers))
        self._broker.join(self)
        self._spawn(self._watch_worker_count())
        threading.Thread(target=self._coordinate, name=self.name, daemon=True).start()

    async def close(self) -> None:
        """Stop the study because the scheduler shuts down."""
        self._inbox.put(FatalError(StudyFailed("the Dask cluster was closed while the study ran")))
        while not self.finished.is_set():
            await asyncio.sleep(0.01)

    async def _finish(self) -> None:
        """Release everything after the coordinator has finished."""
        self._closing = True
        while not self._inbox.empty():  # messages that arrived after the executor closed
            if isinstance(message := self._inbox.get(), Call):
                self.answer([(message.reply, EXIT)])
        self._broker.leave(self)
        for task in self._tasks - self._lease_tasks - {asyncio.current_task()}:
            task.cancel()
        if self._lease_tasks:
            await asyncio.wait(self._lease_tasks, timeout=LEASE_END_SECONDS)
        try:
            await asyncio.to_thread(self._session.close)
        except OSError as error:  # such as a full disk; earlier records are intact
            self.error = self.error or error
        if self._lease_tasks:
            busy = [worker for worker, _ in self._leases.values()]
            logger.warning("the code of ended trials still runs on %s", ", ".join(busy))
            self._spawn(self._wait_for_busy_leases())
        else:
            await self._unregister()
        self.finished.set()

    async def _wait_for_busy_leases(self) -> None:
        """Wait for code that does not return; until then no other study gets its worker."""
        await asyncio.wait(self._lease_tasks)
        await self._unregister()

    async def _unregister(self) -> None:
        self._scheduler.handlers.pop(self.name, None)
        self._scheduler.plugins.pop(self.name, None)
        await self._client.close()

    def _coordinate(self) -> None:
        session, executor = self._session, self._executor
        try:
            executor.perform(session.commands)
            drive(session.coordinator, executor, session.journal)
            if (error := session.coordinator.fatal_error) is not None:
                raise StudyFailed(error)
        except BaseException as error:
            self.error = error
        finally:
            executor.close()
            self._inbox.close()
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._finish()))

    def _collect_garbage(self) -> None:
        """Delete files that an earlier session left in the store and nothing refers to."""
        try:
            cleaned = self.spec.store.clean(self._session.coordinator.ledger.refs.committed)
        except OSError as error:  # trials report what they cannot read or write
            logger.warning("unneeded checkpoints could not be removed: %s", error)
            return
        if cleaned.n_files:
            logger.info(
                "removed %s files (%s bytes) of unfinished or unneeded checkpoints",
                cleaned.n_files,
                cleaned.n_bytes,
            )

    def _spawn(self, coroutine: Any, *, watches_lease: bool = False) -> None:
        task = self._loop.create_task(coroutine)
        for tasks in (self._tasks, self._lease_tasks) if watches_lease else (self._tasks,):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def _on_lock_lost(self) -> None:
        directory = self.spec.directory
        self._inbox.put(FatalError(StudyFailed(f"another process took over {directory}")))

    # -- for users -------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Ask the study to end. Thread-safe."""
        self._inbox.put(RequestStop(reason))

    def _poll(self) -> dict[str, Any]:
        """Return the status for clients in other processes, which poll it."""
        if not self.finished.is_set():
            return {"finished": False}
        return {"finished": True, "error": cloudpickle.dumps(self.error)}

    # -- messages from leases --------------------------------------------------------------------

    async def _serve(self, comm: Any, slot: int) -> Any:
        """Handle a connection from a lease, or from a client or retired worker (slot -1)."""
        with contextlib.suppress(OSError):  # the other side is gone; the scheduler notices it, too
            if slot in self._leases:
                # The lease sends nothing before this reply, so this loop's buffers hold none of it.
                await comm.write(is_plain := type(comm) is TCP and not self._closing)
                if is_plain and (end := socket_of(comm)) is not None:
                    ended = self._channels_ended[slot] = asyncio.Event()
                    self._inbox.listen(slot, end)
                    await ended.wait()
                    comm.abort()
                    return Status.dont_reply
            elif slot >= 0:
                comm.abort()
                return Status.dont_reply
            while True:
                say, data = await comm.read()
                await comm.write(await self._answer(slot, say, data))
        return Status.dont_reply

    async def _answer(self, slot: int, say: str, data: dict[str, Any]) -> Any:
        if say == "poll":
            return self._poll()
        if say == "stop":
            return self.stop(data["reason"])
        if say == "notes":  # from a worker that has retired
            return self._inbox.put(LiveUpdate(data, time.monotonic()))
        if slot not in self._leases or self._closing:
            return EXIT
        answer = self._loop.create_future()
        self._inbox.put(Call(slot, say, data, answer, time.monotonic()))
        return await answer

    def log_event(self, topic: str, msg: Any) -> None:
        if topic != self.name:
            return
        if "leaving" in msg:
            worker, _ = self._leases.get(msg["slot"], (None, None))
            if worker is not None:
                self._broker.retire(worker)
        else:
            self._inbox.put(LiveUpdate(msg, time.monotonic()))

    # -- messages to leases, from the coordinator's thread ---------------------------------------

    def answer(self, replies: list[tuple[Any, dict[str, Any]]]) -> None:
        futures = []
        for to, message in replies:
            if isinstance(to, asyncio.Future):
                futures.append((to, message))
            else:
                send_reply(to, message)
        if futures:
            self._loop.call_soon_threadsafe(_set_results, futures)

    def tell(self, slot: int, what: str, *numbers: int) -> None:
        self._loop.call_soon_threadsafe(self._send, slot, what, numbers)

    def _send(self, slot: int, what: str, numbers: tuple[int, ...]) -> None:
        worker, _ = self._leases.get(slot, (None, None))
        if worker in self._scheduler.stream_comms:
            message = {"channel": self.name, "slot": slot, "what": what, "numbers": numbers}
            self._scheduler.stream_comms[worker].send({"op": TELL, **message})

    # -- workers and leases ----------------------------------------------------------------------

    def add_worker(self, scheduler: Any, worker: str) -> None:
        self._broker.share()

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        if (slot := self._slot_of.get(worker)) is not None:
            self._end_lease(slot, f"worker {worker} was lost")
        self._broker.forget(worker)

    # Methods of the broker's `Tenant`.

    @property
    def wanted(self) -> float:
        return min(self.max_slots, self._session.coordinator.n_slots_wanted)

    def is_idle(self, worker: str) -> bool:
        slot = self._slot_of.get(worker)
        return slot is not None and self._executor.is_idle(slot)

    def can_use(self, worker: Any) -> bool:
        needed = self.spec.slots.resources
        return worker.nthreads >= needed.get("cpu", 1) and all(
            worker.resources.get(name, 0) >= amount
            for name, amount in _dask_resources(needed).items()
        )

    def take(self, worker: str) -> None:
        slot = self._n_leases
        self._n_leases += 1
        future = self._client.submit(
            lease,
            self._lease_spec,
            slot,
            self._device_index(worker),
            key=f"{self.name}-slot-{slot}",
            workers=[worker],
            allow_other_workers=False,
            resources=_dask_resources(self.spec.slots.resources) or None,
            pure=False,
            retries=0,
        )
        self._leases[slot] = (worker, future)
        self._slot_of[worker] = slot
        self._spawn(self._watch(slot, future), watches_lease=True)

    def give_back(self, worker: str) -> None:
        self._inbox.put(ReleaseSlot(self._slot_of[worker]))

    async def _watch(self, slot: int, future: Any) -> None:
        try:
            await future
            reason = "its lease ended"
        except Exception as error:
            reason = f"its lease failed: {error!r}"
        self._end_lease(slot, reason)

    def _end_lease(self, slot: int, reason: str) -> None:
        if slot not in self._leases:
            return
        worker, future = self._leases.pop(slot)
        if (ended := self._channels_ended.pop(slot, None)) is not None:
            ended.set()
        del self._slot_of[worker]
        future.release()  # else Dask waits for the worker to return
        self._inbox.put(LeaseLost(slot, reason))
        self._broker.release(worker)

    def _device_index(self, worker: str) -> int:
        """Return the index of a worker's first device, among those of its host.

        Each worker of a host gets the lowest share that no other worker there has.
        """
        gpus = self.spec.slots.resources.get("gpu", 0)
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
        limit = self.spec.slots.worker_timeout
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
        needed = self.spec.slots.resources
        offers = [
            f"{address} ({state.nthreads} threads, resources {dict(state.resources)})"
            for address, state in self._scheduler.workers.items()
        ]
        shown = "; ".join(offers[:8]) + (f"; and {len(offers) - 8} more" if offers[8:] else "")
        return (
            f"no worker offers what a trial needs: resources={needed}. "
            f"Workers: {shown or 'none yet'}"
        )


def _dask_resources(resources: dict[str, float]) -> dict[str, float]:
    """Return the Dask resources that a slot takes; threads are not among them."""
    names = {"gpu": "GPU"}
    return {names.get(name, name): n for name, n in resources.items() if name != "cpu" and n}


def _set_results(replies: list[tuple[Any, dict[str, Any]]]) -> None:
    for future, message in replies:
        if not future.done():  # it is cancelled if its connection was closed
            future.set_result(message)
