"""A study that is to run in a batch job: what the job is given, and where that lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import write_private
from daskhpo.cluster.network import ssh_tunnel
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.options import RunOptions


@dataclass(frozen=True)
class ControllerJob:
    """The job in which scheduler and coordinator live.

    Attributes
    ----------
    walltime : seconds.
    queue, account : partition, and what it is charged to; None: Slurm's defaults.
    cores, memory : in all; memory as Slurm writes it, ``"4096M"``.
    directives : more ``#SBATCH`` lines.
    prologue : lines of the script before Python starts.
    n_jobs : so many jobs, one after the other, at most.
    """

    walltime: float
    queue: str | None
    account: str | None
    cores: int
    memory: str
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    n_jobs: int = 1


@dataclass(frozen=True)
class WorkerJobs:
    """Workers are jobs of their own: ``slurm_cluster(**options)``."""

    options: dict[str, Any]


@dataclass(frozen=True)
class WorkerSteps:
    """Workers are steps of the head's own job, which has everything they need.

    Attributes
    ----------
    nodes, per_node : nodes of the job, and steps on each.
    gpus : of each step, 0 or 1.
    processes : workers in each step; with a GPU they share it.
    cores, megabytes : of each step.
    interface : network interface by which steps on other nodes reach the first one.
    """

    nodes: int
    per_node: int
    gpus: int
    processes: int
    cores: int
    megabytes: int
    interface: str | None = None


Workers = WorkerJobs | WorkerSteps

KEYS = {"n_jobs": "links", "options": "words"}  # fields of a job and its workers: keys in JSON


@dataclass(frozen=True)
class Submission:
    """All that the job is told; plain data, and where the study's code is.

    Attributes
    ----------
    source : ``FILE.py:NAME``. Nothing is unpickled from a study's directory.
    since : the study's time at the submission: its time budget is counted from there, over all
        links of a chain.
    folder : where it was submitted; relative paths of the user's code start there.
    login : the machine where it was submitted.
    """

    source: str
    options: RunOptions
    job: ControllerJob
    workers: Workers
    since: float
    folder: str
    login: str

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        workers = [type(self.workers).__name__, _renamed(asdict(self.workers), KEYS)]
        return asdict(self) | {"job": _renamed(asdict(self.job), KEYS), "workers": workers}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Submission:
        """The inverse of :meth:`to_json`."""
        fields = {key: name for name, key in KEYS.items()}
        options, job = data["options"], _renamed(data["job"], fields)
        kind, workers = data["workers"]
        workers = _renamed(workers, fields)
        return Submission(
            **{
                **data,
                "options": RunOptions(
                    **options
                    | {
                        "limits": Limits(**options["limits"]),
                        "policy": CheckpointPolicy(**options["policy"]),
                    }
                ),
                "job": ControllerJob(
                    **job
                    | {"directives": tuple(job["directives"]), "prologue": tuple(job["prologue"])}
                ),
                "workers": {"WorkerJobs": WorkerJobs, "WorkerSteps": WorkerSteps}[kind](**workers),
            }
        )


@dataclass(frozen=True)
class JobDirectory:
    """What a study's directory holds of the job that runs it."""

    study: Path

    @property
    def path(self) -> Path:
        return self.study / "job"

    @property
    def script(self) -> Path:
        return self.path / "script.sh"

    @property
    def scheduler_file(self) -> Path:
        """Where workers within one allocation find their scheduler."""
        return self.path / "scheduler.json"

    def create(self) -> None:
        """Make it, for its owner only: it holds credentials."""
        self.study.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.mkdir(exist_ok=True, mode=0o700)

    def write(self, submission: Submission) -> None:
        self._put("submission.json", {"format": 1} | submission.to_json())

    def submission(self) -> Submission | None:
        """What was submitted last; None if nothing was."""
        data = self._get("submission.json")
        if data is None:
            return None
        if data.pop("format") != 1:
            raise ValueError(f"{self.path}/submission.json is of another version of daskhpo")
        return Submission.from_json(data)

    def write_number(self, number: str) -> None:
        self._put("number.json", number)

    def number(self) -> str | None:
        """Slurm's number of the last submission; None if there was none."""
        data = self._get("number.json")
        return None if data is None else str(data)

    def write_address(self, place: ControllerAddress) -> None:
        self._put("head.json", asdict(place))

    def address(self) -> ControllerAddress | None:
        """Where the last head runs, or ran."""
        data = self._get("head.json")
        return None if data is None else ControllerAddress(**data)

    def _put(self, name: str, data: Any) -> None:
        write_private(self.path / name, json.dumps(data, indent=1) + "\n")

    def _get(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class ControllerAddress:
    """Where a head runs: its job, the host, and the dashboard's port on its loopback."""

    job: str
    host: str
    dashboard_port: int

    def tunnel(self, login: str) -> str:
        """The command that brings the dashboard to a user's own machine, by way of ``login``."""
        return ssh_tunnel(self.host, self.dashboard_port, login)


def _renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in data.items()}


def submission_name(number: str) -> str:
    """The name by which the head of a submission is asked to stop, whichever link it is."""
    return f"job {number}"
