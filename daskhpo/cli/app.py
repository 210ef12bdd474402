"""Parser of the command line, and the commands that have no file of their own."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from daskhpo._version import __version__
from daskhpo.cli import (
    checkpoints,
    cost,
    doctor,
    enqueue,
    exchange,
    jobs,
    logs,
    plan,
    replay,
    report,
    tune,
    verify,
)
from daskhpo.cli import trial as one_trial
from daskhpo.cli.arguments import add_study_path, check_scheduler_address, positive
from daskhpo.cli.definition import add_study, load_defined
from daskhpo.cli.options import add_run_options, run_options
from daskhpo.cli.text import count, duration, show
from daskhpo.core.errors import DaskhpoError, StudyFailed
from daskhpo.core.printable import printable, shell_word
from daskhpo.core.sizes import size_text
from daskhpo.core.tracebacks import place
from daskhpo.core.types import PeakMemory
from daskhpo.engine.extension import described
from daskhpo.engine.session import IfExists, read_manifest
from daskhpo.results.progress import describe_search_wait
from daskhpo.results.result import Result

if TYPE_CHECKING:
    from daskhpo.remote.attach import RunStatus


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int : exit status. 0: success; 1: nothing found, or a problem found; 2: invalid input; 3: the
        study stopped because of errors, or every trial failed; 130: interrupted.
    """
    try:
        try:
            options = _parser().parse_args(arguments)
            return int(options.act(options) or 0)
        finally:
            sys.stdout.flush()  # here, where a closed pipe is expected
    except BrokenPipeError:  # the reader, such as `head`, has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return 0
    except KeyboardInterrupt:
        show("daskhpo: interrupted; what was reported until now is kept", file=sys.stderr)
        return 130
    except (DaskhpoError, ValueError, TypeError, OSError) as error:
        show(f"daskhpo: {error}", file=sys.stderr)
        return int(options.failed) if isinstance(error, StudyFailed) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="daskhpo", description="Hyperparameter optimisation on Dask."
    )
    parser.add_argument("--version", action="version", version=f"daskhpo {__version__}")
    parser.set_defaults(failed=2)
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", parser_class=tune.CommandParser
    )

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
    resume.set_defaults(retry_failed=False)
    retry = commands.add_parser(
        "retry", help="continue a study, and run its failed trials again first"
    )
    retry.set_defaults(retry_failed=True, max_t=None)
    for command in (resume, retry):
        add_study(command)
        command.set_defaults(act=_resume)

    resume.add_argument(
        "--max-t",
        type=positive,
        help="train trials until this resource from now on; fully trained ones may continue",
    )

    of_script = tune.add_to(commands)
    of_script.set_defaults(act=_tune)

    for command in (resume, retry, run, of_script):
        command.set_defaults(failed=jobs.STUDY_FAILED)
        add_run_options(command, gpu=0)
        command.add_argument(
            "--scheduler",
            metavar="ADDRESS|FILE.json",
            help="address or scheduler file of a Dask scheduler (default: start a local one)",
        )

    status = commands.add_parser("status", help="show the state of a study, or of one trial")
    add_study_path(status)
    status.add_argument(
        "trial",
        type=int,
        nargs="?",
        help="number of a trial: show its configuration, its state, and its traceback if it failed",
    )
    status.set_defaults(act=_status)

    best = commands.add_parser("best", help="show the best trials of a study")
    add_study_path(best)
    best.add_argument("-k", type=positive, default=1, help="number of trials to show (default: 1)")
    best.add_argument("--json", action="store_true", help="print JSON, one line per trial")
    best.set_defaults(act=_best)

    logs.add_to(commands)
    jobs.add_to(commands)
    checkpoints.add_to(commands)
    cost.add_to(commands)
    plan.add_to(commands)
    doctor.add_to(commands)
    replay.add_to(commands)
    exchange.add_to(commands)
    report.add_to(commands)
    verify.add_to(commands)
    one_trial.add_to(commands)
    enqueue.add_to(commands)
    return parser


