"""The command ``daskhpo verify``: does a journal follow from its definition?"""

from __future__ import annotations

import argparse
from typing import Any

from daskhpo.cli.arguments import add_study_path
from daskhpo.cli.text import count, show
from daskhpo.core.errors import JournalCorrupt, JournalDiffers


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "verify",
        help="replay a study's journal, and show the first line that does not follow",
        description="Replay a study's journal from its definition. Exit status 0: every decision "
        "follows from the reports before it; 1: a line differs or cannot be read. Nothing is "
        "written, and the study may be running.",
    )
    add_study_path(parser)
    parser.add_argument(
        "study",
        metavar="FILE.py:NAME",
        nargs="?",
        help="the file that defines the study is imported; only needed if its scheduler or a "
        "domain of its space is the user's own",
    )
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.study.recorded import verify
    from daskhpo.study.study import load_source

    problem = load_source(options.study).problem if options.study is not None else None
    try:
        found = verify(options.path, problem)
    except JournalDiffers as error:
        show(f"{options.path / 'journal.jsonl'}, line {error.line} is the first that differs")
        show(f"recorded: {error.recorded}")
        show(f"but {error.follows}")
        return 1
    except JournalCorrupt as error:
        show(str(error))
        return 1
    show(
        f"{options.path}: all {count(found.n_records, 'record')} of "
        f"{count(found.n_trials, 'trial')} follow from the study's definition"
    )
    if found.n_missing:
        show(
            f"a crash cut off what follows from the last record; `daskhpo resume` adds it: "
            f"{count(found.n_missing, 'record')}"
        )
    return 0
