"""States that a lease keeps in its worker's memory: for itself, for its peers, for the store."""

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

from daskhpo.core.types import CheckpointPolicy, CheckpointRef, ReuseProbability
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.executors.dask.client import CoordinatorClient
from daskhpo.executors.dask.shutdown import GracefulShutdown

if TYPE_CHECKING:
    from daskhpo.checkpoints.cache import StateCache
    from daskhpo.checkpoints.cache_events import CacheEvent
    from daskhpo.checkpoints.codec import Snapshot

logger = logging.getLogger("daskhpo.worker")

TELL = "daskhpo-tell"  # message on Dask's stream from the scheduler to a worker
FETCH = "daskhpo-fetch"  # question of one worker to another
MEMORY_SHARE = 0.25  # of the worker's memory, for states


@dataclass(slots=True)
class Mailbox:
    """What the study tells a lease while that is busy; filled in the worker's event loop."""

    interrupts: set[tuple[int, int]] = field(default_factory=set)  # (trial, attempt) to hand over
    cache: StateCache | None = None


# By channel and slot. Made at the first mention: a message may overtake what it is about.
mailboxes: defaultdict[tuple[str, int], Mailbox] = defaultdict(Mailbox)


def install_handlers(worker: Any) -> None:
    """Let a worker understand what studies and other workers say to its leases."""
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
    """Takes and gives back the states of a lease's trials.

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
        self._n_bytes = 0  # of the last state: the next one is likely to have as many

    def save(
        self,
        ref: CheckpointRef,
        attempt: int,
        state: Any,
        probability: ReuseProbability,
        unsaved_seconds: float,
    ) -> None:
        """Keep a copy of a state, and write it if and when that is worth it.

        Raises
        ------
        StateNotSupported : it holds something that a checkpoint cannot hold.
        """
        from daskhpo.checkpoints.codec import snapshot

        cache = self._state_cache()
        buffer = cache.take_buffer(self._n_bytes) if self._n_bytes else None
        taken = snapshot(state, ref.trial, ref.resource, buffer)
        self._n_bytes = taken.n_bytes
        cache.put(ref, attempt, taken, probability, unsaved_seconds)

    def restore(self, ref: CheckpointRef, peer: tuple[str, int] | None) -> tuple[Any, float]:
        """A state, and the seconds of training that no checkpoint in the store has.

        It is looked for in this worker's memory, in that of the peer (address and slot), and in
        the store.

        Raises
        ------
        CheckpointMissing, CheckpointCorrupt : it is nowhere, or not what was written.
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
                f"the state of trial {ref.trial} at resource {ref.resource} was in the memory of a "
                "worker that has it no more; it goes on from an older one, or trains again"
            )
        return self._store.read(ref), 0.0

    def flush(self, rows: Iterable[int] = (), *, write: bool) -> None:
        """Let go of everything, after writing these rows and what has to be written.

        Parameters
        ----------
        write : what may be needed again is written as well.
        """
        if (cache := self._mailbox.cache) is None:
            return
        for row in rows:
            cache.write(row)
        if not write:
            cache.flush(leaving=False)
        cache.flush(leaving=True, write=write)

    def write_seconds(self) -> float:
        """How long the writes should take that are worth it before the worker goes."""
        cache = self._mailbox.cache
        return 0.0 if cache is None else cache.flush_seconds()

    def close(self, rows: Iterable[int] = (), *, write: bool) -> None:
        """The lease ends; for the parameters see :meth:`flush`."""
        if self._mailbox.cache is None:
            return
        assert self._flush_on_close is not None, "residents without a guard"
        for row in rows:
            self._mailbox.cache.write(row)
        self._mailbox.cache.flush(leaving=True, write=write)
        self._mailbox.cache.close()
        # Nobody waits: the worker may be closing, and waiting for this thread.
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
        """A state from the memory of another worker; None if it is not there any more."""
        from daskhpo.checkpoints.codec import Layout, Snapshot

        request = {"op": FETCH, "channel": self._client.channel, "slot": slot, "row": ref.id}
        try:
            found = self._client.ask_peer(address, request)
        except OSError as error:
            logger.info("row %s could not be had from %s: %s", ref.id, address, error)
            return None
        if found is None:
            return None
        taken = Snapshot(found["row"], Layout.from_json(found["layout"]))
        return taken, found["unsaved_seconds"]

    def _notify(self, note: CacheEvent) -> None:
        from daskhpo.checkpoints.cache_events import (
            StateDropped,
            StateEvicted,
            StateWritten,
            WriteFailed,
        )

        match note:
            case StateWritten(ref, attempt):
                self._client.notify("saved", attempt, ref.plain(), "")
            case StateEvicted(ref, attempt):
                self._client.notify("dropped", attempt, ref.plain(), "it made room for others")
            case StateDropped(ref, attempt, reason):
                self._client.notify("dropped", attempt, ref.plain(), reason)
            case WriteFailed(ref, attempt, error):
                self._client.notify("unsaved", attempt, ref.plain(), error)


class _FlushOnClose(WorkerPlugin):  # type: ignore[misc]
    """Writes what may be needed again when the worker is told to close."""

    def __init__(self, cache: StateCache, client: CoordinatorClient) -> None:
        self.name = f"{client.channel}-states-{client.slot}"
        self._residents, self._link = cache, client

    async def remove(self, worker: Any) -> None:
        """The lease is over."""
        if self.name in worker.plugins:  # else the worker closes, and has removed it
            await worker.plugin_remove(self.name)

    async def teardown(self, worker: Any) -> None:
        if worker.status.name == "running":
            return  # the lease has ended, and has told all itself
        await asyncio.to_thread(self._residents.close)
        try:
            await self._link.resend_notes()
        except OSError as error:
            logger.info("what was written last could not be told: %s", error)


def _share_of_memory(worker: Any) -> int:
    """A quarter of what the worker may use, or of its part of the machine's memory."""
    limit = worker.memory_manager.memory_limit
    if limit is None:
        from dask.system import CPU_COUNT
        from distributed.system import MEMORY_LIMIT

        limit = MEMORY_LIMIT * min(1.0, worker.state.nthreads / CPU_COUNT)
    return int(limit * MEMORY_SHARE)
