"""Measure what PASHA saves, and whether it finds as good a configuration.

    python -m experiments.default_rule.pasha FOLDER

runs studies of 256 random configurations with four workers. Of each study the best trial's
configuration is trained to the end. Compared are the units of the study, and the rank of that
configuration at the end of its training. It writes a table into the README.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daskhpo.core.events import Record, Reported
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.coordinator import Problem
from daskhpo.schedulers import ASHA, FIFO, PASHA
from daskhpo.simulation.stats import SimulationStats
from daskhpo.virtual.executor import SimulatedExecutor
from daskhpo.virtual.replay import simulate
from experiments.default_rule.methods import Recorded
from experiments.default_rule.tables import Table, tables
from experiments.readme import Place

HERE = Path(__file__).parent
N_TRIALS, WORKERS, SEEDS = 256, 4, 7
SCHEDULERS: Mapping[str, Callable[[int], Scheduler]] = {
    "every trial to the end": FIFO,
    "one unit each": lambda max_t: FIFO(1),
    "ASHA, promotion": partial(ASHA, variant="promotion"),
    "PASHA": PASHA,
}


class Longest(SimulationStats):
    """A journal that also knows the longest training."""

    longest = 0

    def append(self, record: Record) -> None:
        super().append(record)
        if isinstance(record, Reported):
            self.longest = max(self.longest, record.steps[-1].resource)


class Ran(NamedTuple):
    """A study: units, time, longest training, and the winner's rank, per cent.

    The time is in full trainings by one worker.
    """

    units: int
    time: float
    longest: int
    rank: float


def run(table: Table, scheduler: Scheduler, seed: int) -> Ran:
    """Run one study."""
    objective = table.task.curves.objective
    problem = Problem(table.space, objective, scheduler, Recorded(table.units), seed)
    stats = Longest(objective)
    executor = SimulatedExecutor(table.source(), objective, WORKERS)
    simulate(problem, executor, Limits(N_TRIALS), CheckpointPolicy(), stats)
    best = stats.progress.best
    assert best is not None, "no trial reported"
    full = table.source()(best.config)
    found = min(full.metric(r) for r in range(1, table.task.curves.max_t + 1))
    spent = stats.progress.slot_time.now / table.seconds
    return Ran(stats.progress.n_units, spent, stats.longest, 100 * table.rank(found))


def text(folder: Path, seeds: int) -> str:
    """Return the medians of units, of the longest training and of the rank."""
    lines = [
        f"| | {' | '.join(SCHEDULERS)} |",
        "|---" + "|---:" * len(SCHEDULERS) + "|",
    ]
    for (task, variant), table in tables(folder).items():
        if variant:
            continue
        cells = []
        for make in SCHEDULERS.values():
            scheduler = make(table.task.curves.max_t)
            ran = np.array([run(table, scheduler, seed) for seed in range(seeds)])
            units, spent, longest, rank = np.median(ran, axis=0)
            cells.append(f"{units:,.0f}; {spent:.2g}; {longest:.0f}; {rank:.2g}")
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run all studies and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the recorded curves")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    options = parser.parse_args()
    Place(options.readme, "pasha").fill(text(options.folder, options.seeds))


if __name__ == "__main__":
    main()
