"""A lease's states in its worker's memory: for itself, its peers and the store."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import WorkerPlugin

from daskhpo.core.events import Dropped, Saved, SaveFailed
from daskhpo.core.types import CheckpointPolicy, CheckpointRef, ReuseProbability
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.executors.dask.client import CoordinatorClient
from daskhpo.executors.dask.shutdown import GracefulShutdown

if TYPE_CHECKING:
    from daskhpo.checkpoints.cache import StateCache
    from daskhpo.checkpoints.codec import Snapshot

logger = logging.getLogger("daskhpo.worker")

TELL = "daskhpo-tell"  # message on Dask's stream from the scheduler to a worker
FETCH = "daskhpo-fetch"  # request of one worker to another
MEMORY_SHARE = 0.25  # part of the worker's memory that states may use


@dataclass(slots=True)
class Mailbox:
    """Messages to a lease while it is busy, received in the worker's event loop."""

    interrupts: set[tuple[int, int]] = field(default_factory=set)  # (trial, attempt) to preempt
    cache: StateCache | None = None


# By channel and slot. Made at first use: a message may arrive before its lease or trial begins.
mailboxes: defaultdict[tuple[str, int], Mailbox] = defaultdict(Mailbox)


def install_handlers(worker: Any) -> None:
    """Register handlers for messages to a worker's leases, from studies and peers."""
    worker.stream_handlers.setdefault(TELL, _on_tell)
    worker.handlers.setdefault(FETCH, _on_fetch)


def _on_tell(channel: str, slot: int, what: str, numbers: tuple[int, ...]) -> None:
    mailbox = mailboxes[channel, slot]
    if what == "interrupt":
        trial, attempt = numbers
        mailbox.interrupts.add((trial, attempt))
    elif mailbox.cache is not None:
        (row,) = numbers
        if what == "forget":
            mailbox.cache.discard(row)
        else:
            mailbox.cache.write(row)


async def _on_fetch(comm: Any, channel: str, slot: int, row: int) -> dict[str, Any] | None:
    from distributed.protocol import to_serialize

    mailbox = mailboxes.get((channel, slot))
    held = None if mailbox is None or mailbox.cache is None else mailbox.cache.get(row)
    if held is None:
        return None
    return {
        "row": to_serialize(held.snapshot.buffer),
        "layout": held.snapshot.layout.to_json(),
        "unsaved_seconds": held.unsaved_seconds,
    }


