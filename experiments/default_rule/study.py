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
from dataclasses import astuple, fields
from itertools import product
from pathlib import Path

from experiments.default_rule.methods import METHODS, OPTUNA
from experiments.default_rule.races import Race, Ran, run
from experiments.default_rule.tables import FEW, HUNDREDTH, REVERSED, SHUFFLED, tables
from experiments.readme import Place

HERE = Path(__file__).parent
WORKERS = (1, 4, 16, 64)
MISLED = (4, 16)  # workers
BESIDE = ("AHB", "GuardedASHA")  # methods on tables that mislead
HORIZON = {1: 320.0, 4: 80.0, 16: 80.0, 64: 80.0}  # full trainings of each worker
FEW_SEEDS, FEW_WORKERS = 15, 4  # until the best 0.2 %
SLOW = {OPTUNA: (7, 40.0), "ASHA + GPSearch": (3, 8.0)}  # seeds and horizon
SLOW_WORKERS = 4
PASHA_WORKERS = 4  # at most: with more, a ladder that does not grow means 100,000 trials
SHOWN = 500  # races per line of progress


def races(folder: Path, seeds: int) -> Iterator[Race]:
    """Yield all races by parts; an interrupted part has some seeds of everything."""
    names = [task for task, variant in tables(folder) if not variant]
    fast = [name for name in METHODS if name not in SLOW]
    for seed, workers, method, task in product(range(seeds), WORKERS, fast, names):
        if method == "PASHA" and workers > PASHA_WORKERS:
            continue
        yield Race(task, "", method, workers, seed, HORIZON[workers], HUNDREDTH)
    misled = (SHUFFLED, REVERSED)
    for seed, variant, n, method, task in product(range(seeds), misled, MISLED, BESIDE, names):
        yield Race(task, variant, method, n, seed, HORIZON[n], HUNDREDTH)
    for seed, method, task in product(range(min(seeds, FEW_SEEDS)), fast, names):
        yield Race(task, "", method, FEW_WORKERS, seed, HORIZON[FEW_WORKERS], FEW)
    for method, (most, horizon) in SLOW.items():
        for seed, task in product(range(min(seeds, most)), names):
            yield Race(task, "", method, SLOW_WORKERS, seed, horizon, FEW)


def main(arguments: list[str] | None = None) -> int:
    """Run all races and write the report."""
    options = _options(arguments)
    if not tables(options.folder):
        print(f"{options.folder} has no tables: taskset_4_tasks.npz, lcbench_surrogate_5_tasks.npz")
        return 2
    place = Place(options.readme, "full")
    path = options.storage / "races.csv"
    todo = list(races(options.folder, options.seeds))
    run_all(todo, options.folder, path, options.most)
    from experiments.default_rule.report import write  # matplotlib takes a second to load

    for written in write(path, place):
        print(f"wrote {written}")
    return 0


def run_all(todo: list[Race], folder: Path, path: Path, most: int | None = None) -> None:
    """Add the races that the table at ``path`` lacks, at most so many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_keys, done = len(fields(Race)), set()
    if path.exists():
        with path.open(newline="") as file:
            done = {tuple(row[:n_keys]) for row in csv.reader(file)}
    left = [race for race in todo if tuple(map(str, astuple(race))) not in done]
    print(f"{len(left):,} of {len(todo):,} studies are left", flush=True)
    began = time.monotonic()
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if not done:
            rows.writerow([field.name for kind in (Race, Ran) for field in fields(kind)])
        for number, race in enumerate(left[:most], start=1):
            rows.writerow([*astuple(race), *astuple(run(race, folder))])
            file.flush()
            if number % SHOWN == 0:
                print(f"{number:8,} after {time.monotonic() - began:,.0f} s", flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the recorded curves")
    parser.add_argument("--seeds", type=int, default=31)
    parser.add_argument(
        "--most", type=int, help="run so many studies at most, and write the report"
    )
    parser.add_argument("--storage", type=Path, default=Path("runs/default_rule"))
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
