"""Launches that wait for a slot, and the slots that they may have."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence

from daskhpo.core.commands import Train
from daskhpo.core.out_of_memory import Larger
from daskhpo.core.types import TrialId
from daskhpo.executors.dask.placement import Placements
from daskhpo.executors.dask.state_locations import StateLocations

LARGER_SECONDS = 60.0  # for a worker with more memory to come, such as after a resume


def larger_may_come(seconds: float) -> bool:
    """Return True if a study served for so long may still get a larger worker.

    Workers of different sizes come one after another; the first one may lack memory before the
    next one is there.
    """
    return seconds < LARGER_SECONDS


class WaitingLaunches:
    """The launches that wait for a slot, in the order of their turn.

    Parameters
    ----------
    places : which slots may run a trial that lacked memory, and which are closed because of one.
    locations : which slot holds the state of a trial.
    """

    def __init__(self, places: Placements, locations: StateLocations) -> None:
        self._places, self._locations = places, locations
        self._jobs: deque[Train] = deque()
        self._unplaced_since: dict[TrialId, float] = {}  # trials for which no slot is large enough

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Train]:
        return iter([*self._jobs])

    def add(self, job: Train, *, first: bool = False) -> None:
        """Add a launch as the last one, or as the first."""
        if first:
            self._jobs.appendleft(job)
        else:
            self._jobs.append(job)

    def remove(self, job: Train) -> None:
        """Remove a launch, which has a slot now or is withdrawn."""
        self._jobs.remove(job)

    def match(
        self, idle: Sequence[int], staying: Sequence[int], busy: Collection[int]
    ) -> tuple[Train, int] | None:
        """Return a launch and its slot: that which holds its state, if it is idle.

        Parameters
        ----------
        idle : slots without a trial, that with the warmest process last.
        staying : those of them that do not end soon. A trial that lacked memory waits for one.
        busy : slots with a trial.
        """
        first: Train | None = None
        for job in self._jobs:
            if job.placement is not None:
                if (number := self._places.choose(job, staying, busy)) is not None:
                    return job, number
                continue
            first = first or job
            home = self._locations.who_has(job.checkpoint)
            if home is not None and home in idle and self._places.is_open(home):
                return job, home
        free = (number for number in reversed(idle) if self._places.is_open(number))
        number = next(free, None)
        return None if first is None or number is None else (first, number)

    def give_up(self, now: float) -> list[tuple[Train, Larger]]:
        """Remove and return launches that waited too long for a larger worker.

        Parameters
        ----------
        now : seconds since the study began.
        """
        unplaced = [
            (job, place)
            for job in self._jobs
            if isinstance(place := job.placement, Larger) and not self._places.has_larger(place)
        ]
        since = self._unplaced_since
        self._unplaced_since = {job.trial: since.get(job.trial, now) for job, _ in unplaced}
        late = [
            (job, place)
            for job, place in unplaced
            if now >= self._unplaced_since[job.trial] + LARGER_SECONDS
        ]
        for job, _ in late:
            self.remove(job)
            del self._unplaced_since[job.trial]
        return late

    @property
    def deadlines(self) -> list[float]:
        """Seconds since the study began at which launches are given up."""
        return [since + LARGER_SECONDS for since in self._unplaced_since.values()]

    def excess(self, n: int) -> list[Train]:
        """Return the launches beyond the first ``n``, the last one first.

        Those that wait for a certain slot are not among them.
        """
        ordinary = [job for job in self._jobs if job.placement is None]
        return ordinary[::-1][: max(0, len(self._jobs) - n)]
