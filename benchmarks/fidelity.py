"""Compare ways to use resources in a model, and a model with random search.

    python benchmarks/fidelity.py [--curves FOLDER] [--keep FOLDER] [--out FILE]

These are simulated studies of ASHA on recorded learning curves (``curves.py``), with 64 slots, in
equal virtual time. With ``--keep`` measurements are stored in a folder, and only missing ones are
made.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from curves import FOLDER, Task, tasks
from showing import about, load, table

from daskhpo.core.events import Ended, Launched, Record, SessionStarted, SlotsChanged, StopRequested
from daskhpo.core.objective import Objective
from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Config, Limits, Report, Trial, TrialId
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA
from daskhpo.searchers import GPSearch, RandomSearch
from daskhpo.virtual.executor import SimulatedExecutor

N_SLOTS, MAX_T = 64, 27
TASKS = ("TaskSet avg", "LCBench 3945", "LCBench 167104")
N_POINTS = 8  # number of times at which studies are compared
Study = dict[str, Any]
Choose = Callable[[Mapping[int, int], int], int]


class OneRung(Searcher):
    """A GPSearch that learns from one resource only, chosen before each suggestion.

    Parameters
    ----------
    choose : returns the resource; arguments: number of reports by resource, number of domains.
    """

    def __init__(self, choose: Choose) -> None:
        self._choose = choose

    def setup(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._events: list[Callable[[GPSearch], None]] = []
        self._n_reports: Counter[int] = Counter()
        self._begin(0)

    def suggest(self, trial: TrialId) -> dict[str, Any]:
        resource = self._choose(self._n_reports, len(self._space.domains))
        if resource != self._resource:
            self._begin(resource)
        return self._model.suggest(trial)

    def on_start(self, trial: TrialId, config: Config) -> None:
        self._add(lambda model: model.on_start(trial, config))

    def observe(self, trial: Trial, report: Report) -> None:
        self._n_reports[report.resource] += 1

        def tell(model: GPSearch) -> None:
            if report.resource == self._resource:
                model.observe(trial, report)

        self._add(tell)

    def on_end(self, trial: Trial) -> None:
        self._add(lambda model: model.on_end(trial))

    def _add(self, event: Callable[[GPSearch], None]) -> None:
        self._events.append(event)
        event(self._model)

    def _begin(self, resource: int) -> None:
        self._model, self._resource = GPSearch(), resource
        self._model.setup(self._space, self._seed)
        for event in self._events:
            event(self._model)


def largest(n_reports: Mapping[int, int], n_domains: int) -> int:
    """Return the largest resource with enough reports.

    This is the rule of BOHB (Falkner et al. 2018, Sec. 4).
    """
    enough = [resource for resource, n in n_reports.items() if n >= n_domains + 2]
    return max(enough, default=min(n_reports, default=0))


RANDOM, INPUT = "random search", "resource as an input"
VARIANTS: dict[str, tuple[Callable[[], Searcher], int]] = {  # with the number of seeds
    RANDOM: (RandomSearch, 10),
    INPUT: (GPSearch, 10),
    "largest resource with enough reports": (lambda: OneRung(largest), 5),
    "full trainings only": (lambda: OneRung(lambda *_: MAX_T), 5),
}


class Watching:
    """A journal that applies records to a result and sums the idle time of slots."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._n_slots = self._n_running = 0
        self._now = self.idle = 0.0
        self._wanted = True

    def append(self, record: Record) -> None:
        self._result.apply(record)
        if self._wanted:
            self.idle += (self._n_slots - self._n_running) * (record.seconds - self._now)
        self._now = record.seconds
        match record:
            case SlotsChanged(n_slots):
                self._n_slots = n_slots
            case Launched():
                self._n_running += 1
            case Ended():
                self._n_running -= 1
            case StopRequested():  # slots that become free from now on are not idle
                self._wanted = False

    def flush(self) -> None:
        pass


