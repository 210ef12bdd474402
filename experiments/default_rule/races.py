"""Studies in virtual time, each until a trial is among the best of its table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.coordinator import Problem
from daskhpo.simulation.executor import SimulatedExecutor
from daskhpo.simulation.simulation import simulate
from daskhpo.simulation.stats import SimulationStats
from experiments.default_rule.methods import METHODS
from experiments.default_rule.tables import tables


@dataclass(frozen=True)
class Race:
    """A study of one method on one table; times are in full trainings by one worker."""

    task: str
    variant: str
    method: str
    workers: int
    seed: int
    horizon: float


@dataclass(frozen=True)
class Ran:
    """The outcome of a race.

    Attributes
    ----------
    reached : time at which the target was reached; inf: not by the horizon.
    trials : number of trials.
    cpu : CPU seconds of the whole simulation.
    """

    race: Race
    reached: float
    trials: int
    cpu: float


def run(race: Race, folder: Path) -> Ran:
    """Run one race."""
    table = tables(folder)[race.task, race.variant]
    task, method = table.task, METHODS[race.method]
    problem = Problem(
        table.space,
        task.curves.objective,
        method.scheduler(task.curves.max_t),
        method.searcher(table.units),
        race.seed,
    )
    stats = SimulationStats(task.curves.objective, table.target)
    executor = SimulatedExecutor(table.source(), task.curves.objective, race.workers)
    limits = Limits(time_budget=race.horizon * table.seconds, target=table.target)
    began = time.process_time()
    simulate(problem, executor, limits, CheckpointPolicy(), stats)
    cpu = time.process_time() - began
    return Ran(race, stats.reached / table.seconds, stats.progress.n_trials, cpu)
