"""Shares the workers of one Dask cluster between the studies that run on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Tenant(Protocol):
    """A study, as the broker sees it."""

    max_slots: float

    @property
    def wanted(self) -> float:
        """Slots that it could fill just now; infinite if that is not known to end."""

    def is_idle(self, worker: str) -> bool:
        """Whether nothing runs on a worker that it has, and it waits for something to do."""

    def stop(self, reason: str) -> None:
        """Come to your end: trials hand over."""

    def can_use(self, worker: Any) -> bool:
        """Whether the worker (its state on the scheduler) offers what a trial needs."""

    def take(self, worker: str) -> None:
        """The worker is yours until you release it."""

    def give_back(self, worker: str) -> None:
        """Release the worker as soon as no trial is in it."""


class Broker:
    """Gives each worker to one study at a time, evenly; lives in the scheduler's event loop.

    A lease never waits in Dask's queue behind another study's, so none can starve or deadlock:
    a worker that should change hands is first given back.
    """

    def __init__(self, workers: Mapping[str, Any]) -> None:
        self._workers = workers
        self._tenants: list[Tenant] = []
        self._holder: dict[str, Tenant] = {}
        self._promised: dict[str, Tenant] = {}
        self._retiring: set[str] = set()  # workers that are not given out any more
        self.n_joined = 0  #: studies so far

    @property
    def wanted(self) -> float:
        """Slots that all studies together could fill just now."""
        return sum(tenant.wanted for tenant in self._tenants)

    def is_idle(self, worker: str) -> bool:
        """Whether no study runs anything on a worker."""
        holder = self._holder.get(worker)
        return holder is None or holder.is_idle(worker)

    def is_held(self, worker: str) -> bool:
        """Whether a study has a lease on a worker."""
        return worker in self._holder

    def stop(self, reason: str) -> None:
        """Have all studies come to their end."""
        for tenant in self._tenants:
            tenant.stop(reason)

    def join(self, tenant: Tenant) -> None:
        """A study comes; from others that hold more than their share it gets some of theirs."""
        self._tenants.append(tenant)
        self.n_joined += 1
        self.share()
        self._rebalance()

    def leave(self, tenant: Tenant) -> None:
        """A study goes; it still releases each worker that it holds when the lease there ends."""
        self._tenants.remove(tenant)
        for worker in [w for w, heir in self._promised.items() if heir is tenant]:
            del self._promised[worker]

    def release(self, worker: str) -> None:
        """The worker's holder has no lease on it any more (or the worker is gone)."""
        self._holder.pop(worker, None)
        heir = self._promised.pop(worker, None)
        if heir is not None and worker in self._workers:
            self._give(worker, heir)
        self.share()

    def retire(self, worker: str) -> None:
        """The worker is about to go: who holds it leaves, and nobody gets it again."""
        if worker in self._workers and worker not in self._retiring:
            self._retiring.add(worker)
            self._promised.pop(worker, None)
            if (holder := self._holder.get(worker)) is not None:
                holder.give_back(worker)

    def is_retiring(self, worker: str) -> bool:
        """Whether the worker is about to go."""
        return worker in self._retiring

    def forget(self, worker: str) -> None:
        """The worker is gone."""
        self._retiring.discard(worker)

    def share(self) -> None:
        """Give every free worker to the study that has least and can use it."""
        for worker, state in list(self._workers.items()):
            if worker in self._holder or worker in self._retiring:
                continue
            takers = [
                tenant
                for tenant in self._tenants
                if self._held(tenant) < tenant.max_slots and tenant.can_use(state)
            ]
            if takers:
                self._give(worker, min(takers, key=self._held))

    def _rebalance(self) -> None:
        while len(self._tenants) > 1:
            poor = min(self._tenants, key=self._held)
            rich = max(self._tenants, key=self._held)
            if self._held(rich) - self._held(poor) <= 1 or self._held(poor) >= poor.max_slots:
                return
            movable = [
                worker
                for worker, holder in self._holder.items()
                if holder is rich
                and worker not in self._promised
                and worker not in self._retiring
                and worker in self._workers
                and poor.can_use(self._workers[worker])
            ]
            if not movable:
                return
            self._promised[movable[-1]] = poor
            rich.give_back(movable[-1])

    def _held(self, tenant: Tenant) -> int:
        """Workers it has, or will have when promises are kept."""
        held = sum(
            holder is tenant and worker not in self._promised
            for worker, holder in self._holder.items()
        )
        return held + sum(heir is tenant for heir in self._promised.values())

    def _give(self, worker: str, tenant: Tenant) -> None:
        self._holder[worker] = tenant
        tenant.take(worker)
