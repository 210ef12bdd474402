"""Sharing of a Dask cluster's workers between the studies that run on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Tenant(Protocol):
    """A study, as the broker sees it."""

    max_slots: float

    @property
    def wanted(self) -> float:
        """Number of slots that it could fill now; infinite if there is no known limit."""

    def is_idle(self, worker: str) -> bool:
        """True if the study holds the worker, and its slot there waits for a trial."""

    def stop(self, reason: str) -> None:
        """Stop the study: its trials are preempted."""

    def can_use(self, worker: Any) -> bool:
        """True if the worker (its state on the scheduler) offers what a trial needs."""

    def take(self, worker: str) -> None:
        """Take the worker, and keep it until the study releases it."""

    def give_back(self, worker: str) -> None:
        """Release the worker as soon as no trial runs on it."""


class Broker:
    """The assignment of workers to studies: one study per worker, in equal shares.

    The broker runs in the scheduler's event loop. A lease never waits in Dask's queue behind
    another study's lease, so no study can starve or deadlock: a worker is released by one study
    before another study takes it.
    """

    def __init__(self, workers: Mapping[str, Any]) -> None:
        self._workers = workers
        self._tenants: list[Tenant] = []
        self._holder: dict[str, Tenant] = {}
        self._promised: dict[str, Tenant] = {}
        self._retiring: set[str] = set()  # workers that are not assigned again
        self._spare: set[str] = set()  # ... only to a study that wants more workers than it has
        self.n_joined = 0  #: studies that have joined so far

    @property
    def wanted(self) -> float:
        """Number of slots that all studies together could fill now."""
        return sum(tenant.wanted for tenant in self._tenants)

    def is_idle(self, worker: str) -> bool:
        """True if no study runs a trial on the worker."""
        holder = self._holder.get(worker)
        return holder is None or holder.is_idle(worker)

    def is_held(self, worker: str) -> bool:
        """True if a study has a lease on the worker."""
        return worker in self._holder

    def stop(self, reason: str) -> None:
        """Stop all studies."""
        for tenant in self._tenants:
            tenant.stop(reason)

    def join(self, tenant: Tenant) -> None:
        """Add a study; those with more than their share release workers to it."""
        self._tenants.append(tenant)
        self.n_joined += 1
        self.share()
        self._rebalance()

    def leave(self, tenant: Tenant) -> None:
        """Remove a study; it releases each worker it holds when the lease there ends."""
        self._tenants.remove(tenant)
        for worker in [w for w, heir in self._promised.items() if heir is tenant]:
            del self._promised[worker]

    def release(self, worker: str) -> None:
        """Reassign a worker whose lease has ended; the worker may also be gone."""
        self._holder.pop(worker, None)
        heir = self._promised.pop(worker, None)
        if heir is not None and worker in self._workers:
            self._give(worker, heir)
        self.share()

    def retire(self, worker: str) -> None:
        """Mark a worker as leaving: its study releases it, and it is not assigned again."""
        if worker in self._workers and worker not in self._retiring:
            self._retiring.add(worker)
            self._promised.pop(worker, None)
            if (holder := self._holder.get(worker)) is not None:
                holder.give_back(worker)

    def spare(self, worker: str) -> None:
        """Free a worker that its study does not need, so that the cluster may close it."""
        if worker not in self._retiring | self._promised.keys():
            self._spare.add(worker)
            self._holder[worker].give_back(worker)

    def forget(self, worker: str) -> None:
        """Remove a worker that has left the cluster."""
        self._retiring.discard(worker)
        self._spare.discard(worker)

    def share(self) -> None:
        """Assign each free worker to the study that has fewest and can use it."""
        for worker, state in list(self._workers.items()):
            if worker in self._holder or worker in self._retiring:
                continue
            is_spare = worker in self._spare
            takers = [
                tenant
                for tenant in self._tenants
                if self._held(tenant) < (tenant.wanted if is_spare else tenant.max_slots)
                and tenant.can_use(state)
            ]
            if takers:
                self._spare.discard(worker)
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
        """Count the study's workers as they will be after all promised transfers."""
        held = sum(
            holder is tenant and worker not in self._promised
            for worker, holder in self._holder.items()
        )
        return held + sum(heir is tenant for heir in self._promised.values())

    def _give(self, worker: str, tenant: Tenant) -> None:
        self._holder[worker] = tenant
        tenant.take(worker)
