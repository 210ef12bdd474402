"""Compare the default rule with methods whose suggestions take long.

    python -m experiments.default_rule.slow FOLDER

runs studies of four workers until a trial is among the best 0.2 % of its table: of a Gaussian
process around ASHA, of Optuna, and of a few fast methods beside them. It writes tables into the
README, and another one of all studies, from which an interrupted run continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from experiments.default_rule.methods import OPTUNA
from experiments.default_rule.races import Race
from experiments.default_rule.study import FEW_SEEDS, FEW_WORKERS, HORIZON, SLOW, run_all
from experiments.default_rule.tables import FEW, tables
from experiments.readme import Place

HERE = Path(__file__).parent
BESIDE = ("AHB", "ASHA, promotion", "GuardedASHA")  # fast methods, in the same run
GP = "ASHA + GPSearch"


def races(folder: Path, most: Mapping[str, int]) -> Iterator[Race]:
    """Yield the races, fast methods first; ``most``: seeds of each method."""
    names = [task for task, variant in tables(folder) if not variant]
    for methods in (BESIDE, (GP, OPTUNA)):
        for seed, method, task in product(range(max(most.values())), methods, names):
            if seed < most[method]:
                horizon = SLOW[method][1] if method in SLOW else HORIZON[FEW_WORKERS]
                yield Race(task, "", method, FEW_WORKERS, seed, horizon, FEW)


def main(arguments: list[str] | None = None) -> int:
    """Run all races and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the recorded curves")
    parser.add_argument("--seeds", type=int, default=FEW_SEEDS, help="of each fast method")
    parser.add_argument("--gp", type=int, default=SLOW[GP][0], help="seeds of the Gaussian process")
    parser.add_argument("--optuna", type=int, default=SLOW[OPTUNA][0], help="seeds of Optuna")
    parser.add_argument(
        "--most", type=int, help="run so many studies at most, and write the report"
    )
    parser.add_argument("--storage", type=Path, default=Path("runs/default_rule"))
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    options = parser.parse_args(arguments)
    if not tables(options.folder):
        print(f"{options.folder} has no tables: taskset_4_tasks.npz, lcbench_surrogate_5_tasks.npz")
        return 2
    place = Place(options.readme, "slow")
    path = options.storage / "slow.csv"
    most = dict.fromkeys(BESIDE, options.seeds) | {GP: options.gp, OPTUNA: options.optuna}
    run_all(list(races(options.folder, most)), options.folder, path, options.most)
    from experiments.default_rule.report import read, slow  # matplotlib takes a second to load

    place.fill(slow(read(path)))
    print(f"wrote {options.readme}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
