"""Which method for which budget: recorded learning curves in virtual time.

    python benchmarks/which_method.py [--seeds N] [--gp-seeds N] [--processes N] [--out FILE]

The numbers are those that ``daskhpo.recommend`` refers to. The curves are not part of the project;
see ``curves.py``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from curves import FOLDER, MAX_T, Task, tasks
from showing import about, load, table

from daskhpo.core.scheduler import Scheduler
from daskhpo.curves import Recorded
from daskhpo.schedulers import ASHA, FIFO, AsyncHyperband, Hyperband, MedianStopping
from daskhpo.searchers import GPSearch, RandomSearch
from daskhpo.simulation import Simulation

BUDGETS = (4, 8, 16, 32, 64)  # in full trainings, over all workers
GP_BUDGET = 16  # a model is slow
WORKERS, GP_WORKERS = 8, 4
K = 6

SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "no early stopping": lambda: FIFO(MAX_T),
    "median stopping": lambda: MedianStopping(FIFO(MAX_T), grace_period=3),
    "ASHA, stopping": lambda: ASHA(MAX_T, 1, 3, compare="best"),
    "ASHA, promotion": lambda: ASHA(MAX_T, 1, 3, variant="promotion", compare="best"),
    "ASHA, 2 brackets": lambda: ASHA(MAX_T, 1, 3, brackets=2, compare="best"),
    "AsyncHyperband": lambda: AsyncHyperband(MAX_T, 1, 3, compare="best"),
    "Hyperband": lambda: Hyperband(MAX_T, 1, 3, compare="best"),
}
LADDERS: dict[str, Callable[[], Scheduler]] = {
    f"grace {grace}, η {eta}": partial(ASHA, MAX_T, grace, eta, compare="best")
    for grace, eta in product((1, 3, 9), (2, 3, 4))
}


@dataclass(frozen=True)
class Job:
    """One study in virtual time; its budget is in full trainings."""

    task: int
    scheduler: str
    searcher: str
    workers: int
    seed: int
    budget: int


@cache
def all_tasks() -> list[tuple[Task, np.ndarray, float]]:
    """Tasks, the sorted best losses of their configurations, and the mean full training."""
    found = []
    for task in tasks():
        curves = _curves_of(task)
        best = np.sort([_best(curve.metric(r) for r in range(1, MAX_T + 1)) for curve in curves])
        found.append((task, best, float(np.mean([curve.seconds(MAX_T) for curve in curves]))))
    return found


def _curves_of(task: Task) -> list[Recorded]:
    generator = np.random.default_rng(0)
    return [task.curve(task.space.sample(generator)) for _ in range(1000)]


def _best(losses: Iterable[float]) -> float:
    return min((loss for loss in losses if np.isfinite(loss)), default=np.inf)


def run(job: Job) -> dict[int, tuple[float, float]]:
    """Of each budget: in which share of the configurations the best, and the mean of 6, lies."""
    task, best, full = all_tasks()[job.task]
    searcher = GPSearch() if job.searcher == "GP" else RandomSearch()
    make = SCHEDULERS.get(job.scheduler) or LADDERS[job.scheduler]
    simulation = Simulation(
        task.curve, task.space, "loss", "min", make(), searcher, job.workers, job.seed
    )
    result = simulation.run(time_budget=job.budget * full / job.workers)
    found = {}
    for budget in (b for b in BUDGETS if b <= job.budget):
        until = budget * full / job.workers
        ranks = []
        for k in (1, K):
            curve = result.top_k_curve(k)
            within = curve["mean"][curve["seconds"] <= until]
            loss = within.iloc[-1] if len(within) else np.inf
            ranks.append(float(np.searchsorted(best, loss, side="right")) / len(best))
        found[budget] = (ranks[0], ranks[1])
    return found


def grid(
    schedulers: Iterable[str],
    searchers: Iterable[str],
    workers: int,
    seeds: int,
    budget: int,
    only: Iterable[int] | None = None,
) -> list[Job]:
    """All combinations."""
    places = range(len(all_tasks())) if only is None else only
    everything = product(places, schedulers, searchers, [workers], range(seeds))
    return [Job(*each, budget) for each in everything]


def ranks(
    found: dict[Job, dict[int, tuple[float, float]]], budget: int, place: int, **want: str | int
) -> str:
    """``0.9 / 4.5``: per cent, median of the studies of each family of tasks."""
    families: dict[str, list[float]] = {}
    for job, at in found.items():
        if all(getattr(job, name) == value for name, value in want.items()):
            family = all_tasks()[job.task][0].name.split()[0]
            families.setdefault(family, []).append(100 * at[budget][place])
    return " / ".join(f"{statistics.median(values):.1f}" for values in families.values())


def report(seeds: int, gp_seeds: int, processes: int) -> str:
    """Run everything, and tell."""
    names = [task.name for task, _, _ in all_tasks()]
    few = [names.index(name) for name in _few(names)]
    jobs = grid([*SCHEDULERS, *LADDERS], ["random"], WORKERS, seeds, BUDGETS[-1])
    jobs += grid(
        ["no early stopping", "ASHA, stopping"],
        ["GP", "random"],
        GP_WORKERS,
        gp_seeds,
        GP_BUDGET,
        few,
    )
    with ProcessPoolExecutor(processes) as pool:
        found = dict(zip(jobs, pool.map(run, jobs, chunksize=4), strict=True))
    parts = [
        "# Which method: measured\n",
        about("python benchmarks/which_method.py --out FILE", ["daskhpo", "numpy", "scipy"]),
        INTRODUCTION.format(", ".join(names), seeds, gp_seeds, ", ".join(names[i] for i in few)),
    ]
    for place, title in ((0, "The best trial"), (1, f"The mean of the best {K} trials")):
        parts.append(f"\n## {title}: schedulers, {WORKERS} workers\n")
        head = ["scheduler", *(f"{budget} trainings" for budget in BUDGETS)]
        rows = [
            [name, *(ranks(found, b, place, scheduler=name, workers=WORKERS) for b in BUDGETS)]
            for name in SCHEDULERS
        ]
        parts.append(table(head, rows))
    parts.append(f"\n## The best trial: first rung and η of ASHA, {WORKERS} workers\n")
    rows = [
        [name, *(ranks(found, b, 0, scheduler=name, workers=WORKERS) for b in (8, 16, 64))]
        for name in LADDERS
    ]
    parts.append(table(["ladder", *(f"{b} trainings" for b in (8, 16, 64))], rows))
    budgets = [b for b in BUDGETS if b <= GP_BUDGET]
    for place, title in ((0, "The best trial"), (1, f"The mean of the best {K} trials")):
        parts.append(f"\n## {title}: searchers, {GP_WORKERS} workers\n")
        rows = [
            [
                f"{scheduler}, {searcher}",
                *(
                    ranks(
                        found, b, place, scheduler=scheduler, searcher=searcher, workers=GP_WORKERS
                    )
                    for b in budgets
                ),
            ]
            for scheduler in ("no early stopping", "ASHA, stopping")
            for searcher in ("random", "GP")
        ]
        parts.append(table(["scheduler, searcher", *(f"{b} trainings" for b in budgets)], rows))
    parts += ["", load(), ""]
    return "\n".join(parts)


def _few(names: list[str]) -> list[str]:
    """Two tasks of each family: a model is slow."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.split()[0], []).append(name)
    return [name for members in families.values() for name in members[:2]]


INTRODUCTION = """
Recorded curves ({}) of 50 units, see `benchmarks/curves.py`; {} seeds of each study, {} where a
Gaussian process searches (on {}).

**What the numbers are**: in which per cent of the configurations of the task what was found lies,
by the best loss of each configuration anywhere on its curve; smaller is better. 0.1 is the best of
a thousand. Medians over seeds and tasks, TaskSet / LCBench. A budget is in full trainings of 50
units, all workers together: 32 trainings on 8 workers last as long as four trainings. Ladders
begin at one unit with η 3 where nothing else is said, and compare the best report so far.
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--gp-seeds", type=int, default=2)
    arguments.add_argument("--processes", type=int, default=1)
    arguments.add_argument("--out", type=Path, help="file for the report; default: print it")
    options = arguments.parse_args()
    if not all_tasks():
        print(f"there are no recorded curves in {FOLDER}: nothing to do")
        return
    text = report(options.seeds, options.gp_seeds, options.processes)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