def _run(options: argparse.Namespace) -> int:
    from daskhpo.study.study import load_source
    from daskhpo.study.trust import trust

    _check(options)
    study = load_source(options.study)
    _limited(options)
    trust(options.study)
    return _report(_session(partial(study.run, if_exists=options.if_exists), options))


def _tune(options: argparse.Namespace) -> int:
    from daskhpo.study.study import load_source
    from daskhpo.study.trust import trust

    _check(options)
    if options.write is None:
        _limited(options)
    source = tune.written_study(options)
    if options.write is not None:
        show(f"{options.write} defines the study; run it: daskhpo run {shell_word(source)}")
        return 0
    trust(source)
    study = load_source(source)
    return _report(_session(partial(study.run, if_exists=options.if_exists), options))


def _resume(options: argparse.Namespace) -> int:
    from daskhpo.results.result import load_study

    _check(options)
    verb, argument = ("retry", "retry_failed=True") if options.retry_failed else ("resume", "")
    study = load_defined(options, verb, argument)
    if options.retry_failed:
        if not (n_failed := load_study(options.path).num_failed):
            show(f"daskhpo: no trial of {options.path} has failed", file=sys.stderr)
            return 1
        show(f"{count(n_failed, 'failed trial')} of {options.path} will run again", file=sys.stderr)
    begin = partial(study.resume, retry_failed=options.retry_failed, max_t=options.max_t)
    return _report(_session(begin, options))


def _session(method: Any, options: argparse.Namespace) -> Result:
    from distributed import Client

    client = None
    if options.scheduler is not None:
        is_file = options.scheduler.endswith(".json")
        where = {"scheduler_file" if is_file else "address": options.scheduler}
        client = Client(**where, set_as_default=False)
    result: Result = method(client=client, **run_options(options))
    return result


def _check(options: argparse.Namespace) -> None:
    """Check the options of a session, before a study is looked at."""
    run_options(options)
    if options.scheduler is not None:
        check_scheduler_address(options.scheduler)


def _limited(options: argparse.Namespace) -> None:
    if options.num_trials is options.time_budget is options.target is None:
        raise ValueError("give --num-trials, --time-budget or --target (or several)")


def _report(result: Result) -> int:
    if result.num_trials == 0:
        show("no trial was started")
        return 0
    _print_best(result, 1)
    if result.has_failed:
        _print_failures(result)
    show(f"results: {result.path}")
    return jobs.exit_status(result)


def _print_failures(result: Result) -> None:
    """Print how many trials failed, the first one's error, and what to do."""
    trial = result.failed_trials()[0]
    number = trial.id
    show(f"{result.num_failed} of {count(result.num_trials, 'trial')} failed; trial {number}:")
    show(f"  {printable(trial.reason)}")
    if where := place(trial.error):
        show(where)
    path = shell_word(result.path)
    show(f"its traceback:        daskhpo status {path} {number}")
    show(f"run them again with:  daskhpo retry {path}")


def _status(options: argparse.Namespace) -> int:
    from daskhpo.remote.attach import run_status
    from daskhpo.results.pace import read_seconds_left
    from daskhpo.results.result import load_study

    manifest = read_manifest(options.path)
    result = load_study(options.path)
    if options.trial is not None:
        _print_trial(result, options.trial)
        return 0
    now = run_status(options.path)
    counts = sorted(result.status().items(), key=lambda pair: -pair[1])
    show(f"study     {options.path}")
    show(f"metric    {printable(manifest.metric)} ({manifest.mode})")
    show(f"scheduler {described(options.path)}")
    show(f"searcher  {manifest.searcher}")
    show(f"state     {_state(now, result)}")
    for line in jobs.lines(options.path, now, result.num_slots):
        show(line)
    shown = ", ".join(f"{n} {status}" for status, n in counts) or "none"
    show(f"trials    {result.num_trials}: {shown}")
    if now.holder is not None and (left := read_seconds_left(options.path, time.time())):
        show(f"left      about {duration(left)} at this pace")
    cost = result.cost()
    useful = cost["useful_seconds"] / (cost["device_seconds"] or 1)
    show(
        f"cost      {cost['seconds']:.0f} s, {cost['device_seconds']:.0f} slot-seconds "
        f"({useful:.0%} useful), "
        f"{count(int(cost['checkpoint_files']), 'checkpoint')} "
        f"({size_text(cost['checkpoint_bytes'])})"
    )
    _print_memory(result.peak_memory)
    if result.num_set_aside:
        show(f"set aside {result.num_set_aside}, for which there would be too little memory")
    show(f"waited    {describe_search_wait(cost['search_seconds'], int(cost['fallback_trials']))}")
    if result.has_reports:
        best = result.best_trial
        show(
            f"best      {_named(manifest.metric, result.best_value)}, trial {best.id} after "
            f"{count(best.best_resource, 'unit')} of training"
        )
    return 0


