"""The command ``daskhpo cost``: slot time of a study, and cost of its Slurm jobs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskhpo.cli.arguments import add_study_path
from daskhpo.cli.text import columns, count, duration, show
from daskhpo.cluster.accounting import JobCost, slurm_cost
from daskhpo.cluster.shell import CommandError
from daskhpo.core.sizes import size_text

if TYPE_CHECKING:
    from daskhpo.results.result import Result

PARTS = {
    "useful": "training reported for the first time",
    "lost": "repeated training, or never reported",
    "saving": "from the last unit until the state was copied",
    "unreported": "running trials, since the last unit of each",
    "idle": "no trial in the slot",
}


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "cost", help="show how the time of a study's slots was used, and the cost of its Slurm jobs"
    )
    add_study_path(parser)
    parser.add_argument("--trials", action="store_true", help="also show the time of each trial")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.results.result import load_study

    result = load_study(options.path)
    jobs, problem = _jobs(result)
    if options.json:
        show(json.dumps(_as_json(result, jobs, problem, trials=options.trials)))
        return 0
    _print_slots(options.path, result)
    if options.trials:
        _print_trials(result)
    if jobs:
        _print_jobs(jobs, result.jobs)
    elif problem:
        show(f"jobs    {len(result.jobs)} in Slurm; their records were not read: {problem}")
    return 0


def _jobs(result: Result) -> tuple[list[JobCost], str]:
    """Return the costs of the study's jobs; if they are unknown, the reason."""
    if not result.jobs:
        return [], ""
    try:
        jobs = slurm_cost(result.jobs)
    except (CommandError, ValueError) as error:
        return [], str(error)
    return jobs, "" if jobs else "sacct has no records of them"


def _as_json(
    result: Result, jobs: Sequence[JobCost], problem: str, *, trials: bool
) -> dict[str, Any]:
    data: dict[str, Any] = {"cost": result.cost(), "jobs": result.jobs}
    data["slurm"] = [asdict(job) | {"gpu_hours": job.gpu_hours} for job in jobs]
    if problem:
        data["slurm_problem"] = problem
    if trials:
        names = [n for n in result.trials() if str(n).startswith(("trial", "status", "seconds"))]
        data["trials"] = result.trials()[names].to_dict("records")
    return data


def _print_slots(path: Path, result: Result) -> None:
    cost = result.cost()
    total = cost["device_seconds"]
    show(f"study   {path}: {duration(cost['seconds'])}, {count(result.num_trials, 'trial')}")
    show(f"slots   {duration(total)} in all")
    lines = [
        [f"  {part}", duration(seconds), f"{seconds / (total or 1):.1%}", meaning]
        for part, meaning in PARTS.items()
        if (seconds := cost[f"{part}_seconds"]) or part in ("useful", "lost", "idle")
    ]
    show(columns(lines, left=(0, 3)))
    if cost["search_seconds"]:
        show(f"  of these, {duration(cost['search_seconds'])} were spent waiting for the searcher")
    if cost["queue_seconds"]:
        show(f"none    {duration(cost['queue_seconds'])} without a slot: jobs queued, or ended")
    show(
        f"files   {count(int(cost['checkpoint_files']), 'checkpoint')} written "
        f"({size_text(cost['checkpoint_bytes'])}), {cost['stored_files']:,.0f} stored now "
        f"({size_text(cost['stored_bytes'])})"
    )


def _print_trials(result: Result) -> None:
    parts = ("useful", "lost", "saving", "queued")
    lines = [["trials", *parts, "status"]]
    for row in result.trials().to_dict("records"):
        spans = [duration(row[f"seconds/{part}"]) for part in parts]
        lines.append([f"  {row['trial']}", *spans, row["status"]])
    show(columns(lines, left=(0, 5)))


def _print_jobs(jobs: Sequence[JobCost], numbers: Sequence[str]) -> None:
    lines = [["jobs", "state", "exit", "queued", "ran", "GPUs", "GPU-hours", "account"]]
    for job in jobs:
        waited = "" if job.waited is None else duration(job.waited)
        line = [f"  {job.job}", job.state, job.exit_code, waited, duration(job.seconds)]
        lines.append([*line, str(job.n_gpus), f"{job.gpu_hours:.2f}", job.account or "-"])
    show(columns(lines, left=(0, 1, 7)))
    hours, gpu_hours = sum(job.seconds for job in jobs) / 3600, sum(job.gpu_hours for job in jobs)
    show(f"  in all {hours:.2f} job-hours, {gpu_hours:.2f} GPU-hours")
    if unknown := [number for number in numbers if number not in {job.job for job in jobs}]:
        show(f"  sacct has no records of {', '.join(unknown)}")
