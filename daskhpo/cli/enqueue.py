"""The command ``daskhpo enqueue``: a trial with a configuration of one's own."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from typing import Any

from daskhpo.cli.definition import add_study, load_defined
from daskhpo.cli.text import show


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "enqueue",
        help="add a trial with a configuration of your own to a study that runs, or will",
        description="Add a trial. The next free slot for a new trial takes it; if the study has "
        "all its num_trials, it comes on top. The study may run on any machine; if no process runs "
        "it, the trial starts when the study is resumed.",
    )
    add_study(parser)
    parser.add_argument(
        "--config",
        type=_config,
        required=True,
        metavar="CONFIG",
        help="a value of each hyperparameter, as JSON or as a dictionary of Python: "
        '\'{"lr": 0.1, "layers": 3}\'',
    )
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.remote.attach import run_status

    load_defined(options, "enqueue", "config").enqueue(options.config)
    when = "in the next free slot" if run_status(options.path) else "when the study is resumed"
    show(f"a trial with this configuration starts {when}", file=sys.stderr)
    return 0


def _config(text: str) -> dict[str, Any]:
    """Parse a configuration; a type of arguments."""
    for parse in (json.loads, ast.literal_eval):
        try:
            config = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(config, dict):
            return config
    raise argparse.ArgumentTypeError(
        f'{text!r:.80} must be a dictionary, such as \'{{"lr": 0.1, "layers": 3}}\''
    )
