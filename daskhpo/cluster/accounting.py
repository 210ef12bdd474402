"""What Slurm's own records say of jobs: queueing, run time, GPUs, and how they ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from daskhpo.cluster.shell import call

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
JOBS_PER_CALL = 200  # a command line has its limits


@dataclass(frozen=True)
class JobCost:
    """One run of a job. A job that Slurm started again is several, with one number.

    Attributes
    ----------
    job : its number.
    state : in Slurm's word: ``COMPLETED``, ``TIMEOUT``, ``CANCELLED``, ``RUNNING``, ...
    exit_code : of its script, and the signal that ended it: ``"0:0"``, ``"1:0"``, ``"0:15"``.
    seconds : that it ran.
    waited : seconds from its submission to its start; None: it has not started.
    n_gpus, n_cpus : that it held.
    account, partition, nodes : as Slurm names them; empty if it does not say.
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
        """GPUs held, times hours."""
        return self.n_gpus * self.seconds / 3600


def slurm_cost(jobs: Iterable[str]) -> list[JobCost]:
    """What jobs have cost, by Slurm's records; those that it has forgotten are left out.

    Parameters
    ----------
    jobs : their numbers, such as those of :attr:`daskhpo.Result.jobs`.

    Raises
    ------
    CommandMissing, CommandFailed : there is no ``sacct`` here, or this Slurm keeps no accounts.
    """
    numbers = list(dict.fromkeys(jobs))
    costs = []
    for first in range(0, len(numbers), JOBS_PER_CALL):
        argv = [
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",  # the job as a whole, not each of its steps
            "--duplicates",  # each run of a job that was started again
            f"--format={','.join(FIELDS)}",
            f"--jobs={','.join(numbers[first : first + JOBS_PER_CALL])}",
        ]
        costs += parse_sacct(call(argv))
    return costs


def parse_sacct(text: str) -> list[JobCost]:
    """What ``sacct --noheader --parsable2`` printed of the fields that :func:`slurm_cost` asks for.

    Raises
    ------
    ValueError : a line is of another form; it is shown.
    """
    costs = []
    for line in text.splitlines():
        if not line.strip():
            continue
        values = line.split("|")
        if len(values) != len(FIELDS):
            raise ValueError(f"sacct printed {line!r}, which is not {'|'.join(FIELDS)}")
        field = dict(zip(FIELDS, values, strict=True))
        resources = _resources(field["AllocTRES"])
        submitted, started = _time(field["Submit"]), _time(field["Start"])
        costs.append(
            JobCost(
                job=field["JobIDRaw"],
                state=field["State"].split(" ")[0],  # "CANCELLED by 1000"
                exit_code=field["ExitCode"],
                seconds=float(field["ElapsedRaw"] or 0),
                waited=started - submitted if started and submitted else None,
                n_gpus=_gpus(resources),
                n_cpus=int(resources.get("cpu", 0)),
                account=field["Account"],
                partition=field["Partition"],
                nodes=field["NodeList"] if field["NodeList"] != "None assigned" else "",
            )
        )
    return costs


def _resources(text: str) -> dict[str, str]:
    """``"cpu=8,gres/gpu=4,gres/gpu:a100=4,mem=64G"`` by name."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name: value for name, _, value in pairs}


def _gpus(resources: dict[str, str]) -> int:
    """GPUs of a job: all, or if that is not said, the sum over their types."""
    if "gres/gpu" in resources:
        return int(resources["gres/gpu"])
    return sum(int(n) for name, n in resources.items() if name.startswith("gres/gpu:"))


def _time(text: str) -> float | None:
    """Seconds of a time of this place's zone, as Slurm writes it; None if it has not come."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # "Unknown", "None", or "" where a job was cancelled before its start
        return None
