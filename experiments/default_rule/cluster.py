"""Compare the default rule with ASHA and AHB on clusters with costs.

    python -m experiments.default_rule.cluster FOLDER

runs studies until a trial is among the best hundredth of its table, or 40 full trainings of each
slot. A full training takes an hour in the median. It writes a table into the README, and another
one of all studies, from which an interrupted run continues.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from daskhpo.core.events import Launched, Record, Reported
from daskhpo.core.types import CheckpointPolicy, Config, Limits
from daskhpo.engine.coordinator import Problem
from daskhpo.simulation.stats import SimulationStats
from daskhpo.virtual.executor import IDEAL_CLUSTER, ClusterModel, SimulatedExecutor
from daskhpo.virtual.replay import simulate
from experiments.default_rule.methods import METHODS
from experiments.default_rule.tables import HUNDREDTH, Table, tables
from experiments.readme import Place

HERE = Path(__file__).parent
COMPARED = ("AHB", "ASHA, stopping", "ASHA, promotion", "GuardedASHA")
REFERENCE = COMPARED[0]
PAUSING = ("AHB", "ASHA, promotion", "GuardedASHA")
HOUR = 3600.0
STATE = 100_000_000  # bytes
SEEDS = 5


@dataclass(frozen=True)
class Site:
    """A cluster, and what is special about its trainings.

    Attributes
    ----------
    spread : of the logarithm of the trials' speeds; each configuration has its own.
    slow : share of the trials that take five times as long.
    sizes : numbers of slots, each for half an hour, in turn.
    horizon : hours.
    """

    slots: int = 16
    model: ClusterModel = IDEAL_CLUSTER
    spread: float = 0.0
    slow: float = 0.0
    sizes: tuple[int, ...] = ()
    horizon: float = 40.0


JOBS = ClusterModel(
    walltime=4 * HOUR, requeue_seconds=300.0, launch_seconds=10.0, state_bytes=STATE
)
SITES = {
    "16 slots without costs": Site(),
    "a launch takes a minute": Site(model=ClusterModel(launch_seconds=60.0)),
    "jobs of four hours, 5 minutes between them": Site(model=JOBS),
    "the same; states that are not written are lost with them": Site(
        model=replace(JOBS, durability=100.0)
    ),
    "trials have no state": Site(model=ClusterModel(state_bytes=None)),
    "speeds of trials differ (σ = 0.7)": Site(spread=0.7),
    "one trial in ten is five times slower": Site(slow=0.1),
    "16, 8, 24, 4 slots, each for half an hour": Site(sizes=(16, 8, 24, 4)),
    "1 slot": Site(slots=1, horizon=320.0),
    "256 slots": Site(slots=256, horizon=8.0),
    "1,024 slots": Site(slots=1024, horizon=4.0),
}


class Slowed:
    """A recorded curve, in hours, at a speed of its own."""

    def __init__(self, table: Table, site: Site, config: Config) -> None:
        self._curve = table.source()(config)
        seed = zlib.crc32(repr(sorted(config.items())).encode())
        draws = np.random.default_rng(seed)
        speed = math.exp(site.spread * draws.standard_normal())
        self._scale = HOUR / table.seconds * speed * (5.0 if draws.random() < site.slow else 1.0)

    def metric(self, resource: int) -> float:
        return self._curve.metric(resource)

    def seconds(self, resource: int) -> float:
        return self._scale * self._curve.seconds(resource)


class Watching:
    """A journal that counts what training and its states cost."""

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
class Key:
    """A study that was run."""

    site: str
    task: str
    method: str
    seed: int


@dataclass(frozen=True)
class Cost:
    """The outcome of a study: hours to its target (inf: never), and counts."""

    hours: float
    trials: int
    units: int
    again: int
    resumed: int
    written: int
    cpu: float


def run(key: Key, folder: Path) -> Cost:
    """Run one study."""
    site, table, method = SITES[key.site], tables(folder)[key.task, ""], METHODS[key.method]
    objective = table.task.curves.objective
    problem = Problem(
        table.space,
        objective,
        method.scheduler(table.task.curves.max_t),
        method.searcher(table.units),
        key.seed,
    )
    target, horizon = table.target(HUNDREDTH), site.horizon * HOUR
    stats = SimulationStats(objective, target)
    watching = Watching(stats)
    sizes = site.sizes or (site.slots,)
    moments = [(n * HOUR / 2, sizes[n % len(sizes)]) for n in range(1, int(2 * site.horizon))]
    executor = SimulatedExecutor(
        partial(Slowed, table, site),
        objective,
        sizes[0],
        moments if site.sizes else (),
        site.model,
    )
    began = time.process_time()
    simulate(
        problem, executor, Limits(time_budget=horizon, target=target), CheckpointPolicy(), watching
    )
    progress = stats.progress
    return Cost(
        stats.reached / HOUR,
        progress.n_trials,
        progress.n_units,
        watching.n_again,
        watching.n_resumed,
        progress.checkpoints.n_written,
        round(time.process_time() - began, 3),
    )


def keys(folder: Path, seeds: int) -> Iterator[Key]:
    """Yield all studies; an interrupted run has some seeds of everything."""
    names = [task for task, variant in tables(folder) if not variant]
    for seed, site, task, method in product(range(seeds), SITES, names, COMPARED):
        yield Key(site, task, method, seed)


def run_all(todo: list[Key], folder: Path, path: Path) -> None:
    """Run the studies that are not in the table at ``path``, and add them to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {astuple(key) for key, _ in read(path)}
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if not done:
            rows.writerow([each.name for kind in (Key, Cost) for each in fields(kind)])
        for key in todo:
            if astuple(key) not in done:
                rows.writerow([*astuple(key), *astuple(run(key, folder))])
                file.flush()


