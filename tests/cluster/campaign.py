"""Studies on a pretended Slurm that misbehaves at random: ``python -m tests.cluster.campaign 100``.

Each study has its own seed, cluster and faults. After each one must hold: no more than ``jobs``
jobs ran at a time, nothing is left in the queue, no other job was cancelled, the budget of
GPU-hours holds, and all trials were completed.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from daskhpo import Study
from daskhpo.cluster import autoscaler, jobs, registry, sightings, slurm_cluster
from daskhpo.cluster.shell import CommandError
from daskhpo.schedulers import FIFO
from daskhpo.space import Real
from tests.cluster.pretended import TICK_SECONDS, PretendedSlurm

FAULTS = {  # largest probability of each
    "banners": 0.8,
    "sbatch_refuses": 0.2,
    "sbatch_lost": 0.1,
    "sbatch_times_out": 0.2,
    "sbatch_slow": 0.1,
    "squeue_fails": 0.3,
    "squeue_hides": 0.3,
    "squeue_cached": 1.0,
    "squeue_slow": 0.1,
    "scontrol_fails": 0.3,
    "scontrol_silent": 0.5,
    "scancel_fails": 0.3,
    "crashes": 0.1,
    "preempted": 0.1,
}
FOREIGN = (3, 12, 17, 4700)
N_TRIALS = 4


def train(config: dict[str, Any], trial: Any) -> None:
    for _ in range(trial.resource, trial.max_t):
        time.sleep(0.1)
        trial.report({"loss": config["x"]}, state=lambda: 1)


def impatient() -> None:
    """Shorten all pauses, so that a study lasts seconds."""
    autoscaler.WORKER_CHECK_SECONDS = 0.3
    autoscaler.SQUEUE_SECONDS = 0.6
    autoscaler.SUBMIT_RETRY_SECONDS = 0.5
    registry.RETRY_SECONDS = (0.2,) * 8
    jobs.SEARCH_SECONDS, jobs.SEARCH_POLL_SECONDS = 3.0, 0.3
    sightings.UNSEEN_SECONDS = 10.0


def one_study(seed: int, folder: Path) -> list[str]:
    """Run one study; return what is wrong."""
    dice = random.Random(seed)
    chosen = dice.sample(sorted(FAULTS), dice.randint(1, 6))
    faults = {name: round(dice.uniform(0, FAULTS[name]), 2) for name in chosen}
    n_jobs, requeue = dice.randint(1, 3), dice.random() < 0.3
    budget = dice.choice([None, None, 0.5, 1.0])
    slurm = PretendedSlurm(folder / "slurm", seed, runs_jobs=True, **faults)
    for number in FOREIGN:
        slurm.add_foreign(number)
    path, os.environ["PATH"] = os.environ["PATH"], slurm.path
    study = Study(
        train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(max_t=3), storage=folder, name="s"
    )
    problems = []
    try:
        with slurm_cluster(
            n_jobs,
            cores=1,
            memory="500MB",
            gpus_per_job=0,
            walltime="10m",
            security=None,
            max_gpu_hours=budget,
            job_extra_directives=["--requeue"] if requeue else [],
            log_directory=str(folder / "logs"),
        ) as cluster:
            result = study.run(N_TRIALS, client=cluster, progress=False, time_budget="120s")
            n = (result.trials().status == "completed").sum()
            if n < N_TRIALS and budget is None:
                problems.append(f"{n} of {N_TRIALS} trials were completed: {result.stop_reason}")
    except CommandError as error:
        if "Socket timed out" not in str(error) and "QOSMax" not in str(error):
            problems.append(f"{type(error).__name__}: {error}")
    finally:
        os.environ["PATH"] = path
    deadline = time.monotonic() + 1.0  # what was cancelled ends at the next tick
    while slurm.alive and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
    left, foreign = slurm.alive, sorted(set(slurm.cancelled) - {j["number"] for j in slurm.jobs})
    slurm.close()
    if slurm.most_running > n_jobs:
        problems.append(f"jobs={n_jobs}, and {slurm.most_running} ran at a time")
    if left:
        problems.append(f"left in the queue: {left}")
    if foreign:
        problems.append(f"somebody else's jobs were cancelled: {foreign}")
    if budget is not None and slurm.seconds > budget * 3600:
        problems.append(f"max_gpu_hours={budget}, and {slurm.seconds / 3600} were used")
    return [f"seed {seed} {faults}: {problem}" for problem in problems]


def main(n: int, first: int = 0) -> int:
    logging.getLogger("daskhpo").setLevel(logging.CRITICAL)
    impatient()
    found, began = [], time.monotonic()
    for seed in range(first, first + n):
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
            problems = one_study(seed, Path(folder))
        found += problems
        print(f"{seed}: {'; '.join(problems) or 'right'}", flush=True)
    print(f"{n} studies in {time.monotonic() - began:.0f} s, {len(found)} problems")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
