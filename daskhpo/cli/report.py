"""The command ``daskhpo report``: all plots of a study in one file; comparisons."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from daskhpo.cli.arguments import path
from daskhpo.cli.text import show
from daskhpo.core.sizes import size_text

REPORT, COMPARISON = "report.html", "comparison.html"


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "report", help="write all plots of a study into one HTML file, or compare several studies"
    )
    parser.add_argument(
        "path",
        type=path,
        nargs="+",
        metavar="PATH",
        help="a study's directory; several: compare",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"the file to write (default: {REPORT} in the study's directory; of several, "
        f"{COMPARISON} in this directory)",
    )
    parser.add_argument(
        "--target",
        type=float,
        help="of several studies: metric value, to compare the times to it",
    )
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.results.result import load_study

    if len(options.path) == 1:
        if options.target is not None:
            raise ValueError("--target compares studies: give the directories of several")
        (directory,) = options.path
        output = options.output or directory / REPORT
        load_study(directory).to_html(output)
    else:
        from daskhpo.atomic_files import write_file
        from daskhpo.plots.compare import comparison_html
        from daskhpo.results.about import check_folder_of

        output = check_folder_of(options.output or Path(COMPARISON))
        studies = [load_study(each).tables() for each in options.path]
        write_file(output, comparison_html(studies, options.target))
    show(f"{output} ({size_text(output.stat().st_size)})")
    return 0
