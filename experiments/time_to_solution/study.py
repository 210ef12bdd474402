"""Compare methods for equal time on equal workers, in one command.

    python -m experiments.time_to_solution.study --profile laptop --seeds 3

Stop it with Ctrl-C, or kill it: the same command continues. ``--report`` runs nothing; it writes
the table, the figures and the results in the README again from the existing studies.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from distributed import Client

from daskhpo.cluster.gpus import visible_gpus
from daskhpo.core.quantities import check_duration
from daskhpo.executors.dask.local import local_cluster
from experiments.adsorption.data import prepare
from experiments.time_to_solution.profiles import PROFILES, Profile
from experiments.time_to_solution.runner import Runner, say, warm_up

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Run the missing studies, then write the report; return 1 if a study failed."""
    options = _options(arguments)
    profile = _profile(options)
    problems: list[str] = []
    if not options.report:
        try:
            problems = _run(profile, options)
        except KeyboardInterrupt:
            say("stopped; run the same command again to continue")
            return 130
    from experiments.time_to_solution.report import write  # matplotlib takes a second to load

    try:
        written = write(profile, options.storage, options.readme)
    except ValueError as error:
        say(str(error))
        return 2
    say("")
    say(written.text)
    say("")
    for path in written.files:
        say(f"wrote {path}")
    for problem in problems:
        say(f"failed: {problem}")
    return 1 if problems else 0


def _run(profile: Profile, options: argparse.Namespace) -> list[str]:
    options.storage.mkdir(parents=True, exist_ok=True)
    prepare(profile.task.name)
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with _client(profile, dict(options.slurm)) as client:
        warm_up(client, profile)
        return Runner(profile, options.storage, client).run(range(options.seeds))


def _profile(options: argparse.Namespace) -> Profile:
    profile = PROFILES[options.profile]
    if options.slurm:
        profile = replace(profile, where="slurm")
    if options.time_budget is not None:
        profile = replace(profile, seconds=options.time_budget)
    if options.workers is not None:
        profile = replace(profile, workers=options.workers)
    if options.target is not None:
        profile = replace(profile, target=options.target)
    return profile


@contextlib.contextmanager
def _client(profile: Profile, slurm: dict[str, Any]) -> Iterator[Client]:
    """Create a client of as many workers as the profile needs, and wait for them."""
    n_workers = profile.workers
    if profile.where == "slurm":
        n_workers = n_workers or 1
        gpus = slurm.get("gpus_per_job", 1)
        per_job = gpus * slurm.get("trials_per_gpu", 1) if gpus else slurm.get("processes", 1)
        options = {"jobs": -(-n_workers // per_job), **slurm}
        cluster = import_module("daskhpo.cluster").slurm_cluster(**options)
    else:
        if n_workers is None:
            n_workers = len(visible_gpus().names) if profile.gpus else os.cpu_count() or 1
        if not profile.gpus and n_workers > (n_cpus := os.cpu_count() or 1):
            raise ValueError(
                f"--workers {n_workers} is more than this machine's {n_cpus} CPUs; give at most "
                f"{n_cpus}"
            )
        resources = {"cpu": 1.0} | ({"gpu": profile.gpus} if profile.gpus else {})
        cluster = local_cluster(resources, n_workers)
    with cluster as running, Client(running, set_as_default=False) as client:
        say(f"waiting for {n_workers} workers")
        client.wait_for_workers(n_workers)
        yield client


def _option(text: str) -> tuple[str, int | str]:
    """Parse ``NAME=VALUE``; a decimal value becomes an int."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE, such as queue=gpu")
    return name, int(value) if value.isdecimal() else value


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.time_to_solution.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", choices=list(PROFILES), default="laptop")
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--time-budget",
        type=partial(check_duration, "--time-budget"),
        help="time of each method, such as 8m; default: the profile's",
    )
    parser.add_argument("--workers", type=int, help="default: the profile's")
    parser.add_argument("--target", type=float, help="eV; default: the profile's")
    parser.add_argument(
        "--slurm",
        type=_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="run in Slurm jobs, with this option of slurm_cluster, such as queue=gpu; may be "
        "repeated",
    )
    parser.add_argument("--storage", type=Path, default=Path("runs/time_to_solution"))
    parser.add_argument(
        "--report", action="store_true", help="run nothing; write the report of existing studies"
    )
    parser.add_argument(
        "--readme",
        type=Path,
        default=HERE / "README.md",
        help="file whose results are replaced, with figures next to it; default: this folder's",
    )
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds} must be at least 1")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
