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

from daskhpo.core.types import Chance, CheckpointPolicy, CheckpointRef
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.executors.dask.client import Link
from daskhpo.executors.dask.shutdown import Ending

if TYPE_CHECKING:
    from daskhpo.checkpoints.cache import Residents
    from daskhpo.checkpoints.cache_events import Note
    from daskhpo.checkpoints.codec import Snapshot

logger = logging.getLogger("daskhpo.worker")

TELL = "daskhpo-tell"  # message on Dask's stream from the scheduler to a worker
FETCH = "daskhpo-fetch"  # question of one worker to another
MEMORY_SHARE = 0.25  # of the worker's memory, for states


@dataclass(slots=True)
class Mailbox:
    """What the study tells a lease while that is busy; filled in the worker's event loop."""

    interrupts: set[tuple[int, int]] = field(default_factory=set)  # (trial, attempt) to hand over
    residents: Residents | None = None


# By channel and slot. Made at the first mention: a message may overtake what it is about.
mailboxes: defaultdict[tuple[str, int], Mailbox] = defaultdict(Mailbox)


def install(worker: Any) -> None:
    """Let a worker understand what studies and other workers say to its leases."""
    worker.stream_handlers.setdefault(TELL, _on_tell)
    worker.handlers.setdefault(FETCH, _on_fetch)


def _on_tell(channel: str, slot: int, what: str, numbers: tuple[int, ...]) -> None:
    box = mailboxes[channel, slot]
    if what == "interrupt":
        trial, attempt = numbers
        box.interrupts.add((trial, attempt))
    elif box.residents is not None:
        (row,) = numbers
        if what == "forget":
            box.residents.forget(row)
        else:
            box.residents.write(row)


async def _on_fetch(comm: Any, channel: str, slot: int, row: int) -> dict[str, Any] | None:
    from distributed.protocol import to_serialize

    box = mailboxes.get((channel, slot))
    held = None if box is None or box.residents is None else box.residents.fetch(row)
    if held is None:
        return None
    return {
        "row": to_serialize(held.snapshot.row),
        "layout": held.snapshot.layout.to_json(),
        "unsaved_seconds": held.unsaved_seconds,
    }


class Keeper:
    """Takes and gives back the states of a lease's trials.

    Parameters
    ----------
    store : the study's checkpoints.
    """

    def __init__(
        self,
        worker: Any,
        link: Link,
        ending: Ending,
        store: CheckpointStore,
        policy: CheckpointPolicy,
    ) -> None:
        self._worker, self._link, self._ending = worker, link, ending
        self._store, self._policy = store, policy
        self._box = mailboxes[link.channel, link.slot]
        self._guard: _Guard | None = None
        self._n_bytes = 0  # of the last state: the next one is likely to have as many

    def take(
        self, ref: CheckpointRef, attempt: int, state: Any, chance: Chance, unsaved_seconds: float
    ) -> None:
        """Keep a copy of a state, and write it if and when that is worth it.

        Raises
        ------
        StateNotSupported : it holds something that a checkpoint cannot hold.
        """
        from daskhpo.checkpoints.codec import snapshot

        residents = self._residents()
        buffer = residents.buffer(self._n_bytes) if self._n_bytes else None
        taken = snapshot(state, ref.trial, ref.resource, buffer)
        self._n_bytes = taken.n_bytes
        residents.hold(ref, attempt, taken, chance, unsaved_seconds)

    def give(self, ref: CheckpointRef, peer: tuple[str, int] | None) -> tuple[Any, float]:
        """A state, and the seconds of training that no checkpoint in the store has.

        It is looked for in this worker's memory, in that of the peer (address and slot), and in
        the store.

        Raises
        ------
        CheckpointMissing, CheckpointCorrupt : it is nowhere, or not what was written.
        """
        from daskhpo.checkpoints.codec import restore

        residents = self._box.residents
        held = None if residents is None else residents.fetch(ref.row)
        if held is not None:
            return restore(held.snapshot), held.unsaved_seconds
        if peer is not None and (moved := self._moved(ref, *peer)) is not None:
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
        if (residents := self._box.residents) is None:
            return
        for row in rows:
            residents.write(row)
        if not write:
            residents.flush(leaving=False)
        residents.flush(leaving=True, write=write)

    def write_seconds(self) -> float:
        """How long the writes should take that are worth it before the worker goes."""
        residents = self._box.residents
        return 0.0 if residents is None else residents.seconds_to_leave()

    def close(self, rows: Iterable[int] = (), *, write: bool) -> None:
        """The lease ends; for the parameters see :meth:`flush`."""
        if self._box.residents is None:
            return
        assert self._guard is not None, "residents without a guard"
        for row in rows:
            self._box.residents.write(row)
        self._box.residents.flush(leaving=True, write=write)
        self._box.residents.close()
        # Nobody waits: the worker may be closing, and waiting for this thread.
        self._worker.loop.add_callback(self._guard.leave, self._worker)

    def _residents(self) -> Residents:
        if self._box.residents is None:
            from daskhpo.checkpoints.cache import Residents

            policy, memory = self._policy, self._policy.memory
            self._box.residents = Residents(
                self._store,
                self._tell,
                capacity=_share_of_memory(self._worker) if memory is None else memory,
                durability=policy.durability,
                staging=Path(os.path.expandvars(policy.staging)) if policy.staging else None,
                seconds_left=self._ending.seconds_left,
            )
            self._guard = _Guard(self._box.residents, self._link)
            add = self._worker.plugin_add(self._guard, name=self._guard.name)
            asyncio.run_coroutine_threadsafe(add, self._worker.loop.asyncio_loop).result()
        return self._box.residents

    def _moved(self, ref: CheckpointRef, address: str, slot: int) -> tuple[Snapshot, float] | None:
        """A state from the memory of another worker; None if it is not there any more."""
        from daskhpo.checkpoints.codec import Layout, Snapshot

        request = {"op": FETCH, "channel": self._link.channel, "slot": slot, "row": ref.row}
        try:
            found = self._link.ask_peer(address, request)
        except OSError as error:
            logger.info("row %s could not be had from %s: %s", ref.row, address, error)
            return None
        if found is None:
            return None
        taken = Snapshot(found["row"], Layout.from_json(found["layout"]))
        return taken, found["unsaved_seconds"]

    def _tell(self, note: Note) -> None:
        from daskhpo.checkpoints.cache_events import Dropped, Evicted, Unwritable, Written

        match note:
            case Written(ref, attempt):
                self._link.note("saved", attempt, ref.plain(), "")
            case Evicted(ref, attempt):
                self._link.note("dropped", attempt, ref.plain(), "it made room for others")
            case Dropped(ref, attempt, reason):
                self._link.note("dropped", attempt, ref.plain(), reason)
            case Unwritable(ref, attempt, error):
                self._link.note("unsaved", attempt, ref.plain(), error)


class _Guard(WorkerPlugin):  # type: ignore[misc]
    """Writes what may be needed again when the worker is told to close."""

    def __init__(self, residents: Residents, link: Link) -> None:
        self.name = f"{link.channel}-states-{link.slot}"
        self._residents, self._link = residents, link

    async def leave(self, worker: Any) -> None:
        """The lease is over."""
        if self.name in worker.plugins:  # else the worker closes, and has removed it
            await worker.plugin_remove(self.name)

    async def teardown(self, worker: Any) -> None:
        if worker.status.name == "running":
            return  # the lease has ended, and has told all itself
        await asyncio.to_thread(self._residents.close)
        try:
            await self._link.last_notes()
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