def one_study(task: Task, make: Callable[[], Searcher], seed: int, seconds: float) -> Study:
    """Run a study; return its best losses by time, trials and idle slot-seconds."""
    objective = Objective("loss")
    result = Result((), objective)
    journal = Watching(result)
    problem = Problem(task.space, objective, ASHA(MAX_T, 1, 3), make(), seed)
    coordinator = Coordinator(problem, journal)
    executor = SimulatedExecutor(task.curve, objective, N_SLOTS)
    limits = Limits(time_budget=seconds)
    executor.perform(coordinator.handle(SessionStarted(limits, CheckpointPolicy("never"), 0.0)))
    drive(coordinator, executor, journal)
    history = result.history().sort_values("seconds", kind="stable")
    best = np.minimum.accumulate(history["loss"].to_numpy())
    better = np.flatnonzero(np.diff(best, prepend=np.inf) < 0)
    return {
        "seconds": history["seconds"].to_numpy()[better].tolist(),
        "best": best[better].tolist(),
        "trials": result.num_trials,
        "idle": journal.idle,
    }


class Studies:
    """Measurements: a file of lines per task and variant."""

    def __init__(self, folder: Path, chosen: Sequence[Task]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.tasks = folder, chosen

    def length(self, task: Task) -> float:
        """Return the virtual seconds of a study: the median of a full training."""
        configs = [task.space.sample(rng(0, "length", n)) for n in range(101)]
        return statistics.median(task.curve(c).seconds(MAX_T) for c in configs)

    def of(self, task: Task, variant: str) -> list[Study]:
        make, n_seeds = VARIANTS[variant]
        path = self._folder / f"{task.name}-{variant}".replace(" ", "_")
        kept = dict(map(json.loads, path.read_text().splitlines())) if path.exists() else {}
        for seed in range(n_seeds):
            if seed not in kept:
                kept[seed] = one_study(task, make, seed, self.length(task))
                with path.open("a") as file:
                    file.write(json.dumps([seed, kept[seed]]) + "\n")
                print(task.name, variant, seed, file=sys.stderr, flush=True)
        return [kept[seed] for seed in range(n_seeds)]


def best_at(run: Study, seconds: float) -> float:
    """Return the best loss of a study after ``seconds``; inf: no report yet."""
    n = int(np.searchsorted(run["seconds"], seconds, side="right"))
    return float(run["best"][n - 1]) if n else math.inf


def regrets(studies: Studies, task: Task, variant: str, n_seeds: int) -> np.ndarray[Any, Any]:
    """Return regrets at each time, (n_seeds, N_POINTS).

    A regret is the best loss minus the task's smallest one. The unit is the median regret of random
    search at the end.
    """
    points = studies.length(task) * np.arange(1, N_POINTS + 1) / N_POINTS

    def above(which: str) -> Any:
        runs = studies.of(task, which)
        return np.array([[best_at(run, at) for at in points] for run in runs]) - task.least

    unit = max(float(np.median(above(RANDOM)[:, -1])), 1e-12)
    return above(variant)[:n_seeds] / unit  # type: ignore[no-any-return]


def comparison(studies: Studies) -> str:
    """Format regrets by variant: geometric means over tasks of medians over seeds."""
    n_seeds = min(n for _, n in VARIANTS.values())
    rows = []
    for variant in VARIANTS:
        medians = np.array(
            [np.median(regrets(studies, t, variant, n_seeds), axis=0) for t in studies.tasks]
        )
        means = np.exp(np.log(np.maximum(medians, 1e-3)).mean(axis=0))
        rows.append([variant, *(f"{value:.2f}" for value in means)])
    return table(["regret at", *points_of_time()], rows)


def points_of_time() -> list[str]:
    return [f"{n}/{N_POINTS}" for n in range(1, N_POINTS + 1)]


def running_best(studies: Studies) -> str:
    """Format regrets by task and searcher, and numbers of seeds won by the model."""
    rows = []
    n_better, n_worse = np.zeros(N_POINTS, int), np.zeros(N_POINTS, int)
    for task in studies.tasks:
        ours, theirs = (regrets(studies, task, which, 10) for which in (INPUT, RANDOM))
        for name, found in (("random search", theirs), ("`GPSearch()`", ours)):
            rows.append([task.name, name, *(f"{v:.2f}" for v in np.median(found, axis=0))])
        ahead = [f"{np.sum(a < b)}–{np.sum(a > b)}" for a, b in zip(ours.T, theirs.T, strict=True)]
        rows.append([task.name, "seeds better–worse", *ahead])
        n_better += (ours < theirs).sum(axis=0)
        n_worse += (ours > theirs).sum(axis=0)
    total = [f"{a}–{b}" for a, b in zip(n_better, n_worse, strict=True)]
    rows.append(["all", "seeds better–worse", *total])
    return table(["task", "median regret at", *points_of_time()], rows)


def to_the_target(studies: Studies) -> str:
    """Format times to the loss of the best 1 % of configurations, as fractions."""
    rows = []
    for task in studies.tasks:
        target = _target(task)
        row: list[object] = [task.name]
        for variant in (RANDOM, INPUT):
            times = sorted(_reached(studies, task, variant, target))
            n = sum(time <= 1 for time in times)
            middle = statistics.median(times)
            row += [f"{middle:.2f}" if middle <= 1 else "later", f"{n} of {len(times)}"]
        rows.append(row)
    return table(["task", "random search", "reached", "`GPSearch()`", "reached"], rows)


def _target(task: Task) -> float:
    """Estimate the target by sampling, as recorded curves are of longer trainings."""
    units = range(1, MAX_T + 1)
    curves = (task.curve(task.space.sample(rng(0, "target", n))) for n in range(500))
    best = [min(map(curve.metric, units), key=lambda v: (v != v, v)) for curve in curves]
    return float(np.nanquantile(best, 0.01))


def _reached(studies: Studies, task: Task, variant: str, target: float) -> Iterator[float]:
    for run in studies.of(task, variant):
        when = [s for s, b in zip(run["seconds"], run["best"], strict=True) if b <= target]
        yield min(when, default=math.inf) / studies.length(task)


def slots(studies: Studies) -> str:
    rows = []
    for variant in (RANDOM, INPUT):
        runs = [run for task in studies.tasks for run in studies.of(task, variant)]
        n = statistics.median(run["trials"] for run in runs)
        rows.append([variant, f"{n:.0f}", f"{max(run['idle'] for run in runs):g}"])
    return table(["searcher", "trials started, median", "idle slot-seconds, worst study"], rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--curves", type=Path, default=FOLDER, help="folder of recorded curves")
    arguments.add_argument("--keep", type=Path, metavar="FOLDER", help="folder for measurements")
    arguments.add_argument("--out", type=Path, help="file for the page; default: standard output")
    options = arguments.parse_args()
    chosen = [task for task in tasks(options.curves, smooth=True) if task.name in TASKS]
    if not chosen:
        sys.exit(f"no recorded curves in {options.curves}: see benchmarks/curves.py")
    with tempfile.TemporaryDirectory() as aside:
        studies = Studies(options.keep or Path(aside), chosen)
        command = "python benchmarks/fidelity.py --out FILE"
        begun = about(command, ["numpy", "scipy", "scikit-learn"])
        for variant in VARIANTS:  # the most important ones come first
            for task in chosen:
                studies.of(task, variant)
        parts = ["# A model with ASHA: measured", begun, SETTING]
        parts += ["## Resources to learn from", comparison(studies), COMPARISON]
        parts += ["## Comparison with random search", running_best(studies), RUNNING]
        parts += ["### Time to the target", to_the_target(studies), TARGET]
        parts += ["## Slots", slots(studies), SLOTS, f"{load()}."]
    page = "\n\n".join(parts) + "\n"
    if options.out:
        options.out.write_text(page)
    else:
        print(page)


SETTING = f"""\
ASHA({MAX_T}, 1, 3) by stopping, {N_SLOTS} slots; time is virtual, and each study is as long as one
full training. Curves are recorded ones (`curves.py`), interpolated by a forest. *Regret* is the
best loss so far minus the smallest one in the task's table of 50 units; its unit is the median
regret of random search at the end. Times are eighths of the study."""

COMPARISON = """\
Geometric means over the tasks of medians over 5 seeds; the same seeds for all. Full trainings end
only near the end of the study. Until then "full trainings only" is the initial design of GPSearch
(a Sobol sequence), so it shows how much these numbers vary by chance."""

RUNNING = """\
Medians over 10 seeds. *Seeds better–worse*: number of seeds for which the model's running best is
lower, and higher, than that of random search with the same seed. By chance alone one of nine
entries of a task is 8–2, 2–8 or more extreme, and one in twenty of all is 21–9, 9–21 or more
extreme."""

TARGET = """\
The target is the loss that one random configuration in a hundred reaches. Medians over 10 seeds, as
fractions of the study."""

SLOTS = """\
Suggestions take no virtual time; for real time see [never_wait.md](never_wait.md)."""

if __name__ == "__main__":
    main()
