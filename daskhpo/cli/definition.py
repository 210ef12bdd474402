"""The definition of a study for commands that get its directory."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from daskhpo.cli.arguments import add_study_path
from daskhpo.cli.text import ask, can_ask
from daskhpo.core.printable import shell_word
from daskhpo.engine.session import read_manifest

if TYPE_CHECKING:
    from daskhpo.study.study import Study


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for a study's directory and the file that defines it."""
    add_study_path(parser)
    parser.add_argument(
        "study",
        metavar="FILE.py:NAME",
        nargs="?",
        help="Python file and name of the study; not needed if `daskhpo run` started it",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the file that the directory names, although you have not run it before",
    )


def load_defined(options: argparse.Namespace, verb: str, argument: str = "") -> Study:
    """Run the file that defines the study of a directory, and return the study.

    Parameters
    ----------
    verb, argument : the command, and what its method in Python gets, for an error message.

    Raises
    ------
    ValueError : the file is not known, defines another study, or is not trusted.
    """
    from daskhpo.study.study import load_source
    from daskhpo.study.trust import check_trust, trust

    manifest = read_manifest(options.path)
    source = options.study or manifest.source
    if source is None:
        command = f"daskhpo {verb} {shell_word(options.path)} FILE.py:NAME"
        method = verb.replace("retry", "resume")
        raise ValueError(
            f"{options.path} was not started by `daskhpo run`, so the file that defines its study "
            f"is unknown: give it, `{command}`, or call study.{method}({argument}) in the script "
            "that started it"
        )
    if options.study is None and not options.trust:
        check_trust(options.path, source, ask if can_ask() else None)
    study = load_source(source)
    trust(source)
    if study.path.resolve() != options.path.resolve():
        if study.source != manifest.source:
            raise ValueError(f"{source} defines the study in {study.path}, not {options.path}")
        # A branch, or a moved directory: its manifest names this source, so use it where it is.
        study = study.at(options.path.absolute())
    return study
