"""The command ``daskhpo doctor``: checks before the first GPU-hour."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskhpo.cluster.doctor import Finding

WIDTH = 100
LABEL = 18  # width of the column with the names of checks
TEXT = "checks what a study on Slurm needs, and says what to do where it lacks"
EPILOG = """\
Without --fast one small job of a few seconds (five minutes at most) looks at what can only be seen
from inside: Python, devices, the shared directory, the network. But for its time it asks for what
worker jobs would ask for.

Exit status: 0 if all is well (there may be warnings), 1 if there is a problem, 2 for a mistake.
"""


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "doctor",
        help=TEXT,
        description=f"{TEXT[0].upper()}{TEXT[1:]}.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    job = parser.add_argument_group("what worker jobs would ask for (words of slurm_cluster)")
    job.add_argument("--partition", "--queue", dest="queue", metavar="NAME", help="the partition")
    job.add_argument("--account", metavar="NAME", help="what the jobs are charged to")
    job.add_argument("--walltime", metavar="TIME", help="of each job: 4h, 04:00:00 or 1-00:00:00")
    devices = job.add_mutually_exclusive_group()
    devices.add_argument(
        "--gpus",
        "--gpus-per-job",
        dest="gpus",
        metavar="N",
        type=int,
        default=1,
        help="GPUs of each job (default: 1; 0: none)",
    )
    devices.add_argument("--gres", metavar="GRES", help="the same in Slurm's words: gpu:a100:2")
    job.add_argument("--cores", metavar="N", type=int, help="CPUs of each job")
    job.add_argument("--memory", metavar="SIZE", help="of each job, such as 32GB")
    job.add_argument(
        "--directive",
        action="append",
        default=[],
        metavar="OPTION",
        help="another option of sbatch, as --directive=--constraint=gpu; may be repeated",
    )
    job.add_argument(
        "--prologue",
        action="append",
        default=[],
        metavar="LINE",
        help="a line of the job script before Python starts, as 'module load python'",
    )
    job.add_argument(
        "--python",
        metavar="PROGRAM",
        default=sys.executable,
        help="Python of the workers (default: the one that runs this)",
    )
    parser.add_argument(
        "--shared",
        metavar="PATH",
        default=".",
        help="directory of your studies, which all machines must see (default: this one)",
    )
    parser.add_argument(
        "--interface",
        metavar="NAME",
        help="network interface by which workers reach this machine (default: it is found)",
    )
    parser.add_argument("--fast", action="store_true", help="submit no job")
    parser.add_argument(
        "--wait",
        metavar="TIME",
        default="10m",
        help="how long the job may take to start, as 10m or 2h (default: 10m)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, one line a finding")
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit status."""
    from daskhpo.cluster.doctor import JobRequest, Verdict
    from daskhpo.cluster.doctor.checks import run_checks
    from daskhpo.core.quantities import parse_duration

    request = JobRequest(
        queue=options.queue,
        account=options.account,
        walltime=options.walltime,
        cores=options.cores,
        memory=options.memory,
        gpus_per_job=options.gpus,
        gres=options.gres,
        job_extra_directives=tuple(options.directive),
        job_script_prologue=tuple(options.prologue),
        python=options.python,
    )
    counts: Counter[Verdict] = Counter()
    place = None
    for finding in run_checks(
        request,
        options.shared,
        options.interface,
        fast=options.fast,
        wait=parse_duration(options.wait, "--wait"),
        log=_say,
    ):
        counts[finding.verdict] += 1
        if options.json:
            print(json.dumps(_as_json(finding)), flush=True)
            continue
        if finding.location is not place:
            place = finding.location
            print(_heading(finding), flush=True)
        print(_lines(finding), flush=True)
    if not options.json:
        print(_summary(counts))
    return 1 if counts[Verdict.PROBLEM] else 0


def _say(news: str) -> None:
    print(f"daskhpo: {news}", file=sys.stderr, flush=True)


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "place": finding.location.value,
        "check": finding.check,
        "verdict": finding.verdict.value,
        "said": finding.message,
        "todo": finding.hint,
    }


def _heading(finding: Finding) -> str:
    from daskhpo.cluster.doctor import CheckLocation

    return (
        f"here, on {socket.gethostname()}" if finding.location is CheckLocation.HERE else "in a job"
    )


def _lines(finding: Finding) -> str:
    """``verdict  check  what was found``, and below it what to do."""
    indent = " " * (12 + LABEL)
    head = f"  {finding.verdict.value:<9} {finding.check:<{LABEL}}"
    lines = textwrap.wrap(
        finding.message,
        WIDTH,
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if finding.hint:
        lines += textwrap.wrap(
            finding.hint,
            WIDTH,
            initial_indent=f"{indent}-> ",
            subsequent_indent=f"{indent}   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _summary(counts: Counter[Any]) -> str:
    from daskhpo.cluster.doctor import Verdict

    words = {Verdict.WARNING: "warning", Verdict.PROBLEM: "problem"}
    parts = [f"{counts[Verdict.OK]} ok"]
    for verdict, word in words.items():
        parts.append(f"{counts[verdict]} {word}{'s' * (counts[verdict] != 1)}")
    if counts[Verdict.SKIPPED]:
        parts.append(f"{counts[Verdict.SKIPPED]} not looked at")
    return ", ".join(parts)
