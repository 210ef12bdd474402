"""Submitting a study: everything is checked here, before the job waits for hours."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daskhpo.cluster import jobs
from daskhpo.cluster.jobs import is_over
from daskhpo.cluster.shell import CommandFailed, CommandMissing
from daskhpo.cluster.slurm import known_options, slurm_cluster
from daskhpo.cluster.times import parse_walltime, slurm_time
from daskhpo.core.errors import StudyExists, StudyLocked
from daskhpo.core.events import SessionStarted
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.options import RunOptions, check_options
from daskhpo.engine.session import (
    check_startable,
    create_directory,
    has_work,
    last_limits,
    study_records,
)
from daskhpo.remote.script import controller_script
from daskhpo.remote.submission import (
    ControllerJob,
    JobDirectory,
    Submission,
    WorkerJobs,
    Workers,
    WorkerSteps,
)
from daskhpo.results.result import load_study

CORES, MEMORY = 2, "4GB"  # of a head: scheduler, coordinator, and a searcher with a model
RESERVED_OPTIONS = ("job_name", "name")
ONE_ALLOCATION_OPTIONS = (
    "jobs",
    "cores",
    "memory",
    "gpus_per_job",
    "trials_per_gpu",
    "processes",
    "interface",
)


def prepare(
    problem: Problem,
    directory: Path,
    source: str,
    num_trials: int | None,
    time_budget: float | str | None,
    target: float | None,
    *,
    walltime: float | str,
    workers: Mapping[str, Any] | None = None,
    chain: int = 1,
    one_allocation: bool = False,
    queue: str | None = None,
    account: str | None = None,
    cores: int | None = None,
    memory: str | None = None,
    job_extra_directives: Sequence[str] = (),
    job_script_prologue: Sequence[str] = (),
    **options: Any,
) -> Submission:
    """What a job would be given to run a study; see :meth:`daskhpo.Study.submit`.

    Parameters
    ----------
    directory : of the study.
    source : where it is defined, as ``FILE.py:NAME``.
    """
    if one_allocation and (cores is not None or memory is not None):
        raise ValueError(
            "with one_allocation there is one job, whose nodes have the cores and the memory that "
            "workers= says: give them there"
        )
    words = dict(workers or {})
    kind = _steps(words) if one_allocation else _jobs(words)
    asked = _options(problem, directory, (num_trials, time_budget, target), kind, options)
    job = ControllerJob(
        walltime=parse_walltime(walltime),
        queue=queue,
        account=account,
        cores=_check_int("cores", CORES if cores is None else cores, 1),
        memory=f"{_megabytes('memory', memory or MEMORY)}M",
        directives=tuple(_lines("job_extra_directives", job_extra_directives)),
        prologue=tuple(_lines("job_script_prologue", job_script_prologue)),
        n_jobs=_check_int("chain", chain, 1),
    )
    seconds = _check_directory(problem, directory, asked)
    login = socket.gethostname()
    return Submission(source, asked, job, kind, seconds, os.getcwd(), login)


def submit(problem: Problem, directory: Path, submission: Submission) -> str:
    """Submit the head's job; its number.

    Raises
    ------
    CommandMissing, CommandFailed : there is no Slurm here; it refuses the job. Nothing is left.
    ValueError : the job would wait for ever.
    StudyLocked : a job that was submitted before is to run the study.
    """
    folder = JobDirectory(directory.absolute())
    if (number := folder.number()) is not None and (there := jobs.jobs_of(number)):
        raise StudyLocked(
            f"job {there[0].name} ({there[0].state}) is to run {directory} already: wait for it "
            f"(`daskhpo attach {directory}`), or cancel it (`daskhpo stop {directory}`)"
        )
    _check_walltime("walltime", submission.job.walltime, submission.job.queue)
    if isinstance(submission.workers, WorkerJobs):
        words = _defaults() | submission.workers.options
        seconds = parse_walltime(words["walltime"])
        _check_walltime("workers['walltime']", seconds, words["queue"])
    script = controller_script(submission, folder)
    with contextlib.ExitStack() as undo:
        if not folder.study.exists():
            undo.callback(_remove, folder)
        create_directory(folder.study, problem, submission.source)
        folder.create()
        folder.write(submission)
        folder.script.write_text(script)
        number = jobs.submit_script(script)
        undo.pop_all()
    folder.write_number(number)
    return number


# -- what was asked for --------------------------------------------------------------------------


def _options(
    problem: Problem,
    directory: Path,
    limits: tuple[Any, Any, Any],
    workers: Workers,
    options: Mapping[str, Any],
) -> RunOptions:
    known = [
        name
        for name, parameter in inspect.signature(check_options).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name == "callbacks":
            raise TypeError(
                "callbacks cannot be sent to a job: follow the study from anywhere by "
                "study.attach(callbacks=[...])"
            )
        if name not in known:
            raise TypeError(f"submit() has no {name}=; besides its own it takes {', '.join(known)}")
    if all(limit is None for limit in limits):
        num_trials, target = last_limits(directory)
        limits = (num_trials, None, target)
    gpus, processes = _offer(workers)
    given = dict(options)
    if gpus:
        given["resources"] = {"gpu": gpus} | dict(given.get("resources") or {})
    asked = check_options(problem, *limits, **given)
    if (wanted := asked.resources.get("gpu", 0)) > gpus:
        raise ValueError(
            f"resources={asked.resources} asks for {wanted} GPUs a trial, but a worker has "
            f"{gpus:g}: no trial could ever run. See gpus_per_job and trials_per_gpu of workers="
        )
    if processes is not None and asked.resources["cpu"] > processes:
        raise ValueError(
            f"resources={asked.resources} asks for {asked.resources['cpu']:g} CPUs a trial, but a "
            f"worker has {processes}: no trial could ever run. See cores of workers="
        )
    return asked


def _offer(workers: Workers) -> tuple[float, int | None]:
    """GPUs and CPUs of one worker process; None if that is not known."""
    match workers:
        case WorkerSteps(gpus=gpus, processes=processes, cores=cores):
            return gpus / processes if gpus else 0, max(1, cores // processes)
        case WorkerJobs(words):
            shape = _defaults() | words
            gpus, per_gpu = shape["gpus_per_job"], shape["trials_per_gpu"]
            n = gpus * per_gpu if gpus else shape["processes"] or 1
            share = None if shape["cores"] is None else max(1, shape["cores"] // n)
            return (1 / per_gpu if gpus else 0), share


def _defaults() -> dict[str, Any]:
    parameters = inspect.signature(slurm_cluster).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _jobs(words: dict[str, Any]) -> WorkerJobs:
    """Workers as jobs of their own; ``slurm_cluster`` will say the rest in the head's job."""
    import dask

    known = known_options()
    for name in words:
        if name not in known:
            raise ValueError(
                f"workers[{name!r}] is no word of slurm_cluster; its own are "
                f"{', '.join(name for name in _defaults() if name != 'options')}"
            )
        if name in RESERVED_OPTIONS:
            raise ValueError(f"workers[{name!r}] is chosen by the job that runs the study")
    shape = _defaults() | words
    _check_int("workers['jobs']", words.get("jobs"), 1)
    gpus = _check_int("workers['gpus_per_job']", shape["gpus_per_job"], 0)
    per_gpu = _check_int("workers['trials_per_gpu']", shape["trials_per_gpu"], 1)
    if gpus and shape["processes"] is not None:
        raise ValueError("workers['processes'] is for jobs without GPUs: see trials_per_gpu")
    parse_walltime(shape["walltime"])
    for name in ("cores", "memory"):
        if shape[name] is None and dask.config.get(f"jobqueue.slurm.{name}", None) is None:
            raise ValueError(
                f"workers[{name!r}] must be given: that of a job, such as cores=8, memory='32GB'"
            )
    n = gpus * per_gpu or (shape["processes"] or 1)
    if shape["cores"] is not None and _check_int("workers['cores']", shape["cores"], 1) < n:
        raise ValueError(
            f"workers['cores']={shape['cores']} must be at least {n}: one for each worker of a job"
        )
    try:
        json.dumps(words)
    except TypeError as error:
        raise TypeError(f"workers= must be plain data, which a job can be told: {error}") from None
    return WorkerJobs(words)


