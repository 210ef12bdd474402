"""The commands ``daskhpo submit | attach | stop``: studies that run elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskhpo.cli.arguments import add_study_path
from daskhpo.cli.options import add_run_options, run_options
from daskhpo.cli.text import show
from daskhpo.cluster.jobs import jobs_named
from daskhpo.cluster.shell import CommandError
from daskhpo.cluster.times import slurm_time
from daskhpo.core.printable import printable, shell_word
from daskhpo.dashboard.server import page_of
from daskhpo.remote.script import worker_job_name
from daskhpo.remote.submission import JobDirectory, Submission, WorkerJobs
from daskhpo.results.result import Result

if TYPE_CHECKING:
    from daskhpo.remote.attach import RunStatus

STUDY_FAILED = 3  # exit status: errors stopped the study, or every trial failed
LISTS = ("job_extra_directives", "job_script_prologue", "worker_extra_args")


def add_to(commands: Any) -> None:
    """Add the commands to the parsers of a command line."""
    submit = commands.add_parser(
        "submit",
        help="run a study in a Slurm job of its own",
        description="Submit a small Slurm job, the controller job, that runs the study's scheduler "
        "and coordinator. It submits the workers' jobs. You may log out afterwards.",
    )
    submit.add_argument(
        "study", metavar="FILE.py:NAME", help="Python file, and the name of the Study in it"
    )
    add_run_options(
        submit,
        gpu=None,
        time_budget="time budget of all jobs of the chain: seconds, or text such as 8h",
    )
    submit.add_argument(
        "--walltime", required=True, help="walltime of the controller job: 12h, or D-HH:MM:SS"
    )
    submit.add_argument("--queue", help="partition of the controller job")
    submit.add_argument("--account", help="account that the controller job is charged to")
    submit.add_argument("--cores", type=int, help="CPUs of the controller job (default: 2)")
    submit.add_argument("--memory", help="memory of the controller job (default: 4GB)")
    submit.add_argument(
        "--directive",
        action="append",
        default=[],
        metavar="LINE",
        help="another #SBATCH line of the controller job, such as --directive=--constraint=cpu; "
        "may be repeated",
    )
    submit.add_argument(
        "--prologue",
        action="append",
        default=[],
        metavar="LINE",
        help="a line of the controller job's script before Python starts; may be repeated",
    )
    submit.add_argument(
        "--chain",
        type=int,
        default=1,
        metavar="N",
        help="run up to N controller jobs, one after another (default: 1)",
    )
    submit.add_argument(
        "--one-allocation",
        action="store_true",
        help="run everything in one job: the workers are its steps, on the nodes that --workers "
        "describes",
    )
    submit.add_argument(
        "--workers",
        nargs="+",
        default=[],
        metavar="OPTION=VALUE",
        help="options of slurm_cluster for the workers' jobs, such as jobs=8 queue=gpu "
        "walltime=04:00:00 cores=8 memory=32GB",
    )
    submit.add_argument(
        "--dry-run", action="store_true", help="print the job script, and submit nothing"
    )
    submit.set_defaults(act=_submit)

    attach = commands.add_parser("attach", help="follow a running study; Ctrl-C leaves it running")
    add_study_path(attach)
    attach.set_defaults(act=_attach)

    stop = commands.add_parser(
        "stop", help="stop a running study: its trials are preempted at their next report"
    )
    add_study_path(stop)
    stop.set_defaults(act=_stop)


def lines(path: Path, now: RunStatus, num_slots: int) -> list[str]:
    """Return the lines of ``daskhpo status`` on a submitted study's jobs; else none."""
    folder = JobDirectory(path)
    submission, number = folder.submission(), folder.number()
    if submission is None or number is None or not now:
        return []
    found = []
    waiting = [job for job in now.jobs if job.is_pending]
    for job in [job for job in now.jobs if not job.is_pending] or waiting[:1]:
        if job.is_pending:
            waiting.remove(job)
        shown = job.description.replace("job", "job      ", 1)
        if job.seconds_left is not None:
            shown += f", {slurm_time(job.seconds_left)} left"
        found.append(shown + (f"; {len(waiting)} more may follow" if waiting else ""))
    if now.holder is not None:
        found.append(f"workers   {num_slots} slots{_worker_jobs(path, submission, number)}")
    place = folder.address()
    if place is not None and place.job in [job.number for job in now.jobs if not job.is_pending]:
        found.append(f"dashboard {place.tunnel(submission.login)}")
        found.append(f"          then open http://localhost:8787/{page_of(path)}")
    return found


