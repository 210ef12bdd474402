"""Measure the checkpoints of paused trials under the default rule.

    python -m experiments.default_rule.checkpoints FOLDER

runs studies of equal time on 16 slots that are Slurm jobs of four hours, with states of 100 MB.
A full training takes an hour. It prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from daskhpo.core.events import Launched, Record
from daskhpo.core.types import CheckpointPolicy, Config, Limits, Status
from daskhpo.engine.coordinator import Problem
from daskhpo.simulation.stats import SimulationStats
from daskhpo.virtual.executor import ClusterModel, SimulatedExecutor
from daskhpo.virtual.replay import simulate
from experiments.default_rule.methods import METHODS
from experiments.default_rule.tables import Table, tables

COMPARED = ("ASHA, promotion", "AHB", "GuardedASHA")
HOUR = 3600.0
SITE = ClusterModel(
    walltime=4 * HOUR,
    requeue_seconds=60.0,
    launch_seconds=2.0,
    state_bytes=100_000_000,
    durability=100.0,
)


class Hourly:
    """A recorded curve whose median full training takes an hour."""

    def __init__(self, table: Table, config: Config) -> None:
        self._curve = table.source()(config)
        self._scale = HOUR / table.seconds

    def metric(self, resource: int) -> float:
        return self._curve.metric(resource)

    def seconds(self, resource: int) -> float:
        return self._scale * self._curve.seconds(resource)


class Watching:
    """A journal that counts resumptions, and those without a state."""

    def __init__(self, stats: SimulationStats) -> None:
        self._apply: Callable[[Record], None] = stats.append
        self.n_resumed = self.n_from_start = 0

    def append(self, record: Record) -> None:
        self._apply(record)
        if isinstance(record, Launched) and record.attempt > 1:
            self.n_resumed += 1
            self.n_from_start += record.resource == 0

    def flush(self) -> None:
        pass


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the recorded curves")
    parser.add_argument("--hours", type=float, default=8.0)
    options = parser.parse_args()
    print("| | trials | fully trained | resumed | of these, without a state | written | at most |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for (task, variant), table in tables(options.folder).items():
        for name in COMPARED if not variant else ():
            method, objective = METHODS[name], table.task.curves.objective
            scheduler = method.scheduler(table.task.curves.max_t)
            searcher = method.searcher(table.units)
            problem = Problem(table.space, objective, scheduler, searcher, 0)
            stats = SimulationStats(objective)
            watching = Watching(stats)
            executor = SimulatedExecutor(partial(Hourly, table), objective, 16, (), SITE)
            limits = Limits(time_budget=options.hours * HOUR)
            simulate(problem, executor, limits, CheckpointPolicy(), watching)
            states, counts = stats.progress.checkpoints, stats.progress.counts
            cells = [stats.progress.n_trials, counts[Status.COMPLETED]]
            cells += [watching.n_resumed, watching.n_from_start, states.n_written, states.max_files]
            print(f"| {task}, {name} | {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
