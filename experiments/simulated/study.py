"""Compare schedulers on recorded learning curves, in virtual time.

    python -m experiments.simulated.study

runs all races. It writes the results into the README, the figures next to it, and a table of all
races. ``--curves`` adds your own tables of curves.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from experiments.readme import Place
from experiments.simulated.profiles import PROFILES
from experiments.simulated.races import run_all
from experiments.simulated.tables import SHARED, all_tasks

HERE = Path(__file__).parent
SHOWN = 2000  # studies per line of progress


def main(arguments: list[str] | None = None) -> int:
    """Run all races and write the report."""
    options = _options(arguments)
    profile = PROFILES[options.profile]
    own = tuple(path.resolve() for path in options.curves)
    try:
        place = Place(options.readme, profile.name)
        tasks = all_tasks(own, options.shared)
    except (ValueError, FileNotFoundError) as error:
        print(error)
        return 2
    if not options.shared.is_dir():
        print(
            f"TaskSet and LCBench are left out: {options.shared} is not a folder, and their curves "
            "are not part of this project"
        )
    races = list(profile.races(tasks))
    print(f"{len(races):,} studies on {', '.join(task.name for task in tasks)}", flush=True)
    began = time.monotonic()
    ran = []
    for each in run_all(races, own, options.shared, options.processes):
        ran.append(each)
        if len(ran) % SHOWN == 0:
            print(f"{len(ran):8,} of {len(races):,}", flush=True)
    seconds = time.monotonic() - began
    from experiments.simulated.report import write  # matplotlib takes a second to load

    for path in write(profile, tasks, ran, seconds, options.storage, place):
        print(f"wrote {path}")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=sorted(PROFILES), default="full")
    parser.add_argument(
        "--curves",
        type=Path,
        nargs="*",
        default=[],
        help="your own tables of curves: see the README",
    )
    parser.add_argument(
        "--shared", type=Path, default=SHARED, help="folder of the curves of TaskSet and LCBench"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--storage", type=Path, default=Path("runs/simulated"))
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
