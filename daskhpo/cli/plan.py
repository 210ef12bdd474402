"""The command ``daskhpo plan``: forecast a study before its first GPU-hour."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from daskhpo.cli.arguments import numbers, path, positive
from daskhpo.cli.text import columns, count, duration, show, spread
from daskhpo.core.arguments import optional
from daskhpo.core.quantities import check_bytes, check_duration
from daskhpo.core.sizes import size_text

if TYPE_CHECKING:
    import pandas as pd

    from daskhpo.simulation.curves import CurveTable
    from daskhpo.simulation.profiling import TrialCost
    from daskhpo.study.study import Study
    from daskhpo.virtual.executor import ClusterModel

QUANTILES = (0.1, 0.5, 0.9)
UNITS = (("hour", 1.0), ("minute", 60.0), ("second", 3600.0))


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "plan", help="forecast a study, and compare it with other schedulers"
    )
    parser.add_argument(
        "study", metavar="FILE.py:NAME", help="Python file, and the name of the Study in it"
    )
    slots = parser.add_mutually_exclusive_group(required=True)
    slots.add_argument("--gpus", type=positive, help="number of GPUs of the study")
    slots.add_argument("--workers", type=positive, help="number of workers, if trials use no GPU")
    parser.add_argument(
        "--gpu", type=float, default=1.0, help="GPUs per trial, or a fraction (default: 1)"
    )
    parser.add_argument("--walltime", help="walltime of each job, such as 4h (default: no limit)")
    parser.add_argument(
        "--queue",
        default="0",
        help="time between a job and its successor, such as 20m (default: 0)",
    )
    parser.add_argument("--num-trials", type=positive, help="number of trials in the study")
    parser.add_argument("--time-budget", help="time budget of the study, such as 12h")
    times = parser.add_mutually_exclusive_group()
    times.add_argument(
        "--seconds-per-unit",
        metavar="S[,S...]",
        help="seconds per unit of training; if several are given, each configuration draws one",
    )
    times.add_argument(
        "--from",
        dest="path",
        type=path,
        help="learning curves to use: the directory of an earlier study, or a CSV table",
    )
    times.add_argument(
        "--measure",
        action="store_true",
        help="train a few units of a few trials on this machine, for at most two minutes (the "
        "default)",
    )
    parser.add_argument(
        "--launch-seconds", type=float, help="seconds from a trial's launch to its first unit"
    )
    parser.add_argument("--state-size", help="size of a trial's state, such as '30 MB', or none")
    parser.add_argument(
        "--checkpoint", default="auto", help="checkpoint policy, as for `daskhpo run`"
    )
    parser.add_argument(
        "--seeds",
        type=positive,
        help="number of simulated studies per scheduler (default: 10, or 3 to 9 if they are large)",
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as one JSON object")
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.simulation.curves import CurveTable
    from daskhpo.simulation.planning import plan
    from daskhpo.simulation.profiling import profile
    from daskhpo.study.study import load_source

    given = _Given(options)  # checks the options before anything is trained
    study = load_source(options.study)
    objective, table, found = study.problem.objective, None, None
    if options.path is not None:
        table = CurveTable.read(options.path, objective.metric, objective.mode)
    elif given.seconds_per_unit is None:
        show("training a few units on this machine, to measure them ...", file=sys.stderr)
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
    assumptions = list(_assumptions(options, study, frame, given, table, found))
    if options.json:
        show(json.dumps(_as_json(frame, study, given, assumptions), indent=1))
        return 0
    show(f"{study.name} on {given.place()}\n")
    show(columns(_table(frame, given)))
    show()
    schedulers = frame.drop_duplicates("method")[["method", "scheduler"]].values.tolist()
    show(columns(schedulers, left=(0, 1)))
    show()
    for line in assumptions:
        show(f"- {line}")
    return 0


class _Given:
    """Numeric options, parsed and checked.

    Raises
    ------
    ValueError : one is malformed or out of range, or no limit of the study is given.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.gpus, self.gpu = options.gpus, options.gpu
        if not 0 < options.gpu < math.inf:
            raise ValueError(f"--gpu {options.gpu} must be above 0")
        self.slots = options.workers or int(options.gpus / options.gpu + 1e-9)
        if self.slots < 1:
            raise ValueError(
                f"--gpus {options.gpus} is too few for --gpu {options.gpu:g} per trial"
            )
        walltime = optional(check_duration, "--walltime", options.walltime)
        self.walltime = math.inf if walltime is None else walltime
        self.queue = 0.0 if options.queue == "0" else check_duration("--queue", options.queue)
        self.launch_seconds: float | None = options.launch_seconds
        paces = options.seconds_per_unit
        self.seconds_per_unit = (
            None if paces is None else numbers("--seconds-per-unit", paces, float)
        )
        self.has_state = options.state_size != "none"
        stated = options.state_size if self.has_state else None
        self.state_bytes: int | None = optional(check_bytes, "--state-size", stated)
        if self.walltime == math.inf and options.num_trials is options.time_budget is None:
            raise ValueError("give --walltime, --num-trials or --time-budget (or several)")

    def site(self, found: TrialCost | None) -> ClusterModel:
        from daskhpo.virtual.executor import ClusterModel

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
        """GPUs per slot; 1 if workers are counted."""
        return self.gpu if self.gpus else 1.0

    def place(self) -> str:
        if self.gpus:
            place = count(self.gpus, "GPU")
            place += (
                "" if self.gpu == 1 else f", {self.gpu:g} per trial: {self.slots} trials at a time"
            )
        else:
            place = count(self.slots, "worker")
        ends = self.walltime < math.inf
        return f"{place}, in jobs of {duration(self.walltime)}" if ends else place


