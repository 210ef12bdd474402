"""The command ``daskhpo plan``: what a study will do and cost, before its first GPU-hour."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskhpo.cli.text import columns, count, duration, size
from daskhpo.core.quantities import parse_bytes, parse_duration

if TYPE_CHECKING:
    import pandas as pd

    from daskhpo.simulation.curves import CurveTable
    from daskhpo.simulation.executor import ClusterModel
    from daskhpo.simulation.profiling import TrialCost
    from daskhpo.study.study import Study

QUANTILES = (0.1, 0.5, 0.9)
UNITS = (("hour", 1.0), ("minute", 60.0), ("second", 3600.0))


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "plan", help="forecast a study, and what it would be with other schedulers"
    )
    parser.add_argument("study", metavar="FILE.py:NAME", help="as for `daskhpo run`")
    slots = parser.add_mutually_exclusive_group(required=True)
    slots.add_argument("--gpus", type=_positive, help="GPUs that the study will have")
    slots.add_argument("--workers", type=_positive, help="workers, where trials take no GPU")
    parser.add_argument(
        "--gpu", type=float, default=1.0, help="GPUs per trial, or a fraction (default: 1)"
    )
    parser.add_argument("--walltime", help="of each job, such as 4h (default: jobs do not end)")
    parser.add_argument("--queue", default="0", help="from a job's end to the next one's beginning")
    parser.add_argument("--num-trials", type=_positive, help="trials in the study")
    parser.add_argument("--time-budget", help="of the study, such as 12h")
    times = parser.add_mutually_exclusive_group()
    times.add_argument(
        "--seconds-per-unit",
        metavar="S[,S...]",
        help="of training; of several each configuration draws one",
    )
    times.add_argument(
        "--from",
        dest="path",
        type=Path,
        help="learning curves: the directory of an earlier study, or a CSV table",
    )
    times.add_argument(
        "--measure",
        action="store_true",
        help="train a few units of a few trials here, at most two minutes (the default)",
    )
    parser.add_argument(
        "--launch-seconds", type=float, help="from a trial's launch to its first unit"
    )
    parser.add_argument("--state-size", help="of a trial's state, such as '30 MB', or none")
    parser.add_argument("--checkpoint", default="auto", help="as for `daskhpo run`")
    parser.add_argument(
        "--seeds", type=_positive, help="studies played (default: 10, or 3 to 9 if they are large)"
    )
    parser.add_argument("--json", action="store_true", help="numbers as one JSON object")
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit status."""
    from daskhpo.simulation.curves import CurveTable
    from daskhpo.simulation.planning import plan
    from daskhpo.simulation.profiling import profile
    from daskhpo.study.study import load_source

    given = _Given(options)  # refuses what cannot be before anything is trained
    study = load_source(options.study)
    objective, table, found = study.problem.objective, None, None
    if options.path is not None:
        table = CurveTable.read(options.path, objective.metric, objective.mode)
    elif given.seconds_per_unit is None:
        print("training a few units here, to see what they take ...", file=sys.stderr)
        found = profile(study, gpu=options.gpu if options.gpus and _has_gpu() else 0)
    frame = plan(
        study,
        given.slots,
        seconds_per_unit=found.seconds_per_unit if found else given.seconds_per_unit,
        curves=table,
        num_trials=options.num_trials,
        time_budget=options.time_budget,
        cluster=given.site(found),
        checkpoint=options.checkpoint,
        seeds=options.seeds,
    )
    said = list(_assumptions(options, study, frame, given, table, found))
    if options.json:
        print(json.dumps(_as_json(frame, study, given, said), indent=1))
        return 0
    print(f"{study.name} on {given.place()}\n")
    print(columns(_table(frame, given)))
    print()
    schedulers = frame.drop_duplicates("method")[["method", "scheduler"]].values.tolist()
    print(columns(schedulers, left=(0, 1)))
    print()
    for line in said:
        print(f"- {line}")
    return 0


