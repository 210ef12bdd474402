"""Measure the checkpoints of paused trials under the default rule.

    python -m experiments.default_rule.checkpoints FOLDER

runs studies of equal time on 16 slots that are Slurm jobs of four hours, with states of 100 MB,
and with room for any number of them, for 100 and for 30. A full training takes an hour. It writes a
table into the README.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path

from daskhpo.core.events import Launched, Record, Reported
from daskhpo.core.searcher import Searcher
from daskhpo.core.types import CheckpointPolicy, Choose, Config, Limits, Status, Trial
from daskhpo.engine.coordinator import Problem
from daskhpo.simulation.stats import SimulationStats
from daskhpo.virtual.executor import ClusterModel, SimulatedExecutor
from daskhpo.virtual.replay import simulate
from experiments.default_rule.methods import METHODS
from experiments.default_rule.tables import Table, tables
from experiments.readme import Place

HERE = Path(__file__).parent
RULE = "GuardedASHA"
BY_LOSS = "GuardedASHA, states deleted by loss alone"
COMPARED = ("ASHA, promotion", "AHB", RULE, BY_LOSS)
BUDGETS = (None, 100, 30)  # states
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
    """A journal that counts resumptions, and units that were trained again."""

    def __init__(self, stats: SimulationStats) -> None:
        self._stats = stats
        self.n_resumed = self.n_again = 0

    def append(self, record: Record) -> None:
        self._stats.append(record)
        if isinstance(record, Launched):
            self.n_resumed += record.attempt > 1
        elif isinstance(record, Reported):
            self.n_again += len(record.steps) - len(self._stats.progress.new_steps)

    def flush(self) -> None:
        pass


@dataclass(frozen=True)
class Cost:
    """Counts of one study; ``stored``: states, at most."""

    trials: int
    full: int
    units: int
    again: int
    resumed: int
    written: int
    stored: int


def _alike(trials: Sequence[Trial], choice: Choose) -> list[float]:
    return [1.0] * len(trials)


def _searcher(name: str, table: Table) -> Searcher:
    searcher = METHODS[RULE if name == BY_LOSS else name].searcher(table.units)
    if name == BY_LOSS:
        vars(searcher)["chances"] = _alike
    return searcher


def run(table: Table, name: str, budget: int | None, seed: int, hours: float) -> Cost:
    """Run one study."""
    objective = table.task.curves.objective
    scheduler = METHODS[RULE if name == BY_LOSS else name].scheduler(table.task.curves.max_t)
    problem = Problem(table.space, objective, scheduler, _searcher(name, table), seed)
    stats = SimulationStats(objective)
    watching = Watching(stats)
    executor = SimulatedExecutor(partial(Hourly, table), objective, 16, (), SITE)
    policy = CheckpointPolicy(max_files=budget)
    simulate(problem, executor, Limits(time_budget=hours * HOUR), policy, watching)
    progress = stats.progress
    return Cost(
        progress.n_trials,
        progress.counts[Status.COMPLETED],
        progress.n_units,
        watching.n_again,
        watching.n_resumed,
        progress.checkpoints.n_written,
        progress.checkpoints.max_files,
    )


def row(costs: Sequence[Cost]) -> list[str]:
    """Return the cells of a method: medians, and the share of all units."""

    def median(name: str) -> float:
        return float(statistics.median(getattr(cost, name) for cost in costs))

    units, again = (sum(getattr(cost, name) for cost in costs) for name in ("units", "again"))
    counts = [f"{median(name):,.0f}" for name in ("trials", "full", "units", "resumed", "written")]
    written = median("written") * (SITE.state_bytes or 0) / 1e9
    return [*counts, f"{written:.0f}", f"{median('stored'):,.0f}", f"{100 * again / units:.1f} %"]


def main() -> None:
    """Run all studies and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the recorded curves")
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    options = parser.parse_args()
    place = Place(options.readme, "checkpoints")
    found = [table for (_, variant), table in tables(options.folder).items() if not variant]
    heads = ["room", "method", "trials", "trained to the end", "units", "resumed"]
    heads += ["states written", "GB written", "stored at most", "units trained again"]
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    for budget, name in product(BUDGETS, COMPARED):
        if budget is None and name == BY_LOSS:
            continue  # nothing is deleted
        each = product(range(options.seeds), found)
        costs = [run(table, name, budget, seed, options.hours) for seed, table in each]
        room = "any number" if budget is None else f"{budget} states"
        lines.append([room, name, *row(costs)])
        print(f"| {' | '.join(lines[-1])} |", flush=True)
    seeds = f"{options.seeds} seed{'s' * (options.seeds > 1)}"
    head = (
        f"{date.today()}, {platform.system()} {platform.machine()}: {len(found)} tasks, {seeds} "
        f"of each, {options.hours:g} hours. Medians."
    )
    place.fill(f"{head}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
