"""Compare the default rule with other methods, on recorded learning curves.

    python -m experiments.default_rule.study FOLDER

runs all races on the tables in FOLDER, in virtual time. It writes the results into the README, a
figure next to it, and a table of all races, from which an interrupted run continues.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple
from itertools import product
from pathlib import Path

from experiments.default_rule.methods import METHODS
from experiments.default_rule.races import Race, run
from experiments.default_rule.tables import REVERSED, SHUFFLED, tables
from experiments.readme import Place

HERE = Path(__file__).parent
WORKERS = (1, 4, 16, 64)
MISLED = (4, 16)  # workers
HORIZON = {1: 320.0, 4: 80.0, 16: 80.0, 64: 80.0}  # full trainings of each worker
SLOW = "ASHA + GPSearch"
SLOW_SEEDS, SLOW_WORKERS, SLOW_HORIZON = 3, 4, 15.0  # a suggestion takes up to a second
BESIDE = ("AHB", "GuardedASHA")  # methods on tables that mislead
SHOWN = 500  # races per line of progress


def races(folder: Path, seeds: int) -> Iterator[Race]:
    """Yield all races: the plain tables first, the slow method last."""
    names = [task for task, variant in tables(folder) if not variant]
    fast = [name for name in METHODS if name != SLOW]
    plain = [(workers, method, seeds) for workers in WORKERS for method in fast]
    for workers, method, n in plain:
        for task in names:
            for seed in range(n):
                yield Race(task, "", method, workers, seed, HORIZON[workers])
    misled = list(product((SHUFFLED, REVERSED), MISLED, BESIDE, names))
    for seed in range(seeds):  # an interrupted run has some seeds of everything
        for variant, workers, method, task in misled:
            yield Race(task, variant, method, workers, seed, HORIZON[workers])
    for task in names:
        for seed in range(min(seeds, SLOW_SEEDS)):
            yield Race(task, "", SLOW, SLOW_WORKERS, seed, SLOW_HORIZON)


def main(arguments: list[str] | None = None) -> int:
    """Run all races and write the report."""
    options = _options(arguments)
    if not tables(options.folder):
        print(f"{options.folder} has no tables: taskset_4_tasks.npz, lcbench_surrogate_5_tasks.npz")
        return 2
    place = Place(options.readme, "full")
    path = options.storage / "races.csv"
    run_all(list(races(options.folder, options.seeds)), options.folder, path)
    from experiments.default_rule.report import write  # matplotlib takes a second to load

    for written in write(path, place):
        print(f"wrote {written}")
    return 0


def run_all(todo: list[Race], folder: Path, path: Path) -> None:
    """Run the races that are not in the table at ``path``, and add them to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if path.exists():
        with path.open(newline="") as file:
            done = {tuple(row[:6]) for row in csv.reader(file)}
    left = [race for race in todo if tuple(map(str, astuple(race))) not in done]
    print(f"{len(left):,} of {len(todo):,} studies are left", flush=True)
    began = time.monotonic()
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if not done:
            rows.writerow([*asdict(todo[0]), "reached", "trials", "cpu"])
        for number, race in enumerate(left, start=1):
            ran = run(race, folder)
            rows.writerow([*astuple(race), ran.reached, ran.trials, round(ran.cpu, 4)])
            file.flush()
            if number % SHOWN == 0:
                print(f"{number:8,} after {time.monotonic() - began:,.0f} s", flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the recorded curves")
    parser.add_argument("--seeds", type=int, default=31)
    parser.add_argument("--storage", type=Path, default=Path("runs/default_rule"))
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
