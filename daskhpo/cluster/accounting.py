"""Slurm's accounting records of jobs: queueing and run time, GPUs, exit codes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from daskhpo.cluster.commands import JOBS_PER_CALL, ask

logger = logging.getLogger("daskhpo")

FIELDS = (
    "JobIDRaw",
    "State",
    "ExitCode",
    "Submit",
    "Start",
    "End",
    "ElapsedRaw",
    "AllocTRES",
    "Account",
    "Partition",
    "NodeList",
)


@dataclass(frozen=True)
class JobCost:
    """One run of a job. A job that Slurm restarted has several, with the same job id.

    Attributes
    ----------
    job : job id.
    state : as Slurm names it: ``COMPLETED``, ``TIMEOUT``, ``CANCELLED``, ``RUNNING``, ...
    exit_code : exit code of its script and the signal that ended it: ``"0:0"``, ``"1:0"``,
        ``"0:15"``.
    seconds : run time.
    waited : seconds from its submission to its start; None: it has not started.
    n_gpus, n_cpus : number of allocated GPUs and CPUs.
    account, partition, nodes : as Slurm names them; empty: not recorded.
    """

    job: str
    state: str
    exit_code: str
    seconds: float
    waited: float | None
    n_gpus: int
    n_cpus: int
    account: str = ""
    partition: str = ""
    nodes: str = ""

    @property
    def gpu_hours(self) -> float:
        """Allocated GPUs, times hours of run time."""
        return self.n_gpus * self.seconds / 3600


def slurm_cost(jobs: Iterable[str]) -> list[JobCost]:
    """Return the cost of jobs by Slurm's records; jobs without a record are left out.

    Parameters
    ----------
    jobs : job ids, such as those of :attr:`daskhpo.Result.jobs`.

    Raises
    ------
    CommandError : ``sacct`` is missing here, or this Slurm has no accounting.
    """
    numbers = list(dict.fromkeys(jobs))
    costs = []
    for first in range(0, len(numbers), JOBS_PER_CALL):
        argv = [
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",  # whole jobs, not their steps
            "--duplicates",  # each run of a restarted job
            f"--format={','.join(FIELDS)}",
            f"--jobs={','.join(numbers[first : first + JOBS_PER_CALL])}",
        ]
        costs += parse_sacct(ask(argv))
    return costs


def parse_sacct(text: str) -> list[JobCost]:
    """Parse what ``sacct --noheader --parsable2`` printed for :func:`slurm_cost`.

    Lines of another form, such as a site's banner, are skipped.
    """
    costs, skipped = [], 0
    for line in text.splitlines():
        values = line.split("|")
        if len(values) != len(FIELDS) or not re.fullmatch(r"\d+", values[0]):
            skipped += bool(line.strip())
            continue
        field = dict(zip(FIELDS, values, strict=True))
        resources = _resources(field["AllocTRES"])
        submitted, started = _time(field["Submit"]), _time(field["Start"])
        costs.append(
            JobCost(
                job=field["JobIDRaw"],
                state=field["State"].split(" ")[0],  # "CANCELLED by 1000"
                exit_code=field["ExitCode"],
                seconds=_number(field["ElapsedRaw"]),
                waited=started - submitted if started and submitted else None,
                n_gpus=_gpus(resources),
                n_cpus=int(_number(resources.get("cpu", ""))),
                account=field["Account"],
                partition=field["Partition"],
                nodes=field["NodeList"] if field["NodeList"] != "None assigned" else "",
            )
        )
    if skipped:
        logger.warning("sacct printed %d lines of another form, which are not counted", skipped)
    return costs


def _resources(text: str) -> dict[str, str]:
    """Parse ``"cpu=8,gres/gpu=4,gres/gpu:a100=4,mem=64G"``: value by name."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name: value for name, _, value in pairs}


def _gpus(resources: dict[str, str]) -> int:
    """Return the number of GPUs: the recorded total, else the sum over types."""
    if "gres/gpu" in resources:
        return int(_number(resources["gres/gpu"]))
    return sum(int(_number(n)) for name, n in resources.items() if name.startswith("gres/gpu:"))


def _number(text: str) -> float:
    """Return a number that Slurm printed; 0: there is none."""
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def _time(text: str) -> float | None:
    """Convert a local time that Slurm printed to seconds since 1970; None: no time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # "Unknown", "None", or "" if the job was cancelled before its start
        return None