def _worker_jobs(path: Path, submission: Submission, number: str) -> str:
    if not isinstance(submission.workers, WorkerJobs):
        return ", in the same job"
    try:
        listed = jobs_named(worker_job_name(path.absolute().name, number))
    except CommandError:
        return ""
    states = Counter(
        f"{job.state} ({job.reason})" if job.is_pending and job.reason else job.state
        for job in listed
    )
    return "; jobs: " + (", ".join(f"{n} {state}" for state, n in states.items()) or "none")


def _submit(options: argparse.Namespace) -> int:
    from daskhpo.study.study import load_source
    from daskhpo.study.trust import trust

    study = load_source(options.study)
    trust(options.study)
    given = run_options(options) | {
        "walltime": options.walltime,
        "workers": _worker_options(options.workers),
        "chain": options.chain,
        "one_allocation": options.one_allocation,
        "queue": options.queue,
        "account": options.account,
        "cores": options.cores,
        "memory": options.memory,
        "job_extra_directives": options.directive,
        "job_script_prologue": options.prologue,
    }
    if options.dry_run:
        show(study.job_script(**given), end="")
        return 0
    job = study.submit(**given).job
    path = shell_word(study.path)
    show(f"job {job} will run {path}; you may log out")
    show(f"  status  daskhpo status {path}")
    show(f"  follow  daskhpo attach {path}")
    show(f"  stop    daskhpo stop {path}")
    show(f"  log     {path}/job/{job}{'_*' if options.chain > 1 else ''}.log")
    return 0


def _attach(options: argparse.Namespace) -> int:
    from daskhpo.callbacks import ConsoleProgress
    from daskhpo.remote.attach import attach

    try:
        result = attach(options.path, [ConsoleProgress()]).wait()
    except KeyboardInterrupt:
        return 0
    return _ended(result)


def _stop(options: argparse.Namespace) -> int:
    from daskhpo.callbacks import ConsoleProgress
    from daskhpo.remote.attach import attach

    study = attach(options.path, [ConsoleProgress()])
    study.stop("daskhpo stop")
    show("stopping: trials are preempted at their next report, and can be resumed", file=sys.stderr)
    try:
        result = study.wait()
    except KeyboardInterrupt:
        show("the stop request was sent; the study stops without this command", file=sys.stderr)
        return 0
    return _ended(result)


def _ended(result: Result) -> int:
    if result.has_reports:
        trial, metric = result.best_trial, printable(result.objective.metric)
        show(f"best so far: {metric}={result.best_value:.6g} (trial {trial.id})")
    show(f"results: {result.path}")
    return exit_status(result)


def exit_status(result: Result) -> int:
    """Return the exit status of a command that ran or followed a study."""
    return STUDY_FAILED if result.has_failed else 0


def _worker_options(given: Sequence[str]) -> dict[str, Any]:
    """Return ``jobs=8 queue=gpu`` as a dict; options of :data:`LISTS` may be repeated.

    Raises
    ------
    ValueError : something is not ``OPTION=VALUE``, or an option is given twice.
    """
    found: dict[str, Any] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--workers {item!r} must be OPTION=VALUE, such as jobs=8")
        if name in LISTS:
            found.setdefault(name, []).append(text)
        elif name in found:
            raise ValueError(f"--workers: {name} is given twice")
        else:
            found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"None": None, "True": True, "False": False}.get(text, text)
