"""The command ``daskhpo doctor``: check a Slurm site before the first GPU-hour."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import textwrap
from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from daskhpo.cli.text import count, show
from daskhpo.core.arguments import check_path, check_word, optional

if TYPE_CHECKING:
    from daskhpo.cluster.doctor import Finding

WIDTH = 100
LABEL = 18  # width of the column with the names of checks
TEXT = "check that this Slurm site can run studies, and suggest fixes"
EPILOG = """\
Unless --fast is given, one small job is submitted. It runs for a few seconds (five minutes at most)
and checks what is visible only inside a job: Python, devices, the shared directory, the network.
It requests what worker jobs would request, except for the walltime.

Exit status: 0 if there is no problem (warnings are possible), 1 if there is one, 2 if the input is
invalid.
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
    job = parser.add_argument_group("options of worker jobs (as for slurm_cluster)")
    job.add_argument("--partition", "--queue", dest="queue", metavar="NAME", help="partition")
    job.add_argument("--account", metavar="NAME", help="account that the jobs are charged to")
    job.add_argument(
        "--walltime", metavar="TIME", help="walltime of each job: 4h, 04:00:00 or 1-00:00:00"
    )
    devices = job.add_mutually_exclusive_group()
    devices.add_argument(
        "--gpus",
        "--gpus-per-job",
        dest="gpus_per_job",
        metavar="N",
        type=int,
        default=1,
        help="GPUs of each job (default: 1; 0: none)",
    )
    devices.add_argument(
        "--gres", metavar="GRES", help="GPUs of each job in Slurm's notation, such as gpu:a100:2"
    )
    job.add_argument("--cores", metavar="N", type=int, help="CPUs of each job")
    job.add_argument("--memory", metavar="SIZE", help="memory of each job, such as 32GB")
    job.add_argument(
        "--directive",
        dest="job_extra_directives",
        action="append",
        default=[],
        metavar="OPTION",
        help="another option of sbatch, such as --directive=--constraint=gpu; may be repeated",
    )
    job.add_argument(
        "--prologue",
        dest="job_script_prologue",
        action="append",
        default=[],
        metavar="LINE",
        help="a line of the job script before Python starts, such as 'module load python'; may be "
        "repeated",
    )
    job.add_argument(
        "--python",
        metavar="PROGRAM",
        default=sys.executable,
        help="Python interpreter of the workers (default: the one that runs this command)",
    )
    job.add_argument(
        "--container",
        metavar="IMAGE",
        help="image of Apptainer or Singularity in which the workers run",
    )
    parser.add_argument(
        "--shared",
        metavar="PATH",
        default=".",
        help="directory of your studies, on a file system that all machines share (default: the "
        "current one)",
    )
    parser.add_argument(
        "--interface",
        metavar="NAME",
        help="network interface through which workers reach this machine (default: detected)",
    )
    parser.add_argument("--fast", action="store_true", help="submit no job")
    parser.add_argument(
        "--wait",
        metavar="TIME",
        default="10m",
        help="maximum wait for the job to start, such as 10m or 2h (default: 10m)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one line per finding")
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.cluster.doctor import JobRequest, Verdict
    from daskhpo.cluster.doctor.checks import run_checks
    from daskhpo.core.quantities import check_duration

    given: dict[str, Any] = {one.name: getattr(options, one.name) for one in fields(JobRequest)}
    if options.container is not None and options.python == sys.executable:
        given["python"] = None  # the container's
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    request = JobRequest(**given | lists)
    shared = check_path("--shared", options.shared)
    interface = optional(check_word, "--interface", options.interface)
    counts: Counter[Verdict] = Counter()
    location = None
    for finding in run_checks(
        request,
        shared,
        interface,
        fast=options.fast,
        wait=check_duration("--wait", options.wait),
        log=_log,
    ):
        counts[finding.verdict] += 1
        if options.json:
            show(json.dumps(finding.to_json()), flush=True)
            continue
        if finding.location is not location:
            location = finding.location
            show(_heading(finding), flush=True)
        show(_lines(finding), flush=True)
    if not options.json:
        show(_summary(counts))
    return 1 if counts[Verdict.PROBLEM] else 0


def _log(message: str) -> None:
    show(f"daskhpo: {message}", file=sys.stderr, flush=True)


def _heading(finding: Finding) -> str:
    from daskhpo.cluster.doctor import CheckLocation

    is_here = finding.location is CheckLocation.HERE
    return f"here, on {socket.gethostname()}" if is_here else "in a job"


def _lines(finding: Finding) -> str:
    """Format a finding as ``verdict  check  message``, with the hint below."""
    indent = " " * (12 + LABEL)
    head = f"  {finding.verdict.value:<9} {finding.check:<{LABEL}}"
    lines = _wrapped(finding.message, head, indent)
    return "\n".join(lines + _wrapped(finding.hint, f"{indent}-> ", f"{indent}   "))


def _wrapped(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(counts: Counter[Any]) -> str:
    from daskhpo.cluster.doctor import Verdict

    parts = [f"{counts[Verdict.OK]} ok"]
    parts += [
        count(counts[verdict], verdict.value) for verdict in (Verdict.WARNING, Verdict.PROBLEM)
    ]
    if counts[Verdict.SKIPPED]:
        parts.append(f"{counts[Verdict.SKIPPED]} skipped")
    return ", ".join(parts)