def read(path: Path) -> list[tuple[Key, Cost]]:
    """Read a table of studies."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [_parsed(row) for row in csv.DictReader(file)]


def _parsed(row: dict[str, str]) -> tuple[Key, Cost]:
    counts = {name: int(row[name]) for name in ("trials", "units", "again", "resumed", "written")}
    key = Key(row["site"], row["task"], row["method"], int(row["seed"]))
    return key, Cost(float(row["hours"]), **counts, cpu=float(row["cpu"]))


def text(ran: list[tuple[Key, Cost]]) -> str:
    """Return two tables: times sooner than the reference; what states cost."""
    speeds = [f"| | {' | '.join(COMPARED[1:])} |", "|---" + "|---:" * (len(COMPARED) - 1) + "|"]
    heads = [f"{method}: {what}" for method in PAUSING for what in ("again", "written")]
    states = [f"| | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for site in SITES:
        of = {m: _costs(ran, site, m) for m in COMPARED}
        if not (shared := sorted(set.intersection(*(set(costs) for costs in of.values())))):
            continue
        costs = {m: [of[m][each] for each in shared] for m in COMPARED}
        name = f"{site} ({len(shared)} studies each)"
        cells = [_speed(costs[m], costs[REFERENCE], SITES[site]) for m in COMPARED[1:]]
        speeds.append(f"| {name} | {' | '.join(cells)} |")
        cells = [cell for m in PAUSING for cell in _states(costs[m])]
        states.append(f"| {site} | {' | '.join(cells)} |")
    return "\n".join([*speeds, "", *states])


def _costs(ran: list[tuple[Key, Cost]], site: str, method: str) -> dict[tuple[str, int], Cost]:
    """Return the costs of a method's studies by task and seed."""
    return {(k.task, k.seed): cost for k, cost in ran if (k.site, k.method) == (site, method)}


def _speed(found: list[Cost], reference: list[Cost], site: Site) -> str:
    pairs = zip(found, reference, strict=True)
    gains = np.array([_log(theirs, site) - _log(own, site) for own, theirs in pairs])
    error = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    missed = np.mean([math.isinf(cost.hours) for cost in found])
    never = f"; {100 * missed:.0f} % never" if missed else ""
    return f"{math.exp(float(gains.mean())):.2f} (×/÷ {math.exp(error):.2f}){never}"


def _states(found: list[Cost]) -> tuple[str, str]:
    """Return the share of units trained again, and states written for 100 trials."""
    again = sum(cost.again for cost in found) / sum(cost.units for cost in found)
    written = 100 * sum(cost.written for cost in found) / sum(cost.trials for cost in found)
    return f"{100 * again:.1f} %", f"{written:.0f}"


def _log(cost: Cost, site: Site) -> float:
    return math.log(min(cost.hours, site.horizon))


def main() -> None:
    """Run all studies and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the recorded curves")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--storage", type=Path, default=Path("runs/default_rule"))
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    options = parser.parse_args()
    place, path = Place(options.readme, "cluster"), options.storage / "cluster.csv"
    run_all(list(keys(options.folder, options.seeds)), options.folder, path)
    place.fill(text(read(path)))


if __name__ == "__main__":
    main()