def _table(frame: pd.DataFrame, given: _Given) -> list[list[str]]:
    """Return one row per quantity: its median and range for each method."""
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
        unit = size_text(most).split()[1]
        return [row(f"{name}, {unit}", column, 1 / check_bytes(unit, f"1 {unit}"), whole=False)]

    def held(name: str, column: str) -> list[str]:
        return row(name, column, scale * given.per_slot, whole=False)

    failed = [row("failed", "failed")] if frame["failed"].any() else []
    lost, preempted = [], []
    if given.walltime < math.inf:
        lost = [held("  lost at job ends", "lost_hours")]
        preempted = [row("preemptions", "handovers")]
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
        *preempted,
        row("checkpoints written", "checkpoint_files"),
        *sized("  their bytes", "checkpoint_bytes"),
        row("most stored at once", "stored_files"),
        *sized("  their bytes", "stored_bytes"),
    ]


def _spread(values: pd.Series, whole: bool) -> str:
    """Return the median, 10th and 90th percentile."""
    low, middle, high = (float(values.quantile(q)) for q in QUANTILES)
    digits = 0 if whole or high >= 100 else 1 if high >= 10 else 2
    return spread(*(f"{value:,.{digits}f}" for value in (middle, low, high)))


def _assumptions(
    options: argparse.Namespace,
    study: Study,
    frame: pd.DataFrame,
    given: _Given,
    table: CurveTable | None,
    found: TrialCost | None,
) -> Iterator[str]:
    """Yield sentences on the meaning and the assumptions of the numbers."""
    n = frame["seed"].nunique()
    yield (
        f"Median (and 10th to 90th percentile) of {n} stud{'y' if n == 1 else 'ies'} in virtual "
        "time, each with different configurations."
    )
    site = given.site(found)
    launch = f" A launch takes {duration(site.launch_seconds)} before its first unit."
    launch = launch if site.launch_seconds else ""
    if table is not None:
        yield (
            f"Times and losses are those of {len(table)} learning curves in {options.path}: each "
            f"configuration has the curve of the nearest recorded configuration.{launch}"
        )
        if frame["beyond"].any():
            yield (
                f"Up to {100 * frame['beyond'].max():.0f} % of the units of a study are "
                "extrapolated: beyond a recorded curve its last value is repeated, so late "
                "improvement is not modelled."
            )
    else:
        paces = found.seconds_per_unit if found else given.seconds_per_unit or ()
        take = " or ".join(dict.fromkeys(duration(pace) for pace in sorted(paces)))
        if len(paces) > 2:
            take = f"{duration(min(paces))} to {duration(max(paces))}"
        how = f"as measured here on {found.device}" if found else "as stated"
        yield f"A unit takes {take}, {how}.{launch}"
        if found and found.device == "cpu" and given.gpus:
            yield (
                "No GPU was found here, so units were measured on the CPU. Measure on a machine "
                "with the GPUs of the study."
            )
        yield (
            "Losses are synthetic: which trials continue depends on ranks. The range covers early "
            "ranks that are independent of late ones, and early ranks that equal them. Metrics "
            "that are not finite would end trials early, and more trials would be started."
        )
    if study.problem.searcher.slow:
        yield f"Configurations are drawn at random instead of by {study.problem.searcher}."
    if site.state_bytes is None:
        yield "Trials have no state: a trial that leaves its slot repeats its training."
    elif site.state_bytes == 0:
        yield "The size of a state is not known: give --state-size to forecast bytes."
    else:
        how = "as measured" if found and given.state_bytes is None else "as stated"
        state = size_text(site.state_bytes)
        yield f"A state takes {state}, {how}; checkpoint={options.checkpoint!r}."
    if given.walltime < math.inf:
        yield (
            f"All jobs start together{_gap(given)}. A trial is preempted after the last unit that "
            "fits into its job. Slots count until their job ends, or the study."
        )
    for method in frame.loc[~frame["complete"], "method"].unique():
        yield f"{method} did not finish within a hundred jobs and was aborted."
    yield "Not included: starting workers, waiting for the first job, slow disks, lost workers."


def _gap(given: _Given) -> str:
    return f", {duration(given.queue)} after the previous ones ended" if given.queue else ""


def _as_json(
    frame: pd.DataFrame, study: Study, given: _Given, assumptions: list[str]
) -> dict[str, Any]:
    names = [name for name in frame if name not in ("method", "scheduler", "seed", "complete")]
    methods = {}
    for method, part in frame.groupby("method", sort=False):
        quantiles = {n: [float(part[n].quantile(q)) for q in QUANTILES] for n in names}
        complete = bool(part["complete"].all())
        scheduler = part["scheduler"].iloc[0]
        methods[str(method)] = {"scheduler": scheduler, "complete": complete} | quantiles
    return {
        "study": study.name,
        "slots": given.slots,
        "gpus_per_slot": given.per_slot if given.gpus else 0,
        "quantiles": QUANTILES,
        "methods": methods,
        "assumptions": assumptions,
    }


def _has_gpu() -> bool:
    from daskhpo.cluster.gpus import visible_gpus

    return bool(visible_gpus().names)