def _print_trial(result: Result, number: int) -> None:
    trial = result.trial(number)
    ended = f": {printable(trial.reason)}" if trial.reason else ""
    if number in result.paused_by_hand:
        command = f"daskhpo trial {shell_word(result.path)} {number} --resume"
        ended = f", and paused by hand: `{command}` lets it continue"
    show(f"trial     {number} of {result.path}")
    show(f"state     {trial.status.value}{ended}")
    show(
        f"resource  {count(trial.resource, 'unit')} of training, "
        f"launched {count(trial.attempt, 'time')}"
    )
    show(f"time      {duration(trial.seconds)} in slots")
    _print_memory(trial.memory)
    if trial.checkpoint is not None:
        show(f"saved     after {count(trial.checkpoint.resource, 'unit')}")
    for name, value in trial.metrics.items():
        show(f"{'metrics' if name == next(iter(trial.metrics)) else '':<9} {_named(name, value)}")
    if math.isfinite(trial.best_loss):
        best = result.objective.value(trial.best_loss)
        after = count(trial.best_resource, "unit")
        show(f"best      {_named(result.objective.metric, best)} after {after}")
    for name, setting in trial.config.items():
        first = name == next(iter(trial.config))
        show(f"{'config' if first else '':<9} {printable(name)} = {setting!r}")
    if trial.error:
        show(f"\n{trial.error}")


def _print_memory(peak: PeakMemory) -> None:
    """Print the most memory that a trial has used, as far as it is known."""
    where = {"of its machine's memory": peak.host, "of its device's": peak.device}
    known = [f"{size_text(n_bytes)} {words}" for words, n_bytes in where.items() if n_bytes]
    if known:
        show(f"memory    at most {', '.join(known)}")


def _named(name: str, value: float) -> str:
    return f"{printable(name)}={value:.6g}"


def _state(now: RunStatus, result: Result) -> str:
    if (holder := now.holder) is not None:
        return f"running, in process {holder['pid']} on {holder['host']}"
    if now.jobs:
        return "waiting for its job"
    if result.stop_reason:
        return f"not running; stopped, because {printable(result.stop_reason)}"
    return "not running"


def _best(options: argparse.Namespace) -> int:
    from daskhpo.results.result import load_study

    result = load_study(options.path)
    if not result.has_reports:
        show(f"daskhpo: no trial of {options.path} has reported yet", file=sys.stderr)
        return 1
    if options.json:
        for trial in result.best_trials(options.k):
            value = result.objective.value(trial.best_loss)
            row = {"trial": trial.id, result.objective.metric: value, "resource": trial.resource}
            row["best_resource"] = trial.best_resource
            show(json.dumps(row | {"config": trial.config}))
    else:
        _print_best(result, options.k)
    return 0


def _print_best(result: Result, k: int) -> None:
    if not result.has_reports:
        show(f"none of {result.num_trials} trials has reported a value")
        return
    for trial in result.best_trials(k):
        value = result.objective.value(trial.best_loss)
        show(
            f"{_named(result.objective.metric, value)}  trial {trial.id} after "
            f"{count(trial.best_resource, 'unit')} of training, {trial.status.value} after "
            f"{trial.resource:,}"
        )
        for name, setting in trial.config.items():
            show(f"  {printable(name)} = {setting!r}")


if __name__ == "__main__":
    sys.exit(main())
