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
        help="end one trial of a study that runs, or will",
        description="End one trial. It is stopped at its next report, or at once if it holds no "
        "slot, and what it has reported counts. The study may run on any machine; if no process "
        "runs it, the trial ends when the study is resumed.",
    )
    add_study_path(parser)
    parser.add_argument("trial", type=int, help="number of the trial")
    parser.add_argument("--stop", action="store_true", required=True, help="end the trial")
    parser.add_argument(
        "--reason", default="stopped by hand", help="recorded with it (default: %(default)s)"
    )
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.remote.attach import run_status
    from daskhpo.study.edits import stop_trial

    stop_trial(options.path, options.trial, options.reason)
    when = (
        "ends at its next report, or at once if it holds no slot"
        if run_status(options.path)
        else "ends when the study is resumed: no process runs it now"
    )
    show(f"trial {options.trial} {when}", file=sys.stderr)
    return 0
