"""Studies in virtual time, each until a trial is among the best of its table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.coordinator import Problem
from daskhpo.virtual.executor import SimulatedExecutor
from daskhpo.virtual.replay import simulate
from experiments.default_rule.methods import METHODS, OPTUNA
from experiments.default_rule.milestones import Milestones
from experiments.default_rule.tables import FEW, HUNDREDTH, Table, tables

BUDGETS = (1, 4, 16, 64)  # full trainings of all workers together


@dataclass(frozen=True)
class Race:
    """A study of one method on one table; times are in full trainings by one worker.

    Attributes
    ----------
    horizon : time at which it ends at the latest.
    share : it ends when a trial is among this share of the configurations.
    """

    task: str
    variant: str
    method: str
    workers: int
    seed: int
    horizon: float
    share: float


@dataclass(frozen=True)
class Ran:
    """The outcome of a race.

    Attributes
    ----------
    reached, reached_few : time until the best hundredth, and the best 0.2 %; inf: not before the
        study ended.
    rank_1 ... : share of the configurations that are as good as the best trial after so many full
        trainings of all workers together, or better. After its end a study keeps its rank.
    trials : number of trials.
    cpu : CPU seconds of the whole simulation.
    """

    reached: float
    reached_few: float
    rank_1: float
    rank_4: float
    rank_16: float
    rank_64: float
    trials: int
    cpu: float


def run(race: Race, folder: Path) -> Ran:
    """Run one race."""
    table = tables(folder)[race.task, race.variant]
    began = time.process_time()
    found = _simulated(race, table) if race.method != OPTUNA else _of_optuna(race, table)
    cpu = time.process_time() - began
    hundredth, few = (seconds / table.seconds for seconds in found.reached)
    one, four, sixteen, many = (table.rank(loss) for loss in found.best)
    return Ran(hundredth, few, one, four, sixteen, many, found.n_trials, cpu)


def _milestones(race: Race, table: Table) -> Milestones:
    targets = [table.target(HUNDREDTH), table.target(FEW)]
    moments = [budget * table.seconds / race.workers for budget in BUDGETS]
    return Milestones(table.task.curves.objective, targets, moments)


def _simulated(race: Race, table: Table) -> Milestones:
    task, method, found = table.task, METHODS[race.method], _milestones(race, table)
    problem = Problem(
        table.space,
        task.curves.objective,
        method.scheduler(task.curves.max_t),
        method.searcher(table.units),
        race.seed,
    )
    executor = SimulatedExecutor(table.source(), task.curves.objective, race.workers)
    limits = Limits(time_budget=race.horizon * table.seconds, target=table.target(race.share))
    simulate(problem, executor, limits, CheckpointPolicy(), found)
    return found


def _of_optuna(race: Race, table: Table) -> Milestones:
    from experiments.default_rule.peers import play  # Optuna may be missing

    found = _milestones(race, table)
    play(
        table,
        race.workers,
        race.seed,
        race.horizon * table.seconds,
        table.target(race.share),
        found,
    )
    return found
