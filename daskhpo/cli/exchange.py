"""The commands ``daskhpo export`` and ``import``: studies of other libraries."""

from __future__ import annotations

import argparse
from typing import Any

from daskhpo.callbacks.follower import JournalFollower, study_info
from daskhpo.callbacks.optuna import OptunaJournal, check_target
from daskhpo.cli.arguments import add_study_path, path
from daskhpo.cli.text import count, show
from daskhpo.core.arguments import check_text, optional
from daskhpo.core.printable import printable, shell_word


def add_to(commands: Any) -> None:
    """Add the commands to the parsers of a command line."""
    export = commands.add_parser("export", help="write a study as a file of another library")
    add_study_path(export)
    export.add_argument(
        "--optuna",
        type=path,
        metavar="FILE",
        required=True,
        help="journal file for Optuna and optuna-dashboard; one of the same study is continued",
    )
    export.add_argument(
        "--follow", action="store_true", help="also write what follows, until the study ends"
    )
    export.set_defaults(act=_export)

    parser = commands.add_parser("import", help="make a study's directory of another library's")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--optuna", type=path, metavar="FILE", help="journal file of Optuna")
    source.add_argument(
        "--ray", type=path, metavar="FOLDER", help="folder of an experiment of Ray Tune"
    )
    parser.add_argument(
        "--metric", help="its metric (default with --optuna: the study's name for it, or value)"
    )
    parser.add_argument("--mode", choices=("min", "max"), help="with --ray: what is better")
    parser.add_argument("path", type=path, help="the new study's directory")
    parser.set_defaults(act=_import)


def _export(options: argparse.Namespace) -> int:
    from daskhpo.remote.attach import AttachedStudy
    from daskhpo.results.result import load_study

    info = study_info(options.path)
    check_target(options.optuna, info)
    writer = OptunaJournal(options.optuna)
    if options.follow:
        try:
            AttachedStudy(options.path, [writer]).wait()
        except KeyboardInterrupt:
            return 0
    else:
        JournalFollower(info, [writer]).detach()
    if not options.optuna.exists():  # the writer raised, which was logged
        return 1
    n_trials = load_study(options.path).num_trials
    show(f"{options.optuna}: {count(n_trials, 'trial')}; see them with: ", end="")
    show(f"optuna-dashboard {shell_word(options.optuna)}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from daskhpo.interchange.imported import write_study
    from daskhpo.interchange.optuna import read_optuna
    from daskhpo.interchange.ray import read_ray
    from daskhpo.results.result import load_study

    metric = optional(check_text, "--metric", options.metric)
    source = options.ray if options.optuna is None else options.optuna
    if not source.exists():
        option = "--ray" if options.optuna is None else "--optuna"
        raise FileNotFoundError(f"{option} {source}: there is no such file or folder")
    if options.optuna is not None:
        if options.mode is not None:
            raise ValueError("--mode is for --ray: a file of Optuna says what is better")
        study = read_optuna(options.optuna, metric)
    elif metric is None or options.mode is None:
        raise ValueError("--ray needs --metric NAME and --mode min or max")
    else:
        study = read_ray(options.ray, metric, options.mode)
    write_study(study, options.path)
    result = load_study(options.path)
    show(f"{options.path}: {count(result.num_trials, 'trial')}", end="")
    if result.has_reports:
        name = printable(result.objective.metric)
        show(f", best {name}={result.best_value:.6g} (trial {result.best_trial.id})", end="")
    show()
    return 0