class _Given:
    """The options that are numbers, read and checked.

    Raises
    ------
    ValueError : one of them is none.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.gpus, self.gpu = options.gpus, options.gpu
        if not 0 < options.gpu < math.inf:
            raise ValueError(f"--gpu {options.gpu} must be above 0")
        self.slots = options.workers or int(options.gpus / options.gpu + 1e-9)
        if self.slots < 1:
            raise ValueError(f"--gpus {options.gpus} is too few for --gpu {options.gpu:g} a trial")
        self.walltime = (
            parse_duration(options.walltime, "--walltime") if options.walltime else math.inf
        )
        self.queue = 0.0 if options.queue == "0" else parse_duration(options.queue, "--queue")
        self.launch_seconds: float | None = options.launch_seconds
        self.seconds_per_unit = _numbers(options.seconds_per_unit)
        self.has_state = options.state_size != "none"
        stated = options.state_size if self.has_state else None
        self.state_bytes: int | None = parse_bytes(stated, "--state-size")
        if self.walltime == math.inf and options.num_trials is options.time_budget is None:
            raise ValueError("give --walltime, --num-trials or --time-budget (or several)")

    def site(self, found: TrialCost | None) -> ClusterModel:
        from daskhpo.simulation.executor import ClusterModel

        launch, n_bytes = self.launch_seconds, self.state_bytes
        if found is not None:
            launch = found.launch_seconds if launch is None else launch
        if not self.has_state:
            n_bytes = None
        elif n_bytes is None:
            n_bytes = found.state_bytes if found is not None else 0
        return ClusterModel(self.walltime, self.queue, launch or 0.0, n_bytes)

    @property
    def per_slot(self) -> float:
        """GPUs of a slot; 1 where workers are counted."""
        return self.gpu if self.gpus else 1.0

    def place(self) -> str:
        if self.gpus:
            place = count(self.gpus, "GPU")
            place += "" if self.gpu == 1 else f", {self.gpu:g} for a trial: {self.slots} at a time"
        else:
            place = count(self.slots, "worker")
        ends = self.walltime < math.inf
        return f"{place}, in jobs of {duration(self.walltime)}" if ends else place


def _table(frame: pd.DataFrame, given: _Given) -> list[list[str]]:
    """Quantities, and of each method their median and range."""
    methods = list(dict.fromkeys(frame["method"]))
    longest = frame["hours"].max()
    unit, scale = next((u, n) for u, n in UNITS if longest * n >= 2 or u == "second")
    device = "GPU" if given.gpus else "worker"

    def row(name: str, column: str, scale: float = 1.0, whole: bool = True) -> list[str]:
        cells = [frame.loc[frame["method"] == method, column] * scale for method in methods]
        return [name, *(_spread(values, whole) for values in cells)]

    def sized(name: str, column: str) -> list[list[str]]:
        if not (most := frame[column].max()):
            return []
        unit = size(most).split()[1]
        return [row(f"{name}, {unit}", column, 1 / parse_bytes(f"1 {unit}", unit), whole=False)]

    def held(name: str, column: str) -> list[str]:
        return row(name, column, scale * given.per_slot, whole=False)

    failed = [row("failed", "failed")] if frame["failed"].any() else []
    lost, handed_over = [], []
    if given.walltime < math.inf:
        lost = [held("  lost at job ends", "lost_hours")]
        handed_over = [row("hand-overs", "handovers")]
    return [
        ["", *methods],
        row("trials started", "trials"),
        row("trials ended", "ended"),
        row("fully trained", "fully_trained"),
        *failed,
        row(f"{unit}s to the end", "hours", scale, whole=False),
        held(f"{device}-{unit}s", "slot_hours"),
        held("  held by trials", "busy_hours"),
        *lost,
        *handed_over,
        row("checkpoints written", "checkpoint_files"),
        *sized("  their bytes", "checkpoint_bytes"),
        row("most at one time", "stored_files"),
        *sized("  their bytes", "stored_bytes"),
    ]


def _spread(values: pd.Series, whole: bool) -> str:
    """Median, and the tenth and ninetieth percentile if they look different."""
    low, middle, high = (float(values.quantile(q)) for q in QUANTILES)
    digits = 0 if whole or high >= 100 else 1 if high >= 10 else 2
    shown = f"{middle:,.{digits}f}"
    around = [f"{value:,.{digits}f}" for value in (low, high)]
    return shown if around == [shown, shown] else f"{shown} ({'-'.join(around)})"


def _assumptions(
    options: argparse.Namespace,
    study: Study,
    frame: pd.DataFrame,
    given: _Given,
    table: CurveTable | None,
    found: TrialCost | None,
) -> Iterator[str]:
    """What the numbers are, and what they rest on."""
    n = frame["seed"].nunique()
    yield (
        f"Median (and 10th to 90th percentile) of {n} stud{'y' if n == 1 else 'ies'} in virtual "
        "time, each with other configurations."
    )
    site = given.site(found)
    launch = f", and {duration(site.launch_seconds)} from a launch to the first unit"
    launch = launch if site.launch_seconds else ""
    if table is not None:
        yield (
            f"Times and losses are those of {len(table)} learning curves in {options.path}: a "
            f"configuration learns like the recorded one that is nearest to it{launch}."
        )
        if frame["beyond"].any():
            yield (
                f"{100 * frame['beyond'].max():.0f} % of the units (at most, of one study) lie "
                "beyond what was recorded; there the last value holds, so that who would have "
                "caught up late is not seen."
            )
    else:
        paces = found.seconds_per_unit if found else given.seconds_per_unit or ()
        take = " or ".join(dict.fromkeys(duration(pace) for pace in sorted(paces)))
        if len(paces) > 2:
            take = f"{duration(min(paces))} to {duration(max(paces))}"
        how = f"as measured here on {found.device}" if found else "as stated"
        yield f"A unit takes {take}, {how}{launch}."
        if found and found.device == "cpu" and given.gpus:
            yield "No GPU was found here: on one, units will take other times. Measure there."
        yield (
            "Losses are made up, for who survives is a matter of ranks: the range covers early "
            "ranks that say nothing about late ones and such that say all. Metrics that are no "
            "numbers would end trials early, and more would be started."
        )
    if study.problem.searcher.slow:
        yield f"Configurations are drawn at random, in the place of {study.problem.searcher}."
    if site.state_bytes is None:
        yield "Trials have no state: whoever leaves a slot trains again what was done."
    elif site.state_bytes == 0:
        yield "The size of a state is not known: give --state-size for bytes."
    else:
        how = "as measured" if found and given.state_bytes is None else "as stated"
        yield f"A state takes {size(site.state_bytes)}, {how}; checkpoint={options.checkpoint!r}."
    if given.walltime < math.inf:
        yield (
            f"All jobs begin together{_gap(given)}; a trial hands over after the last unit that "
            "fits. Jobs are counted to their end, or to the study's."
        )
    for method in frame.loc[~frame["complete"], "method"].unique():
        yield f"{method} did not come to its end in a hundred jobs and was given up."
    yield (
        "Not in it: starting workers, waiting for the first job, slow disks, workers that are lost."
    )


def _gap(given: _Given) -> str:
    return f", {duration(given.queue)} after the last ones ended" if given.queue else ""


def _as_json(frame: pd.DataFrame, study: Study, given: _Given, said: list[str]) -> dict[str, Any]:
    numbers = [name for name in frame if name not in ("method", "scheduler", "seed", "complete")]
    methods = {}
    for method, part in frame.groupby("method", sort=False):
        quantiles = {n: [float(part[n].quantile(q)) for q in QUANTILES] for n in numbers}
        complete = bool(part["complete"].all())
        scheduler = part["scheduler"].iloc[0]
        methods[str(method)] = {"scheduler": scheduler, "complete": complete} | quantiles
    return {
        "study": study.name,
        "slots": given.slots,
        "gpus_per_slot": given.per_slot if given.gpus else 0,
        "quantiles": QUANTILES,
        "methods": methods,
        "assumptions": said,
    }


def _has_gpu() -> bool:
    from daskhpo.cluster.gpus import visible_gpus

    return bool(visible_gpus())


def _numbers(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--seconds-per-unit {text} must be a number, or several with commas"
        ) from None


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} must be at least 1")
    return number
