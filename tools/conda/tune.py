"""A study that ``make conda`` runs with the installed package, also on Slurm.

It imports nothing but daskhpo and the standard library. Each report says whether its process is
one of the new prefix, and the number of its Slurm job.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from daskhpo import Study
from daskhpo.space import Real

PREFIX = Path(sys.prefix).resolve()


def train(config: dict[str, Any], trial: Any) -> None:
    """Descend in a bowl."""
    x = trial.checkpoint or 4.0
    for _ in range(trial.resource, trial.max_t):
        x -= config["lr"] * 2 * x
        here = Path(sys.prefix).resolve() == Path(config["prefix"])
        job = int(os.environ.get("SLURM_JOB_ID", 0))
        trial.report({"loss": x**2, "here": int(here), "job": job}, state=lambda: x)  # noqa: B023


study = Study(
    train,
    {"lr": Real(1e-4, 1.0, log=True), "prefix": str(PREFIX)},
    "loss",
    max_t=9,
    storage="runs",
    name=os.environ.get("STUDY", "here"),
)


def on_slurm() -> None:
    """Run the study in two Slurm jobs, whose workers use this interpreter."""
    from daskhpo.cluster import slurm_cluster

    with slurm_cluster(
        2,
        gpus_per_job=0,
        cores=1,
        memory="900MB",
        walltime="10m",
        interface="lo",
        log_directory="logs",
        shared_temp_directory="shared",
    ) as cluster:
        study.run(num_trials=8, client=cluster, progress=False)


def verify(on_jobs: bool) -> None:
    """Check that all reports came from this prefix, and from jobs or none."""
    result = study.result()
    history = result.history()
    assert len(history) >= 8, history
    assert history["here"].all(), "a worker ran outside the prefix"
    jobs = sorted(set(history["job"]))
    assert (0 not in jobs) if on_jobs else jobs == [0], jobs
    print(f"{result.num_trials} trials, {len(history)} reports, jobs {jobs}: {PREFIX}")


if __name__ == "__main__":
    if "slurm" in sys.argv:
        on_slurm()
    verify("slurm" in sys.argv)
