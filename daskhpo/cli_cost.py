"""The command ``daskhpo cost``: where the time of a study's slots went, and what its jobs cost."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskhpo.cluster.accounting import JobCost, slurm_cost
from daskhpo.cluster.shell import CommandFailed, CommandMissing

if TYPE_CHECKING:
    from daskhpo.study.result import Result

PARTS = {
    "useful": "training that was reported for the first time",
    "lost": "trained again, or never reported",
    "saving": "from the last unit until the state was taken",
    "unreported": "since the last unit of the trials that run now",
    "idle": "no trial in the slot",
}


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "cost", help="where the time of a study's slots went, and what its Slurm jobs cost"
    )
    parser.add_argument("path", type=Path, help="the study's directory")
    parser.add_argument("--trials", action="store_true", help="the time of each trial, too")
    parser.add_argument("--json", action="store_true", help="all of it as one JSON object")
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit status."""
    from daskhpo.study.study import load_study

    result = load_study(options.path)
    jobs, problem = _jobs(result)
    if options.json:
        print(json.dumps(_as_json(result, jobs, problem, trials=options.trials)))
        return 0
    _print_slots(options.path, result)
    if options.trials:
        _print_trials(result)
    if jobs:
        _print_jobs(jobs, result.jobs)
    elif problem:
        print(f"jobs       {len(result.jobs)} in Slurm; their records were not read: {problem}")
    return 0


def _jobs(result: Result) -> tuple[list[JobCost], str]:
    """What the study's jobs cost, or why that is not known."""
    if not result.jobs:
        return [], ""
    try:
        jobs = slurm_cost(result.jobs)
    except (CommandMissing, CommandFailed, ValueError) as error:
        return [], str(error)
    return jobs, "" if jobs else "sacct knows none of them any more"


def _as_json(
    result: Result, jobs: Sequence[JobCost], problem: str, *, trials: bool
) -> dict[str, Any]:
    told: dict[str, Any] = {"cost": result.cost(), "jobs": result.jobs}
    told["slurm"] = [asdict(job) | {"gpu_hours": job.gpu_hours} for job in jobs]
    if problem:
        told["slurm_problem"] = problem
    if trials:
        names = [n for n in result.trials() if str(n).startswith(("trial", "status", "seconds"))]
        told["trials"] = result.trials()[names].to_dict("records")
    return told


def _print_slots(path: Path, result: Result) -> None:
    cost = result.cost()
    total = cost["device_seconds"]
    print(f"study      {path}: {_span(cost['seconds'])} in all, {result.num_trials} trials")
    print(f"slots      {_span(total)}")
    for part, meaning in PARTS.items():
        if (seconds := cost[f"{part}_seconds"]) or part in ("useful", "lost", "idle"):
            share = f"{seconds / total:6.1%}" if total else ""
            print(f"  {part:<10} {_span(seconds):>12} {share}  {meaning}")
    if cost["search_seconds"]:
        print(f"  of these, the searcher was waited for {_span(cost['search_seconds'])}")
    if cost["queue_seconds"]:
        print(f"no slot    {_span(cost['queue_seconds'])}: jobs waited in the queue, or were gone")
    print(
        f"files      {cost['checkpoint_files']:.0f} checkpoints written "
        f"({cost['checkpoint_bytes'] / 1e6:.1f} MB), {cost['stored_files']:.0f} there now "
        f"({cost['stored_bytes'] / 1e6:.1f} MB)"
    )


def _print_trials(result: Result) -> None:
    parts = ("useful", "lost", "saving", "queued")
    print(f"trial      {''.join(f'{part:>12}' for part in parts)}  status")
    for row in result.trials().to_dict("records"):
        spans = "".join(f"{_span(row[f'seconds/{part}']):>12}" for part in parts)
        print(f"  {row['trial']:<9}{spans}  {row['status']}")


def _print_jobs(jobs: Sequence[JobCost], numbers: Sequence[str]) -> None:
    print("jobs       state            exit      queued         ran   GPUs  GPU-hours  account")
    for job in jobs:
        waited = "" if job.waited is None else _span(job.waited)
        print(
            f"  {job.job:<9}{job.state:<15}{job.exit_code:>6}{waited:>12}{_span(job.seconds):>12}"
            f"{job.n_gpus:>7}{job.gpu_hours:>11.2f}  {job.account or '-'}"
        )
    hours, gpu_hours = sum(job.seconds for job in jobs) / 3600, sum(job.gpu_hours for job in jobs)
    print(f"  in all   {hours:.2f} job-hours, {gpu_hours:.2f} GPU-hours")
    if forgotten := [number for number in numbers if number not in {job.job for job in jobs}]:
        print(f"  sacct knows nothing of {', '.join(forgotten)}")


def _span(seconds: float) -> str:
    """A length of time for people: ``"3 h 05 min"``, ``"4 min 10 s"``, ``"8.2 s"``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
