"""A submitted study: the data that its job receives, and the files that hold it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import read_small, write_private
from daskhpo.cluster.network import ssh_tunnel
from daskhpo.core.errors import StudyMismatch
from daskhpo.engine.options import RunOptions

SUBMISSION_FORMAT = 1  # of submission.json


@dataclass(frozen=True)
class ControllerJob:
    """The Slurm job that runs a study's scheduler and coordinator.

    Attributes
    ----------
    walltime : seconds.
    queue, account : partition, and account that the job is charged to; None: Slurm's defaults.
    cores, memory : totals of the job; memory in Slurm's notation, ``"4096M"``.
    directives : more ``#SBATCH`` lines.
    prologue : lines of the script before Python starts.
    n_jobs : maximum number of jobs in the chain, one after another.
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
    """Workers as jobs of their own: ``slurm_cluster(**options)``."""

    options: dict[str, Any]


@dataclass(frozen=True)
class WorkerSteps:
    """Workers as steps of the controller job, which has all the resources they need.

    Attributes
    ----------
    nodes, per_node : number of nodes of the job, and of steps on each node.
    gpus : GPUs of each step: those of one trial, or one that trials share, or 0.
    processes : worker processes in each step; they share its GPU.
    cores, megabytes : CPUs and memory (2**20 bytes) of each step.
    interface : network interface through which steps on other nodes reach the first node; None:
        chosen automatically.
    python, container : Python of the steps, and their container, as in ``slurm_cluster``.
    """

    nodes: int
    per_node: int
    gpus: int
    processes: int
    cores: int
    megabytes: int
    interface: str | None = None
    python: str | None = None
    container: tuple[str, ...] | None = None


Workers = WorkerJobs | WorkerSteps

KEYS = {"n_jobs": "links", "options": "words"}  # fields of jobs and workers: keys in JSON


@dataclass(frozen=True)
class Submission:
    """Plain data that the job receives, and the location of the study's code.

    Attributes
    ----------
    source : ``FILE.py:NAME``. Nothing is unpickled from a study's directory.
    options : limits and options of the run.
    job : the controller job.
    workers : workers as jobs or as job steps.
    since : the study's time at the submission, seconds; the time budget of all jobs of the chain
        counts from there.
    folder : working directory of the submission; relative paths in the user's code start there.
    login : host name of the machine of the submission.
    """

    source: str
    options: RunOptions
    job: ControllerJob
    workers: Workers
    since: float
    folder: str
    login: str

    def to_json(self) -> dict[str, Any]:
        """Return the submission as data that JSON can hold."""
        return asdict(self) | {
            "options": self.options.to_json(),
            "job": _renamed(asdict(self.job), KEYS),
            "workers": [type(self.workers).__name__, _without_none(self.workers)],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Submission:
        """Return the submission of such data: the inverse of :meth:`to_json`."""
        fields = {key: name for name, key in KEYS.items()}
        job = _renamed(data["job"], fields)
        kind, workers = data["workers"]
        workers = _renamed(workers, fields)
        if kind == "WorkerSteps" and workers.get("container") is not None:
            workers["container"] = tuple(workers["container"])
        return Submission(
            **{
                **data,
                "options": RunOptions.from_json(data["options"]),
                "job": ControllerJob(
                    **job
                    | {"directives": tuple(job["directives"]), "prologue": tuple(job["prologue"])}
                ),
                "workers": {"WorkerJobs": WorkerJobs, "WorkerSteps": WorkerSteps}[kind](**workers),
            }
        )


@dataclass(frozen=True)
class JobDirectory:
    """The files in a study's directory that belong to its submitted job."""

    study: Path

    @property
    def path(self) -> Path:
        return self.study / "job"

    @property
    def script(self) -> Path:
        return self.path / "script.sh"

    @property
    def scheduler_file(self) -> Path:
        """File with the scheduler's address, for workers that are steps of the job."""
        return self.path / "scheduler.json"

    def create(self) -> None:
        """Create the directory, for its owner only: it holds credentials."""
        self.study.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.mkdir(exist_ok=True, mode=0o700)

    def write(self, submission: Submission) -> None:
        self._put("submission.json", {"format": SUBMISSION_FORMAT} | submission.to_json())

    def submission(self) -> Submission | None:
        """Return the last submission; None if there was none."""
        data = self._get("submission.json")
        if data is None:
            return None
        if not isinstance(data, dict) or data.pop("format", None) != SUBMISSION_FORMAT:
            raise StudyMismatch(
                f"{self.path}/submission.json was written by another version of daskhpo"
            )
        try:
            return Submission.from_json(data)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise self._damaged("submission.json", error) from None

    def write_number(self, number: str) -> None:
        self._put("number.json", number)

    def number(self) -> str | None:
        """Return Slurm's number of the last submission; None if there was none."""
        data = self._get("number.json")
        if data is None:
            return None
        # It goes to Slurm's commands, where a word such as "-u" would mean something else.
        if not isinstance(data, str) or not re.fullmatch(r"[0-9][\w.;+-]*", data):
            raise self._damaged("number.json", ValueError(f"{data!r:.50} is no number of a job"))
        return data

    def write_address(self, place: ControllerAddress) -> None:
        self._put("head.json", asdict(place))

    def address(self) -> ControllerAddress | None:
        """Return the address of the last controller, running or not; None without one."""
        data = self._get("head.json")
        match data:
            case None:
                return None
            case {"job": str(job), "host": str(host), "dashboard_port": int(port)}:
                return ControllerAddress(job, host, port)
        raise self._damaged("head.json", ValueError("it holds no address"))

    def _put(self, name: str, data: Any) -> None:
        write_private(self.path / name, json.dumps(data, indent=1) + "\n")

    def _get(self, name: str) -> Any:
        path = self.path / name
        try:
            return json.loads(read_small(path))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise self._damaged(name, error) from None

    def _damaged(self, name: str, error: Exception) -> StudyMismatch:
        return StudyMismatch(
            f"{self.path / name} is damaged ({error!r:.200}): restore it from a copy, or remove "
            f"{self.path} and submit the study again"
        )


@dataclass(frozen=True)
class ControllerAddress:
    """Address of a controller.

    Attributes
    ----------
    job : Slurm's number of its job.
    host : name of the job's node.
    dashboard_port : port of Dask's dashboard on the loopback interface of that node.
    """

    job: str
    host: str
    dashboard_port: int

    def tunnel(self, login: str) -> str:
        """Return an ssh command that forwards the dashboard to the user by ``login``."""
        return ssh_tunnel(self.host, self.dashboard_port, login)


def _without_none(workers: Workers) -> dict[str, Any]:
    """Return the fields of workers; what was added later is left out while it is None."""
    data = _renamed(asdict(workers), KEYS)
    later = ("python", "container")
    return {name: value for name, value in data.items() if value is not None or name not in later}


def _renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in data.items()}


def submission_name(number: str) -> str:
    """Return the recipient of stop requests to a submission, for any job of its chain."""
    return f"job {number}"
