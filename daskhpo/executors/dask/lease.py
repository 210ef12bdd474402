"""The lease: a long Dask task that holds a slot and runs segments until released."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import multiprocessing
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import WorkerPlugin

from daskhpo.cluster.gpus import gpu_memory
from daskhpo.cluster.job_shape import nodes_per_trial
from daskhpo.core.objective import Objective
from daskhpo.engine.options import RunOptions
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.executors.dask.channel import FETCH, DaskTransport, StudyChannel, send_notes
from daskhpo.executors.dask.checkpoint_manager import CheckpointManager
from daskhpo.executors.dask.children import (
    allow_children,
    child_processes,
)
from daskhpo.executors.dask.devices import SeenGpus, see_gpus
from daskhpo.executors.dask.environment import check_environment
from daskhpo.executors.dask.forks import start_processes_as_scripts_do
from daskhpo.executors.dask.killed_workers import send_kills
from daskhpo.executors.dask.pickled_code import load_code
from daskhpo.executors.dask.placement import Site
from daskhpo.executors.dask.protocol import ORDERS, CannotLoad
from daskhpo.executors.dask.shutdown import shutdown_of
from daskhpo.executors.dask.threads import set_threads
from daskhpo.executors.dask.trial_host import TrialHost
from daskhpo.trial_output import TrialOutput

if TYPE_CHECKING:
    from daskhpo.checkpoints.cache import StateCache

logger = logging.getLogger("daskhpo.worker")

TELL = "daskhpo-tell"  # order on Dask's stream from the scheduler to a worker
MEMORY_SHARE = 0.25  # part of the worker's memory that states may use


@dataclass(frozen=True)
class LeaseSpec:
    """Data of a study that each of its leases needs."""

    study: str  # name of its handler on the scheduler, and topic of one-way messages
    environment: str  # see `daskhpo.executors.dask.environment`
    trainable: bytes
    objective: Objective
    seed: int
    max_t: int
    store: CheckpointStore
    options: RunOptions
    directory: Path | None = None  # of the study, for its trials' output


async def introduce(environment: str, with_gpus: bool) -> SeenGpus | None:
    """Return the GPUs that this worker sees, if ``with_gpus``; runs before a lease.

    A worker that cannot load a task loses its connection to the scheduler, so this comes as bytes.

    Raises
    ------
    WrongEnvironment : it has other software than the study.
    NoGpu : it sees no GPU.
    """
    check_environment(environment)
    return await asyncio.to_thread(see_gpus) if with_gpus else None


def lease(spec: LeaseSpec, slot: int, device: str, device_ids: tuple[str, ...] = ()) -> None:
    """Hold a slot until the study releases it; the body of a Dask task.

    Parameters
    ----------
    device : the first device of its trials, as torch names it.
    device_ids : names of their GPUs that all workers of the machine share.
    """
    from distributed import get_worker

    worker = get_worker()
    allow_children()
    # without a nanny this may be the user's own process
    is_own = worker.nanny is not None and multiprocessing.parent_process() is not None
    if is_own:
        start_processes_as_scripts_do()  # the user's code may yet choose another way
        set_threads(int(spec.options.resources["cpu"]))
    send_kills(worker)
    shutdown = shutdown_of(worker)
    leases = leases_of(worker)
    try:
        with contextlib.ExitStack() as stack:
            dask = DaskTransport(worker, spec.study, slot)
            stack.callback(dask.close)
            transport = dask.taken()
            push = functools.partial(worker.log_event, spec.study)
            channel = StudyChannel(transport, push, dask.ask, slot, lambda: shutdown.started)
            if transport is not dask:
                stack.callback(transport.close)
            output = TrialOutput(spec.directory, is_own=is_own)
            stack.enter_context(output.routed())
            try:
                trainable = _load(spec.trainable)
            except BaseException:
                channel.call(CannotLoad(worker.address, traceback.format_exc()))
                return
            flush = _FlushOnClose(worker, spec.study, slot, channel)
            memory = spec.options.policy.memory
            host = TrialHost(
                channel,
                shutdown,
                CheckpointManager(
                    spec.store,
                    spec.options.policy,
                    channel,
                    memory=_share_of_memory(worker) if memory is None else memory,
                    seconds_left=shutdown.seconds_left,
                    on_open=flush.add,
                    on_close=flush.remove,
                ),
                trainable,
                objective=spec.objective,
                seed=spec.seed,
                max_t=spec.max_t,
                device=device,
                n_devices=max(1, int(spec.options.resources.get("gpu", 0)) // nodes_per_trial()),
                reuse=spec.options.reuse_actors,
                verify_reuse=spec.options.verify_reuse,
                children=child_processes(is_own),
                step_timeout=spec.options.step_timeout,
                memory_limit=spec.options.memory_limit,
                output=output,
            )
            stack.enter_context(leases.registered(spec.study, slot, host))
            shutdown.register(host)
            stack.callback(shutdown.unregister, host)
            if not shutdown.fits(0.0):
                shutdown.start("its Slurm job ends")
            site = _site(worker, device_ids, spec.options.memory_limit)
            host.serve(worker.address, os.environ.get("SLURM_JOB_ID", ""), site)
    except OSError as error:  # the scheduler is gone, or closing
        logger.info("lease %s of %s ends: %r", slot, spec.study, error)


@functools.lru_cache(maxsize=4)
def _load(trainable: bytes) -> Any:
    """Unpickle a trainable once per process, so that class attributes exist once."""
    return load_code(trainable)


class Leases:
    """The leases of a worker, for messages that come while they are busy.

    Dask's handlers run in the worker's event loop.
    """

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, int], TrialHost] = {}

    @contextlib.contextmanager
    def registered(self, study: str, slot: int, host: TrialHost) -> Any:
        """Pass messages for a lease on to its host."""
        self._hosts[study, slot] = host
        try:
            yield
        finally:
            del self._hosts[study, slot]

    def on_tell(self, study: str, slot: int, order: Any) -> None:
        """Pass an order of a study on."""
        if (host := self._hosts.get((study, slot))) is not None:
            host.on_order(ORDERS.decode(order))

    async def on_fetch(self, comm: Any, study: str, slot: int, id: int) -> dict[str, Any] | None:
        """Give a state to another worker; see :meth:`DaskTransport.ask`."""
        from distributed.protocol import to_serialize

        host = self._hosts.get((study, slot))
        held = None if host is None else host.checkpoints.get(id)
        if held is None:
            return None
        return {
            "row": to_serialize(held.snapshot.buffer),
            "layout": held.snapshot.layout.to_json(),
            "unsaved_seconds": held.unsaved_seconds,
        }


def leases_of(worker: Any) -> Leases:
    """Return the worker's leases; the first call registers Dask's handlers for them."""
    leases: Leases = worker.extensions.setdefault("daskhpo-leases", Leases())
    worker.stream_handlers.setdefault(TELL, leases.on_tell)
    worker.handlers.setdefault(FETCH, leases.on_fetch)
    return leases


class _FlushOnClose(WorkerPlugin):  # type: ignore[misc]
    """Worker plugin that writes what may be needed again when the worker closes."""

    def __init__(self, worker: Any, study: str, slot: int, channel: StudyChannel) -> None:
        self.name = f"{study}-states-{slot}"
        self._worker, self._study, self._channel = worker, study, channel
        self._cache: StateCache

    def add(self, cache: StateCache) -> None:
        """Add the plugin to the worker; waits for its event loop."""
        self._cache = cache
        add = self._worker.plugin_add(self, name=self.name)
        asyncio.run_coroutine_threadsafe(add, self._worker.loop.asyncio_loop).result()

    def remove(self) -> None:
        """Remove the plugin, without waiting: the worker may be waiting for this."""
        self._worker.loop.add_callback(self._remove)

    async def _remove(self) -> None:
        if self.name in self._worker.plugins:  # else the worker is closing and has removed it
            await self._worker.plugin_remove(self.name)

    async def teardown(self, worker: Any) -> None:
        if worker.status.name == "running":
            return  # the lease has ended, and has sent all notes
        await asyncio.to_thread(self._cache.close)
        notes = self._channel.unacknowledged()
        if not notes.notes:
            return
        try:
            await send_notes(worker, self._study, notes)
        except OSError as error:
            logger.info("the last notes on states could not be sent: %s", error)


def _site(worker: Any, device_ids: tuple[str, ...], memory_limit: int | None) -> Site:
    """Return where a worker is, and the memory that a trial may use there."""
    from distributed.comm import get_address_host

    n_bytes = int(_memory_of(worker))
    if memory_limit is not None:
        n_bytes = min(n_bytes, memory_limit)
    host = get_address_host(worker.address)
    return Site(host, device_ids, n_bytes, gpu_memory() if device_ids else 0)


def _share_of_memory(worker: Any) -> int:
    """Return the bytes of a worker's memory that states may use."""
    return int(_memory_of(worker) * MEMORY_SHARE)


def _memory_of(worker: Any) -> float:
    """Return the worker's memory limit, or its part of the machine's."""
    limit = worker.memory_manager.memory_limit
    if limit is None:
        from dask.system import CPU_COUNT
        from distributed.system import MEMORY_LIMIT

        limit = MEMORY_LIMIT * min(1.0, worker.state.nthreads / CPU_COUNT)
    return float(limit)
