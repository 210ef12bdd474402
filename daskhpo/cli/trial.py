"""The command ``daskhpo trial``: what a person may do to one trial of a study."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from daskhpo.cli.arguments import add_study_path
from daskhpo.cli.text import show


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "trial",
        help="end, pause or resume one trial of a study that runs, or will",
        description="End or pause one trial, at its next report, or at once if it holds no slot. "
        "What it has reported counts. The study may run on any machine; if no process runs it, "
        "this is done when the study is resumed.",
    )
    add_study_path(parser)
    parser.add_argument("trial", type=int, help="number of the trial")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--stop", action="store_true", help="end the trial")
    what.add_argument(
        "--pause", action="store_true", help="give its slot to others, and keep its state"
    )
    what.add_argument("--resume", action="store_true", help="let it continue after --pause")
    parser.add_argument(
        "--reason",
        default="stopped by hand",
        help="recorded with the end of --stop (default: %(default)s)",
    )
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.remote.attach import run_status
    from daskhpo.study.edits import pause_trial, stop_trial

    if options.stop:
        stop_trial(options.path, options.trial, options.reason)
    else:
        pause_trial(options.path, options.trial, paused=options.pause)
    verb = "ends" if options.stop else "is paused" if options.pause else "continues"
    at = "at its next report, or at once if it holds no slot"
    if options.resume:
        at = "in a free slot"
    if not run_status(options.path):
        at = "when the study is resumed: no process runs it now"
    show(f"trial {options.trial} {verb} {at}", file=sys.stderr)
    return 0
