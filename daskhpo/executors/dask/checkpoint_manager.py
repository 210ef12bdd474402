"""A lease's states in its worker's memory: for itself, its peers and the store."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskhpo.core.errors import CheckpointMissing
from daskhpo.core.types import CheckpointPolicy, CheckpointRef, ReuseProbability
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.executors.dask.channel import Channel
from daskhpo.executors.dask.protocol import Peer

if TYPE_CHECKING:
    from daskhpo.checkpoints.cache import StateCache
    from daskhpo.checkpoints.cache_state import CachedState

logger = logging.getLogger("daskhpo.worker")


class CheckpointManager:
    """The part of a lease that saves and restores the states of trials.

    The cache is made for the first state: a study without states has no thread for them.

    Parameters
    ----------
    store : the study's checkpoints.
    channel : the study, which receives what happens to the states, and other workers.
    memory : bytes of memory for states.
    seconds_left : returns the seconds until states should be written; None: no end is known.
    on_open, on_close : called when the cache was made, and after it was closed.
    """

    def __init__(
        self,
        store: CheckpointStore,
        policy: CheckpointPolicy,
        channel: Channel,
        *,
        memory: int,
        seconds_left: Callable[[], float | None] = lambda: None,
        on_open: Callable[[StateCache], None] = lambda cache: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._policy, self._channel = store, policy, channel
        self._memory, self._seconds_left = memory, seconds_left
        self._on_open, self._on_close = on_open, on_close
        self._cache: StateCache | None = None
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

        cache = self._opened()
        buffer = cache.take_buffer(self._n_bytes) if self._n_bytes else None
        taken = snapshot(state, ref.trial, ref.resource, buffer)
        self._n_bytes = taken.n_bytes
        cache.put(ref, attempt, taken, probability, unsaved_seconds)

    def restore(self, ref: CheckpointRef, peer: Peer | None) -> tuple[Any, float]:
        """Return a state, and the seconds of training that the store does not have.

        The state is looked up in this worker's memory, in the peer's, and in the store, in this
        order.

        Raises
        ------
        CheckpointMissing, CheckpointCorrupt : the state was not found, or is not what was written.
        """
        from daskhpo.checkpoints.codec import restore

        if (held := self.get(ref.id)) is not None:
            return restore(held.snapshot), held.unsaved_seconds
        if peer is not None:
            try:
                moved = self._channel.fetch(peer, ref.id)
            except OSError as error:
                logger.info("checkpoint %s could not be fetched from %s: %s", ref.id, peer, error)
                moved = None
            if moved is not None:
                taken, unsaved_seconds = moved
                return restore(taken), unsaved_seconds
        if not ref.array:
            raise CheckpointMissing(
                f"the state of trial {ref.trial} at resource {ref.resource} was only in a worker's "
                "memory and is gone; the trial continues from an older state, or trains again"
            )
        return self._store.read(ref), 0.0

    def flush(self, checkpoint_ids: Iterable[int] = (), *, write: bool) -> None:
        """Empty the cache, after writing these checkpoints and what must be written.

        Parameters
        ----------
        checkpoint_ids : checkpoints that are written whatever it costs.
        write : True: also write what may be needed again.
        """
        if (cache := self._cache) is None:
            return
        for number in checkpoint_ids:
            cache.write(number)
        if not write:
            cache.flush()
        cache.clear(write=write)

    def close(self, checkpoint_ids: Iterable[int] = (), *, write: bool) -> None:
        """Flush and close the cache; parameters as of :meth:`flush`."""
        if (cache := self._cache) is None:
            return
        for number in checkpoint_ids:
            cache.write(number)
        cache.clear(write=write)
        cache.close()
        self._on_close()

    # -- thread-safe: for the study and for other workers ----------------------------------------

    def get(self, checkpoint_id: int) -> CachedState | None:
        """Return a state that is in memory, or None."""
        return None if self._cache is None else self._cache.get(checkpoint_id)

    def write(self, checkpoint_id: int) -> None:
        """Write a state, whatever the cost, if it is in memory."""
        if self._cache is not None:
            self._cache.write(checkpoint_id)

    def discard(self, checkpoint_id: int) -> None:
        """Remove a state that is no longer needed, if it is in memory."""
        if self._cache is not None:
            self._cache.discard(checkpoint_id)

    def write_seconds(self) -> float:
        """Estimate the seconds of all writes that are worthwhile before the worker leaves."""
        return 0.0 if self._cache is None else self._cache.flush_seconds()

    def _opened(self) -> StateCache:
        if self._cache is None:
            from daskhpo.checkpoints.cache import StateCache

            self._store.prepare()
            staging = self._policy.staging
            self._cache = StateCache(
                self._store,
                self._channel.notify,
                capacity=self._memory,
                durability=self._policy.durability,
                staging=Path(os.path.expandvars(staging)) if staging else None,
                seconds_left=self._seconds_left,
            )
            self._on_open(self._cache)
        return self._cache