def _steps(words: dict[str, Any]) -> WorkerSteps:
    """Workers as steps of the head's job."""
    for name in words:
        if name not in ONE_ALLOCATION_OPTIONS:
            raise ValueError(
                f"workers[{name!r}] has no meaning with one_allocation, where there is one job: "
                f"give it to submit() itself. Here are {', '.join(ONE_ALLOCATION_OPTIONS)}"
            )
    gpus = _check_int("workers['gpus_per_job']", words.get("gpus_per_job", 1), 0)
    per_gpu = _check_int("workers['trials_per_gpu']", words.get("trials_per_gpu", 1), 1)
    per_node = gpus or _check_int("workers['processes']", words.get("processes", 1), 1)
    cores = _check_int("workers['cores']", words.get("cores", per_node * per_gpu), 1)
    if cores < per_node:
        raise ValueError(
            f"workers['cores']={cores} must be at least {per_node}: one for each worker of a node"
        )
    if words.get("memory") is None:
        raise ValueError(
            "workers['memory'] must be given with one_allocation: that of a node, such as '64GB', "
            "of which each worker gets its share"
        )
    return WorkerSteps(
        nodes=_check_int("workers['jobs']", words.get("jobs", 1), 1),
        per_node=per_node,
        gpus=1 if gpus else 0,
        processes=per_gpu if gpus else 1,
        cores=cores // per_node,
        megabytes=_megabytes("workers['memory']", words["memory"]) // per_node,
        interface=words.get("interface"),
    )


