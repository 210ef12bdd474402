"""The command ``daskhpo replay``: recorded learning curves under other schedulers."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from daskhpo.cli.arguments import numbers, path
from daskhpo.cli.text import columns, count, duration, show, spread
from daskhpo.core.arguments import check_text, optional
from daskhpo.core.ranks import UNSURE, sign_test

if TYPE_CHECKING:
    import pandas as pd

    from daskhpo.core.scheduler import Scheduler
    from daskhpo.simulation.curves import CurveTable

BASE = "FIFO"


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser(
        "replay", help="replay a finished study's learning curves under other schedulers"
    )
    parser.add_argument(
        "path", type=path, help="the study's directory, or a CSV table of learning curves"
    )
    parser.add_argument(
        "--scheduler",
        action="append",
        default=[],
        metavar="'ASHA(max_t=81, ...)'",
        help="another scheduler to compare; may be repeated",
    )
    parser.add_argument(
        "--workers",
        default="1,4,16",
        help="numbers of workers, separated by commas (default: 1,4,16)",
    )
    parser.add_argument(
        "--seeds", type=int, default=20, help="number of orders of the trials (default: 20)"
    )
    parser.add_argument(
        "--target", type=float, help="metric value to reach (default: the best recorded one)"
    )
    parser.add_argument(
        "--metric", help="the table's column with the metric, if it has several metrics"
    )
    parser.add_argument(
        "--mode", choices=("min", "max"), help="mode of a table's metric (default: min)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON, one line per simulated study"
    )
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.simulation.compare import (
        compare_schedulers,
        parse_scheduler,
        standard_schedulers,
    )
    from daskhpo.simulation.curves import CurveTable

    given = {text: parse_scheduler(check_text("--scheduler", text)) for text in options.scheduler}
    optional(check_text, "--metric", options.metric)
    workers = numbers("--workers", options.workers, int)
    table = CurveTable.read(options.path, options.metric, options.mode)
    schedulers = standard_schedulers(table.max_t) | given
    target = table.best if options.target is None else options.target
    frame = compare_schedulers(table, schedulers, workers, options.seeds, target)
    if options.json:
        for row in frame.to_dict("records"):
            if row["seconds_to_target"] == math.inf:
                row["seconds_to_target"] = None
            show(json.dumps(row))
        return 0
    _print_head(options, table, target)
    for n in workers:
        show(f"{count(n, 'worker')}\n")
        part = frame[frame["workers"] == n]
        show(columns(_table(part)))
        show(f"\n{_answer(part)}\n")
    described = [[n, repr(s)] for n, s in schedulers.items() if n not in given]
    show(columns(described, left=(0, 1)))
    show()
    for line in _explained(frame, table, schedulers):
        show(f"- {line}")
    return 0


def _print_head(options: argparse.Namespace, table: CurveTable, target: float) -> None:
    from daskhpo.results.result import load_study

    metric = table.objective.metric
    n_full = sum(curve.n_units == table.max_t for curve in table.curves)
    show(
        f"{options.path}: {count(len(table), 'learning curve')}, {n_full} of them with "
        f"{table.max_t} units, the maximum"
    )
    given = "as given" if options.target is not None else "the best recorded value"
    show(f"target {metric}={target:.6g}, {given}", end="")
    if options.path.is_dir():
        reached = load_study(options.path).time_to_solution(target)
        if reached is not None:
            show(f"; the study itself reached it after {duration(reached)}", end="")
    show("\n")


def _table(frame: pd.DataFrame) -> list[list[str]]:
    lines = [["", "to the target", "faster than FIFO", "reached", "all trials", "device", "beyond"]]
    base = frame[frame["scheduler"] == BASE].set_index("seed")["seconds_to_target"]
    for name, part in frame.groupby("scheduler", sort=False):
        times = part.set_index("seed")["seconds_to_target"]
        n_reached = int((times < math.inf).sum())
        lines.append(
            [
                str(name),
                _spread(times),
                "" if name == BASE else _ratios(base, times),
                f"{n_reached} of {len(times)}",
                duration(part["seconds"].median()),
                duration(part["device_seconds"].median()),
                f"{100 * part['beyond'].median():.0f} %",
            ]
        )
    return lines


def _spread(times: pd.Series) -> str:
    """Return the median, 10th and 90th percentile; not reached counts as infinite."""
    middle, low, high = (_quantile(times, q) for q in (0.5, 0.1, 0.9))
    if middle == math.inf:
        return "not reached" if low == math.inf else f"not reached ({duration(low)}-)"
    return spread(duration(middle), duration(low), duration(high) if high < math.inf else "")


def _ratios(base: pd.Series, times: pd.Series) -> str:
    """Return the speedup over the base, seed by seed: median, 10th, 90th percentile."""
    both = (base < math.inf) & (times < math.inf)
    if not both.any():
        return "-"
    ratios = base[both] / times[both]
    return spread(*(f"{_quantile(ratios, q):.1f}" for q in (0.5, 0.1, 0.9)))


def _quantile(values: pd.Series, q: float) -> float:
    """Return a quantile that is one of the values: some are infinite."""
    ordered = sorted(map(float, values))
    return ordered[math.ceil(q * (len(ordered) - 1))]


def _answer(frame: pd.DataFrame) -> str:
    """Return the scheduler that was soonest, and those that were not clearly later."""
    times = frame.pivot(index="seed", columns="scheduler", values="seconds_to_target")
    middles = times.median()
    best = str(middles.idxmin())
    if middles[best] == math.inf:
        return "No scheduler reached the target in half of the orders."
    others = [
        str(name)
        for name in times
        if name != best and sign_test(times[best].tolist(), times[name].tolist()) > UNSURE
    ]
    unsure = f"; not clearly later: {', '.join(others)}" if others else ""
    return f"Soonest: {best}{unsure}."


def _explained(
    frame: pd.DataFrame, table: CurveTable, schedulers: dict[str, Scheduler]
) -> Iterator[str]:
    """Yield sentences on the meaning and the limits of the numbers."""
    from daskhpo.schedulers import GuardedASHA

    n = frame["seed"].nunique()
    yield (
        f"Each trial is started once, with its recorded times, in {count(n, 'order')} that all "
        "schedulers share. Numbers are medians (10th to 90th percentile) over the orders; they do "
        "not cover other trials. If a searcher learned while it chose the trials, that is lost."
    )
    if any(isinstance(scheduler, GuardedASHA) for scheduler in schedulers.values()):
        yield (
            "GuardedASHA has no model here, since the order of the trials is given: it gives two "
            "thirds of the time to its reserve. With ForestSearch, as in a study without "
            "scheduler=, it may be sooner."
        )
    beyond = frame.groupby("scheduler")["beyond"].median()
    if (beyond > 0).any():
        named = ", ".join(f"{n} {100 * beyond[n]:.0f} %" for n in schedulers if beyond[n] > 0.005)
        yield (
            "Extrapolated (share of units trained): "
            f"{named or 'less than a percent'}. Beyond its recorded curve a trial keeps its last "
            "value, so it cannot reach the target there. If that share is large, times to the "
            "target are too long rather than too short."
        )
    else:
        yield "No unit is extrapolated: recorded curves cover all training."
