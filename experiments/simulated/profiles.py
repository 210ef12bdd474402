"""Sizes of the experiment: numbers of studies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from experiments.simulated.methods import BRACKETS, LADDERS, METHODS, Method
from experiments.simulated.races import Race
from experiments.simulated.tables import Task

LADDER_WORKERS = 16
BUDGET_WORKERS = 4
BUDGET = 64.0  # full trainings; less for a small table, whose curves would soon repeat
HARD_WORKERS = 64  # minimum for a hard target: random search takes thousands of trainings to it


@dataclass(frozen=True)
class Profile:
    """One size of the experiment.

    Attributes
    ----------
    seeds : number of workers to number of seeds, for each method on each task. With many workers
        studies take long to simulate and differ little.
    ladder_seeds, budget_seeds : seeds for the grid of rungs, and for studies in a budget.
    """

    name: str
    seeds: Mapping[int, int]
    ladder_seeds: int
    budget_seeds: int

    def races(self, tasks: Iterable[Task]) -> Iterator[Race]:
        """Yield all races."""
        for task in tasks:
            easy, *hard = task.shares
            for workers, seeds in self.seeds.items():
                yield from races(task, METHODS, workers, seeds, easy)
                if workers >= HARD_WORKERS:
                    for share in hard:
                        yield from races(task, METHODS, workers, seeds, share)
            others = {**BRACKETS, **LADDERS}
            yield from races(task, others, LADDER_WORKERS, self.ladder_seeds, easy)
            budget = min(BUDGET, len(task.curves) / 4)
            for name, seed in product(METHODS, range(self.budget_seeds)):
                yield Race(task.name, name, BUDGET_WORKERS, seed, budget)


def races(
    task: Task,
    methods: Iterable[str] | Mapping[str, Method],
    workers: int,
    seeds: int,
    share: float,
) -> Iterator[Race]:
    """Yield races to a target.

    Random search needs ``1 / share`` full trainings on average. The budget is five times that, and
    three more for each worker.
    """
    trainings = 5 / share + 3 * workers
    for name, seed in product(methods, range(seeds)):
        yield Race(task.name, name, workers, seed, trainings, share)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", {1: 3, 16: 3, 64: 3}, ladder_seeds=3, budget_seeds=3),
        Profile(
            "full",
            {1: 100, 4: 100, 16: 100, 64: 50, 256: 20, 1024: 6},
            ladder_seeds=50,
            budget_seeds=30,
        ),
    )
}