class CheckpointManager:
    """The part of a lease that saves and restores the states of trials.

    Parameters
    ----------
    store : the study's checkpoints.
    """

    def __init__(
        self,
        worker: Any,
        client: CoordinatorClient,
        shutdown: GracefulShutdown,
        store: CheckpointStore,
        policy: CheckpointPolicy,
    ) -> None:
        self._worker, self._client, self._shutdown = worker, client, shutdown
        self._store, self._policy = store, policy
        self._mailbox = mailboxes[client.channel, client.slot]
        self._flush_on_close: _FlushOnClose | None = None
        self._n_bytes = 0  # of the last state; the next one is likely to have the same size

    def save(
        self,
        ref: CheckpointRef,
        attempt: int,
        state: Any,
        probability: ReuseProbability,
        unsaved_seconds: float,
    ) -> None:
        """Keep a copy of a state, and write it if and when that is worth its time.

        Raises
        ------
        StateNotSupported : the state contains something that a checkpoint cannot hold.
        """
        from daskhpo.checkpoints.codec import snapshot

        cache = self._state_cache()
        buffer = cache.take_buffer(self._n_bytes) if self._n_bytes else None
        taken = snapshot(state, ref.trial, ref.resource, buffer)
        self._n_bytes = taken.n_bytes
        cache.put(ref, attempt, taken, probability, unsaved_seconds)

    def restore(self, ref: CheckpointRef, peer: tuple[str, int] | None) -> tuple[Any, float]:
        """Return a state, and the seconds of training that the store does not have.

        The state is looked up in this worker's memory, in the peer's (address and slot), and in
        the store, in this order.

        Raises
        ------
        CheckpointMissing, CheckpointCorrupt : the state was not found, or is not what was written.
        """
        from daskhpo.checkpoints.codec import restore

        cache = self._mailbox.cache
        held = None if cache is None else cache.get(ref.id)
        if held is not None:
            return restore(held.snapshot), held.unsaved_seconds
        if peer is not None and (moved := self._fetch_from_peer(ref, *peer)) is not None:
            taken, unsaved_seconds = moved
            return restore(taken), unsaved_seconds
        if not ref.array:
            from daskhpo.core.errors import CheckpointMissing

            raise CheckpointMissing(
                f"the state of trial {ref.trial} at resource {ref.resource} was only in a worker's "
                "memory and is gone; the trial continues from an older state, or trains again"
            )
        return self._store.read(ref), 0.0

    def flush(self, rows: Iterable[int] = (), *, write: bool) -> None:
        """Empty the cache, after writing these rows and what must be written.

        Parameters
        ----------
        rows : ids of checkpoints that are written whatever it costs.
        write : True: also write what may be needed again.
        """
        if (cache := self._mailbox.cache) is None:
            return
        for row in rows:
            cache.write(row)
        if not write:
            cache.flush()
        cache.clear(write=write)

    def write_seconds(self) -> float:
        """Estimate the seconds of all writes that are worthwhile before the worker leaves."""
        cache = self._mailbox.cache
        return 0.0 if cache is None else cache.flush_seconds()

    def close(self, rows: Iterable[int] = (), *, write: bool) -> None:
        """Flush and close the cache at the lease's end; parameters as of :meth:`flush`."""
        if self._mailbox.cache is None:
            return
        assert self._flush_on_close is not None, "a cache without a plugin that flushes it"
        for row in rows:
            self._mailbox.cache.write(row)
        self._mailbox.cache.clear(write=write)
        self._mailbox.cache.close()
        # Do not wait: the worker may be closing, and waiting for this thread.
        self._worker.loop.add_callback(self._flush_on_close.remove, self._worker)

    def _state_cache(self) -> StateCache:
        if self._mailbox.cache is None:
            from daskhpo.checkpoints.cache import StateCache

            policy, memory = self._policy, self._policy.memory
            self._mailbox.cache = StateCache(
                self._store,
                self._notify,
                capacity=_share_of_memory(self._worker) if memory is None else memory,
                durability=policy.durability,
                staging=Path(os.path.expandvars(policy.staging)) if policy.staging else None,
                seconds_left=self._shutdown.seconds_left,
            )
            self._flush_on_close = _FlushOnClose(self._mailbox.cache, self._client)
            add = self._worker.plugin_add(self._flush_on_close, name=self._flush_on_close.name)
            asyncio.run_coroutine_threadsafe(add, self._worker.loop.asyncio_loop).result()
        return self._mailbox.cache

    def _fetch_from_peer(
        self, ref: CheckpointRef, address: str, slot: int
    ) -> tuple[Snapshot, float] | None:
        """Return a state from another worker's memory; None if it is no longer there."""
        from daskhpo.checkpoints.codec import Layout, Snapshot

        request = {"op": FETCH, "channel": self._client.channel, "slot": slot, "row": ref.id}
        try:
            found = self._client.ask_peer(address, request)
        except OSError as error:
            logger.info("checkpoint %s could not be fetched from %s: %s", ref.id, address, error)
            return None
        if found is None:
            return None
        taken = Snapshot(found["row"], Layout.from_json(found["layout"]))
        return taken, found["unsaved_seconds"]

    def _notify(self, event: Saved | SaveFailed | Dropped) -> None:
        match event:
            case Saved(_, attempt, ref):
                self._client.notify("saved", attempt, ref.plain(), "")
            case SaveFailed(trial, attempt, checkpoint_id, error):
                ref = CheckpointRef(checkpoint_id, trial, 0)
                self._client.notify("unsaved", attempt, ref.plain(), error)
            case Dropped(trial, attempt, checkpoint_id, reason):
                ref = CheckpointRef(checkpoint_id, trial, 0)
                self._client.notify("dropped", attempt, ref.plain(), reason)


class _FlushOnClose(WorkerPlugin):  # type: ignore[misc]
    """Worker plugin that writes what may be needed again when the worker closes."""

    def __init__(self, cache: StateCache, client: CoordinatorClient) -> None:
        self.name = f"{client.channel}-states-{client.slot}"
        self._cache, self._client = cache, client

    async def remove(self, worker: Any) -> None:
        """Remove the plugin when its lease has ended."""
        if self.name in worker.plugins:  # else the worker is closing and has removed it
            await worker.plugin_remove(self.name)

    async def teardown(self, worker: Any) -> None:
        if worker.status.name == "running":
            return  # the lease has ended, and has sent all notes
        await asyncio.to_thread(self._cache.close)
        try:
            await self._client.resend_notes()
        except OSError as error:
            logger.info("the last notes on states could not be sent: %s", error)


def _share_of_memory(worker: Any) -> int:
    """Return a quarter of the worker's memory limit, or of its part of the machine's."""
    limit = worker.memory_manager.memory_limit
    if limit is None:
        from dask.system import CPU_COUNT
        from distributed.system import MEMORY_LIMIT

        limit = MEMORY_LIMIT * min(1.0, worker.state.nthreads / CPU_COUNT)
    return int(limit * MEMORY_SHARE)
