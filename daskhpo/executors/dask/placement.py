"""Slots for trials that run once more, because they had too little memory.

One that runs alone has a *home*: a slot of whose device or machine the study's other slots stay
closed, once their trials have left them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from daskhpo.core.commands import Train
from daskhpo.core.out_of_memory import Alone, Larger, MemoryKind, OutOfMemory
from daskhpo.core.types import TrialId


@dataclass(frozen=True, slots=True)
class Site:
    """Machine, devices and memory of a slot.

    Attributes
    ----------
    host : its machine.
    devices : names of its GPUs that all workers of the machine share; none: not known.
    memory, device_memory : bytes that its worker, and its first GPU, have; 0: unknown.
    """

    host: str = ""
    devices: tuple[str, ...] = ()
    memory: int = 0
    device_memory: int = 0

    def of(self, kind: MemoryKind) -> int:
        """Return how many bytes it has of a kind of memory; 0: unknown."""
        return self.device_memory if kind is MemoryKind.DEVICE else self.memory

    def shares(self, other: Site, kind: MemoryKind) -> bool:
        """Return True if both use the same memory of a kind."""
        if self.host != other.host:
            return False
        if kind is not MemoryKind.DEVICE or not (self.devices and other.devices):
            return True
        return not set(self.devices).isdisjoint(other.devices)


class Placements:
    """The sites of all slots, and the homes of trials that run alone."""

    def __init__(self) -> None:
        self._sites: dict[int, Site] = {}
        self._homes: dict[TrialId, tuple[int, MemoryKind]] = {}
        self._most = dict.fromkeys(MemoryKind, 0)  # bytes that any slot has had

    def open(self, slot: int, site: Site) -> None:
        """Add a slot."""
        self._sites[slot] = site
        self._most = {of: max(most, site.of(of)) for of, most in self._most.items()}

    def close(self, slot: int) -> None:
        """Remove a slot; a trial whose home it was needs another one."""
        del self._sites[slot]
        for trial in [trial for trial, (home, _) in self._homes.items() if home == slot]:
            del self._homes[trial]

    def leave(self, trial: TrialId) -> None:
        """Note that a trial has left its slot, or no longer waits for one."""
        self._homes.pop(trial, None)

    @property
    def has_homes(self) -> bool:
        """True if some slots may be closed."""
        return bool(self._homes)

    def is_closed(self, slot: int) -> bool:
        """Return True if a slot shares the memory of a trial that runs alone elsewhere."""
        return any(
            home != slot and self._sites[slot].shares(self._sites[home], kind)
            for home, kind in self._homes.values()
        )

    def is_open(self, slot: int) -> bool:
        """Return True if any trial may begin in a slot."""
        is_home = any(home == slot for home, _ in self._homes.values())
        return not (is_home or self.is_closed(slot))

    def found(self, of: MemoryKind, slot: int) -> OutOfMemory:
        """Return the outcome of a trial that lacked memory in a slot.

        A larger worker counts also while its process is being replaced.
        """
        n_bytes = self._sites[slot].of(of)
        return OutOfMemory(of, n_bytes, 0 < n_bytes < self._most[of])

    def largest(self) -> tuple[int, int]:
        """Return the most bytes that a slot has had: of its machine, of a device."""
        return self._most[MemoryKind.HOST], self._most[MemoryKind.DEVICE]

    def has_larger(self, place: Larger) -> bool:
        """Return True if a slot has more memory than was too little."""
        return any(site.of(place.of) > place.n_bytes for site in self._sites.values())

    def choose(self, job: Train, idle: Collection[int], busy: Collection[int]) -> int | None:
        """Return the slot in which a trial begins now; None: it has to wait.

        Parameters
        ----------
        idle, busy : slots without a trial that may take one, and those with one.
        """
        match job.placement:
            case Larger(of, n_bytes):
                fit = [n for n in idle if self.is_open(n) and self._sites[n].of(of) > n_bytes]
                return min(fit, key=lambda n: self._sites[n].of(of), default=None)
            case Alone(of):
                return self._choose_home(job.trial, of, idle, busy)
        return None

    def _choose_home(
        self, trial: TrialId, of: MemoryKind, idle: Collection[int], busy: Collection[int]
    ) -> int | None:
        def neighbours(slot: int) -> int:
            site = self._sites[slot]
            return sum(n != slot and site.shares(self._sites[n], of) for n in busy)

        if trial not in self._homes:
            free = [slot for slot in idle if self.is_open(slot)]
            if not free:
                return None
            self._homes[trial] = min(free, key=lambda slot: (neighbours(slot), slot)), of
        home, _ = self._homes[trial]
        return home if home in idle and not neighbours(home) else None
