"""Parser of the command line, and the commands that have no file of their own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from daskhpo._version import __version__
from daskhpo.cli import checkpoints, cost, doctor, jobs, plan, replay
from daskhpo.cli.arguments import positive
from daskhpo.cli.options import add_run_options, run_options
from daskhpo.core.errors import DaskhpoError
from daskhpo.engine.session import IfExists, read_manifest
from daskhpo.results.progress import describe_search_wait
from daskhpo.results.result import Result

if TYPE_CHECKING:
    from daskhpo.remote.attach import RunStatus


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int : exit status. 0: success; 1: nothing found, or a problem found; 2: invalid input.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.act(options) or 0)
    except (DaskhpoError, ValueError, TypeError, OSError) as error:
        print(f"daskhpo: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="daskhpo", description="Hyperparameter optimisation on Dask."
    )
    parser.add_argument("--version", action="version", version=f"daskhpo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a study that is defined in a Python file")
    run.add_argument(
        "study", metavar="FILE.py:NAME", help="Python file, and the name of the Study in it"
    )
    run.add_argument(
        "--if-exists",
        choices=get_args(IfExists),
        default="error",
        help="what to do if the study's directory holds trials: resume them, or begin a new study "
        "beside them (default: %(default)s)",
    )
    run.set_defaults(act=_run)

    resume = commands.add_parser("resume", help="continue a study that was stopped or killed")
    resume.add_argument("path", type=Path, help="the study's directory")
    resume.add_argument(
        "study",
        metavar="FILE.py:NAME",
        nargs="?",
        help="Python file and name of the study; not needed if `daskhpo run` started it",
    )
    resume.set_defaults(act=_resume)

    for command in (run, resume):
        add_run_options(command, gpu=0)
        command.add_argument(
            "--scheduler",
            metavar="ADDRESS|FILE.json",
            help="address or scheduler file of a Dask scheduler (default: start a local one)",
        )

    status = commands.add_parser("status", help="show the state of a study and of its trials")
    status.add_argument("path", type=Path, help="the study's directory")
    status.set_defaults(act=_status)

    best = commands.add_parser("best", help="show the best trials of a study")
    best.add_argument("path", type=Path, help="the study's directory")
    best.add_argument("-k", type=positive, default=1, help="number of trials to show (default: 1)")
    best.add_argument("--json", action="store_true", help="print JSON, one line per trial")
    best.set_defaults(act=_best)

    jobs.add_to(commands)
    checkpoints.add_to(commands)
    cost.add_to(commands)
    plan.add_to(commands)
    doctor.add_to(commands)
    replay.add_to(commands)
    return parser


def _run(options: argparse.Namespace) -> int:
    from daskhpo.study.study import load_source

    study = load_source(options.study)
    _limited(options)
    return _report(_session(partial(study.run, if_exists=options.if_exists), options))


def _resume(options: argparse.Namespace) -> int:
    from daskhpo.study.study import load_source

    manifest = read_manifest(options.path)
    source = options.study or manifest.source
    if source is None:
        raise ValueError(
            f"{options.path} was not started by `daskhpo run`, so the file that defines its study "
            f"is unknown: give it, `daskhpo resume {options.path} FILE.py:NAME`, or call "
            "study.resume() in the script that started it"
        )
    study = load_source(source)
    if study.path.resolve() != options.path.resolve():
        if study.source != manifest.source:
            raise ValueError(f"{source} defines the study in {study.path}, not {options.path}")
        # A branch, or a moved directory: its manifest names this source, so use it where it is.
        study = study.at(options.path.absolute())
    return _report(_session(study.resume, options))


def _session(method: Any, options: argparse.Namespace) -> Result:
    from distributed import Client

    client = None
    if options.scheduler is not None:
        is_file = options.scheduler.endswith(".json")
        where = {"scheduler_file" if is_file else "address": options.scheduler}
        client = Client(**where, set_as_default=False)
    result: Result = method(client=client, **run_options(options))
    return result


def _limited(options: argparse.Namespace) -> None:
    if options.num_trials is options.time_budget is options.target is None:
        raise ValueError("give --num-trials, --time-budget or --target (or several)")


def _report(result: Result) -> int:
    if result.num_trials == 0:
        print("no trial was started")
        return 0
    _print_best(result, 1)
    print(f"results: {result.path}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from daskhpo.remote.attach import run_status
    from daskhpo.results.result import load_study

    manifest = read_manifest(options.path)
    now = run_status(options.path)
    result = load_study(options.path)
    frame = result.trials()
    counts: dict[object, int] = frame["status"].value_counts().to_dict()
    print(f"study     {options.path}")
    print(f"metric    {manifest.metric} ({manifest.mode})")
    print(f"scheduler {manifest.scheduler}")
    print(f"searcher  {manifest.searcher}")
    print(f"state     {_state(now, result)}")
    for line in jobs.lines(options.path, now, result.num_slots):
        print(line)
    shown = ", ".join(f"{n} {status}" for status, n in counts.items()) or "none"
    print(f"trials    {len(frame)}: {shown}")
    cost = result.cost()
    useful = cost["useful_seconds"] / (cost["device_seconds"] or 1)
    print(
        f"cost      {cost['seconds']:.0f} s, {cost['device_seconds']:.0f} slot-seconds "
        f"({useful:.0%} useful), "
        f"{cost['checkpoint_files']:.0f} checkpoints ({cost['checkpoint_bytes'] / 1e6:.1f} MB)"
    )
    print(f"waited    {describe_search_wait(cost['search_seconds'], int(cost['fallback_trials']))}")
    if result.has_reports:
        best = result.best_trial
        print(f"best      {manifest.metric}={result.best_value:.6g} (trial {best.id})")
    return 0


def _state(now: RunStatus, result: Result) -> str:
    if (holder := now.holder) is not None:
        return f"in use by process {holder['pid']} on {holder['host']}"
    if now.jobs:
        return "waiting for its job"
    if result.stop_reason:
        return f"not running; stopped, because {result.stop_reason}"
    return "not running"


def _best(options: argparse.Namespace) -> int:
    from daskhpo.results.result import load_study

    result = load_study(options.path)
    if not result.has_reports:
        print(f"daskhpo: no trial of {options.path} has reported yet", file=sys.stderr)
        return 1
    if options.json:
        for trial in result.best_trials(options.k):
            value = result.objective.value(trial.best_loss)
            row = {"trial": trial.id, result.objective.metric: value, "resource": trial.resource}
            print(json.dumps(row | {"config": trial.config}))
    else:
        _print_best(result, options.k)
    return 0


def _print_best(result: Result, k: int) -> None:
    if not result.has_reports:
        print(f"none of {result.num_trials} trials has reported a value")
        return
    for trial in result.best_trials(k):
        value = result.objective.value(trial.best_loss)
        print(
            f"{result.objective.metric}={value:.6g}  trial {trial.id}, {trial.status.value} at "
            f"{trial.resource}"
        )
        for name, setting in trial.config.items():
            print(f"  {name} = {setting!r}")


if __name__ == "__main__":
    sys.exit(main())
