"""Compare methods for each budget, on recorded learning curves in virtual time.

    python benchmarks/which_method.py [--seeds N] [--gp-seeds N] [--processes N] [--out FILE]

``daskhpo.recommend`` refers to these numbers. The curves are not part of the project; see
``curves.py``.
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
from typing import Literal

import numpy as np
from curves import FOLDER, MAX_T, Task, tasks
from showing import about, load, table

from daskhpo.core.scheduler import Scheduler
from daskhpo.schedulers import ASHA, FIFO, AsyncHyperband, Hyperband, MedianStopping
from daskhpo.searchers import GPSearch, RandomSearch
from daskhpo.simulation import Simulation
from daskhpo.simulation.curves import RecordedCurve
from experiments.simulated import tables
from experiments.simulated.crossing import crossing

BUDGETS = (4, 8, 16, 32, 64)  # in full trainings, over all workers
LADDER_BUDGETS = (8, 16, 64)
GP_BUDGET = 32  # a model is slow
WORKERS, GP_WORKERS = 8, 4
K = 6
# Shares of the best configurations in the best third after one unit: at least, at most.
TELLING, MISLEADING = 0.8, 0.5
KINDS = ("telling", "misleading")

SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "no early stopping": lambda: FIFO(MAX_T),
    "median stopping": lambda: MedianStopping(FIFO(MAX_T), grace_period=3),
    "ASHA, stopping": lambda: ASHA(MAX_T, 1, 3, compare="best"),
    "ASHA, promotion": lambda: ASHA(MAX_T, 1, 3, variant="promotion", compare="best"),
    "AsyncHyperband": lambda: AsyncHyperband(MAX_T, 1, 3, compare="best"),
    "Hyperband": lambda: Hyperband(MAX_T, 1, 3, compare="best"),
}
VARIANTS: tuple[Literal["stopping", "promotion"], ...] = ("stopping", "promotion")
LADDERS: dict[str, Callable[[], Scheduler]] = {
    f"{variant}, {brackets} bracket{'s' * (brackets > 1)}, first rung {grace}": partial(
        ASHA, MAX_T, grace, 3, brackets=brackets, variant=variant, compare="best"
    )
    for variant, brackets, grace in product(VARIANTS, (1, 2), (1, 3, 5, 9))
}


@dataclass(frozen=True)
class Job:
    """A study in virtual time; its budget is in full trainings."""

    task: int
    scheduler: str
    searcher: str
    workers: int
    seed: int
    budget: int
    smooth: bool = False


@dataclass(frozen=True)
class Known:
    """A task with statistics of its curves.

    Attributes
    ----------
    best : sorted best losses of its configurations.
    full : mean seconds of a full training.
    kept : share of its best 1 % that is in the best third after one unit.
    """

    task: Task
    best: np.ndarray
    full: float
    kept: float

    @property
    def kind(self) -> str:
        """The kind of its early ranks."""
        if self.kept >= TELLING:
            return "telling"
        return "misleading" if self.kept <= MISLEADING else "between"


@cache
def all_tasks(smooth: bool = False) -> list[Known]:
    """Load all tasks, in a fixed order; see :func:`curves.tasks`."""
    kept = {t.name: crossing(t, 1).kept for t in [*tables.taskset(FOLDER), *tables.lcbench(FOLDER)]}
    found = []
    for task in tasks(smooth=smooth):
        curves = _curves_of(task)
        best = np.sort([_best(curve.metric(r) for r in range(1, MAX_T + 1)) for curve in curves])
        full = float(np.mean([curve.seconds(MAX_T) for curve in curves]))
        found.append(Known(task, best, full, kept[task.name]))
    return found


def _curves_of(task: Task) -> list[RecordedCurve]:
    generator = np.random.default_rng(0)
    return [task.curve(task.space.sample(generator)) for _ in range(1000)]


def _best(losses: Iterable[float]) -> float:
    return min((loss for loss in losses if np.isfinite(loss)), default=np.inf)


def run(job: Job) -> dict[int, tuple[float, float]]:
    """Return ranks by budget: of the best trial, and of the mean of the best six.

    A rank is the share of configurations whose best loss is at most that loss.
    """
    known = all_tasks(job.smooth)[job.task]
    task, best, full = known.task, known.best, known.full
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
    smooth: bool = False,
) -> list[Job]:
    """Return the studies of all combinations."""
    numbers = range(len(all_tasks())) if only is None else only
    everything = product(numbers, schedulers, searchers, [workers], range(seeds))
    return [Job(*each, budget, smooth) for each in everything]


def ranks(
    found: dict[Job, dict[int, tuple[float, float]]], budget: int, place: int, **want: str | int
) -> str:
    """Format the median ranks by kind of task, in per cent: ``0.9 / 4.5``."""
    kinds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for job, at in found.items():
        kind = all_tasks()[job.task].kind
        if kind in kinds and all(getattr(job, name) == value for name, value in want.items()):
            kinds[kind].append(100 * at[budget][place])
    return " / ".join(f"{statistics.median(v):.1f}" if v else "—" for v in kinds.values())


def report(seeds: int, gp_seeds: int, processes: int) -> str:
    """Run all studies and return the report."""
    known = all_tasks()
    few = [known.index(each) for each in _few(known)]
    jobs = grid([*SCHEDULERS, *LADDERS], ["random"], WORKERS, seeds, BUDGETS[-1])
    jobs += grid(SEARCHED, ["GP", "random"], GP_WORKERS, gp_seeds, GP_BUDGET, few, True)
    with ProcessPoolExecutor(processes) as pool:
        found = dict(zip(jobs, pool.map(run, jobs, chunksize=4), strict=True))
    parts = [
        "# Which method: measured\n",
        about("python benchmarks/which_method.py --out FILE", ["daskhpo", "numpy", "scipy"]),
        INTRODUCTION.format(
            *(", ".join(k.task.name for k in known if k.kind == kind) for kind in KINDS),
            seeds,
            gp_seeds,
            ", ".join(known[i].task.name for i in few),
        ),
    ]
    for place, title in ((0, "The best trial"), (1, f"The mean of the best {K} trials")):
        parts += [f"\n## {title}: schedulers, {WORKERS} workers\n"]
        parts += [_schedulers(found, place, SCHEDULERS, BUDGETS)]
    for place, title in ((0, "The best trial"), (1, f"The mean of the best {K} trials")):
        parts += [f"\n## {title}: ladders of ASHA, {WORKERS} workers\n"]
        parts += [_schedulers(found, place, LADDERS, LADDER_BUDGETS)]
    budgets = [b for b in BUDGETS if b <= GP_BUDGET]
    for place, title in ((0, "The best trial"), (1, f"The mean of the best {K} trials")):
        parts += [f"\n## {title}: searchers, {GP_WORKERS} workers\n"]
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
            for scheduler in SEARCHED
            for searcher in ("random", "GP")
        ]
        parts += [table(["scheduler, searcher", *(f"{b} trainings" for b in budgets)], rows)]
    return "\n".join([*parts, "", load(), ""])


SEARCHED = ("no early stopping", "ASHA, stopping")


def _schedulers(
    found: dict[Job, dict[int, tuple[float, float]]],
    place: int,
    names: Iterable[str],
    budgets: Iterable[int],
) -> str:
    rows = [
        [name, *(ranks(found, b, place, scheduler=name, workers=WORKERS) for b in budgets)]
        for name in names
    ]
    return table(["scheduler", *(f"{b} trainings" for b in budgets)], rows)


def _few(known: list[Known]) -> list[Known]:
    """Select two tasks of each kind for the studies with a model, which are slow."""
    kinds: dict[str, list[Known]] = {kind: [] for kind in KINDS}
    for each in known:
        kinds.get(each.kind, []).append(each)
    return [each for members in kinds.values() for each in members[:2]]


INTRODUCTION = """
Recorded curves of 50 units, see `benchmarks/curves.py`, of two kinds. Early ranks **tell** on {}:
of the best 1 %, at least 80 % are in the best third after one unit. They **mislead** on {}:
at most half are. Each study has {} seeds, or {} in comparisons with a Gaussian process
(on {}, with a regression between the recorded curves).

**The numbers** are ranks in per cent: what was found is among that share of the task's
configurations, ordered by the best loss anywhere on their curves. Smaller is better; 0.1 is the
best of a thousand. Medians over seeds and tasks, telling / misleading. A budget is in full
trainings of 50 units, all workers together: 32 trainings on 8 workers last as long as four
trainings. Ladders start at one unit unless stated otherwise; η is 3, and the best report so far is
compared.
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=40)
    arguments.add_argument("--gp-seeds", type=int, default=30)
    arguments.add_argument("--processes", type=int, default=1)
    arguments.add_argument("--out", type=Path, help="file for the report; default: print it")
    options = arguments.parse_args()
    if not all_tasks():
        print(f"no recorded curves in {FOLDER}: nothing to do")
        return
    text = report(options.seeds, options.gp_seeds, options.processes)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
