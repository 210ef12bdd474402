"""A planned study, and quantities that follow from its size by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf, prod
from typing import Literal

from daskhpo.core.rungs import milestones
from daskhpo.core.space import Categorical, Domain, Integer, Ordinal, Space

Early = Literal["unknown", "telling", "misleading"]

ETA = 3
POPULATIONS = (4, 16)  # members of the smallest and the largest recommended population
RANKINGS = 30  # of a population during a whole training
SHORTEST_SCHEDULE = 4  # units; the least ``max_t`` for a schedule


@dataclass(frozen=True)
class Question:
    """A planned study; fields as for :func:`recommend`, ``seconds`` is the budget."""

    space: Space
    seconds: float
    workers: int
    seconds_per_unit: float
    max_t: int
    early: Early
    schedule: tuple[str, ...]
    architecture: tuple[str, ...]
    models: int

    @property
    def full_trainings(self) -> float:
        """Number of trials that all workers together could train to the end."""
        return self.seconds * self.workers / (self.seconds_per_unit * self.max_t)

    @property
    def grace_period(self) -> int:
        """Resource of the first rung: the less early results predict, the later."""
        share = {"telling": 27, "unknown": 16, "misleading": 9}[self.early]
        return max(1, self.max_t // share)

    @property
    def units_per_trial(self) -> float:
        """Mean units of a trial in a bracket, where one in three passes each rung."""
        rungs = (0, *milestones(self.max_t, self.grace_period, ETA))
        parts = enumerate(pairwise(rungs))
        units: float = sum((end - begin) / ETA**n for n, (begin, end) in parts)
        return units

    @property
    def n_survivors(self) -> float:
        """Number of trials that a bracket would train to the end."""
        n_rungs = len(milestones(self.max_t, self.grace_period, ETA))
        share: float = 1 / ETA ** (n_rungs - 1)
        return self.full_trainings * self.max_t / self.units_per_trial * share

    @property
    def seconds_between_starts(self) -> float:
        """Seconds from one trial's start to the next one's, with early stopping."""
        return self.seconds_per_unit * self.units_per_trial / self.workers

    @property
    def n_combinations(self) -> float:
        """Number of configurations; inf if a hyperparameter is a float."""
        return prod(_size(domain) for domain in self.space.domains.values())

    @property
    def population(self) -> int:
        """Members of a population: all that can be trained to the end, within limits."""
        smallest, largest = POPULATIONS
        return max(smallest, min(largest, int(self.full_trainings)))

    @property
    def interval(self) -> int:
        """Units between two rankings of a population."""
        return max(1, self.max_t // RANKINGS)

    @property
    def stops_early(self) -> bool:
        """True if training is long enough for a rung before its end."""
        return self.max_t >= ETA


def _size(domain: Domain) -> float:
    match domain:
        case Ordinal(values) | Categorical(values):
            return len(values)
        case Integer(low, high):
            return high - low + 1
        case _:
            return inf