def _check_int(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    return value


def _lines(name: str, given: Sequence[str]) -> Sequence[str]:
    if isinstance(given, str) or not all(isinstance(line, str) for line in given):
        raise TypeError(f"{name}={given!r} must be a list of lines")
    return [line.removeprefix("#SBATCH ").strip() for line in given]


def _megabytes(name: str, memory: Any) -> int:
    """In Slurm's megabytes, of 2**20 bytes."""
    from dask.utils import parse_bytes

    try:
        n_bytes = parse_bytes(memory)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{name}={memory!r} is not understood; give text like '4GB'") from None
    return max(1, math.ceil(int(n_bytes) / 2**20))


# -- what is there -------------------------------------------------------------------------------


def _check_directory(problem: Problem, directory: Path, options: RunOptions) -> float:
    """Refuse a study that cannot go on, or need not; its time so far."""
    check_startable(directory, problem, resume=True, job_is_over=is_over)
    began = seconds = 0.0
    for record in study_records(directory):
        seconds = max(seconds, record.seconds)
        began += isinstance(record, SessionStarted)
    if began and not has_work(directory, problem, options.limits, options.policy):
        n = load_study(directory).num_trials
        raise StudyExists(
            f"{directory} has nothing left to do: it has {n} trials, and each has come to its "
            "end. Give more num_trials, or another target"
        )
    return seconds


def _check_walltime(name: str, seconds: float, queue: str | None) -> None:
    """Refuse what Slurm would take and never start."""
    try:
        limit = jobs.longest_walltime(queue)
    except (CommandFailed, CommandMissing):
        return  # sbatch will say it better
    if limit is not None and seconds > limit:
        raise ValueError(
            f"{name}={slurm_time(seconds)} is longer than partition {queue or 'default'} allows, "
            f"{slurm_time(limit)}: the job would never start"
        )


def _remove(folder: JobDirectory) -> None:
    """Take back what was made for a job that was refused."""
    for path in (folder.script, folder.path / "submission.json", folder.study / "study.json"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.path.rmdir()
        folder.study.rmdir()
