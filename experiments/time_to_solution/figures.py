"""Matplotlib figures of the comparison, in the style of the reference study."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from experiments.time_to_solution.methods import (
    CHECKPOINTING,
    COMPARED,
    REFERENCE,
    SEARCHES,
    Method,
)
from experiments.time_to_solution.outcomes import K, Outcome, Outcomes, on_grid

WIDTH = 9.0  # inches; displayed at about 830 pixels
N_TIMES = 400  # times at which curves of several seeds are averaged
GREY = "#888888"
ERROR = "validation error (eV)"
SMALL = 9  # points


def top_curves(outcomes: Outcomes) -> Figure:
    """Plot the best six trials' mean error and deviation over time, by method."""
    present = [method for method in COMPARED if outcomes.of(method)]
    n_columns = min(4, len(present))
    n_rows = -(-len(present) // n_columns)
    figure = _figure(2.3 * n_rows + 0.5)
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, method in zip(panels, present, strict=False):
        if method != REFERENCE:
            _mean(axes, outcomes, REFERENCE, colour=GREY, width=1.2)
        _band(axes, outcomes, method)
        axes.set_title(method.label, color=method.colour, fontweight="bold", fontsize=10)
        _corner(axes, outcomes.of(method))
    for place in range(len(present), len(panels)):
        panels[place].set_visible(False)
        panels[place - n_columns].tick_params(labelbottom=True)  # the last of its column
    _share(figure, outcomes, panels[: len(present)], f"mean of the best {K} trials,\n{ERROR}")
    if outcomes.of(REFERENCE) and len(present) > 1:
        _note(panels[1], f"grey: {REFERENCE.label}")
    return figure


def pair(outcomes: Outcomes, methods: Iterable[Method], title: str) -> Figure:
    """Plot the best six and the single best over time for methods; thin lines: seeds."""
    methods = list(methods)
    figure = _figure(3.4)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, curve_of, name in (
        (left, _top, f"mean of the best {K} trials"),
        (right, _single, "the single best trial"),
    ):
        for method in methods:
            for outcome in outcomes.of(method):
                curve = curve_of(outcome)
                times, values = _steps(curve, outcomes.profile.seconds)
                axes.plot(times, values, color=method.colour, linewidth=0.7, alpha=0.6)
            _mean(axes, outcomes, method, curve_of, width=2.2)
        axes.set_title(name, fontsize=SMALL)
    _share(figure, outcomes, [left, right], ERROR)
    for place, method in enumerate(methods):
        text = f"{method.label}: {_finished(outcomes.of(method))}"
        _note(right, text, method.colour, place)
    figure.suptitle(title, fontsize=10)
    return figure


def time_to_target(outcomes: Outcomes) -> Figure:
    """Plot the seconds to random search's last mean and to the target, by seed."""
    present = [method for method in COMPARED if outcomes.of(method)]
    figure = _figure(0.42 * len(present) + 1.5)
    left, right = figure.subplots(1, 2, sharey=True)

    def to_reference(outcome: Outcome) -> float:
        reference = outcomes.get(REFERENCE, outcome.seed)
        if reference is None or math.isnan(reference.top):
            return math.nan
        return outcome.time_to(reference.top)

    def to_target(outcome: Outcome) -> float:
        return outcome.time_to(outcomes.profile.target, outcome.best_curve)

    for axes, time_of, title in (
        (left, to_reference, f"until the best {K} are as good as RS's were\nat the end, each seed"),
        (right, to_target, f"until the best trial has\n{outcomes.profile.target:g} eV, each seed"),
    ):
        never = 1.06 * outcomes.profile.seconds
        for row, method in enumerate(present):
            times = [time_of(outcome) for outcome in outcomes.of(method)]
            known = [time for time in times if not math.isnan(time)]
            reached = [time for time in known if math.isfinite(time)]
            _dots(axes, reached, row, method.colour)
            n_never = len(known) - len(reached)
            if n_never:
                mark = f"{n_never} of {len(known)}"
                axes.text(never, row, mark, va="center", color=method.colour, fontsize=8)
        axes.axvline(outcomes.profile.seconds, color=GREY, linewidth=0.8, linestyle=":")
        axes.text(never, -0.45, "not in the\nbudget", va="bottom", color=GREY, fontsize=8)
        axes.set_xlim(0, 1.25 * outcomes.profile.seconds)
        axes.set_title(title, fontsize=SMALL)
        axes.set_xlabel(f"{_unit(outcomes)[1]} since the study began", fontsize=SMALL)
        _rows(axes, present)
        _times(axes, outcomes)
    return figure


def single_best(outcomes: Outcomes) -> Figure:
    """Plot errors of each study's best trial, on validation and on test.

    The trial was chosen by its validation error.
    """
    present = [method for method in COMPARED if outcomes.of(method)]
    figure = _figure(0.42 * len(present) + 1.4)
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    for axes, error, title in (
        (left, "best", "validation, by which it was chosen"),
        (right, "test", "test, read once"),
    ):
        for row, method in enumerate(present):
            errors: list[float] = [getattr(outcome, error) for outcome in outcomes.of(method)]
            _dots(axes, [e for e in errors if math.isfinite(e)], row, method.colour)
        axes.set_title(title, fontsize=SMALL)
        axes.set_xlabel("error of the best trial (eV), each seed", fontsize=SMALL)
        _rows(axes, present)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(labelsize=8)
    return figure


def all_figures(outcomes: Outcomes) -> dict[str, tuple[Figure, str]]:
    """Return all figures for which there is data: name to figure and caption."""
    seconds = f"{outcomes.profile.seconds:g} s"
    found = {
        "top6": (
            top_curves(outcomes),
            f"Error of the best {K} trials against time. Line: mean over the seeds of their mean; "
            "band: their standard deviation, mean over the seeds; thin lines: seeds. Nothing is "
            f"drawn before every seed has {K} trials. n: trials finished in {seconds}, median "
            "(range over the seeds).",
        ),
        "target": (
            time_to_target(outcomes),
            "Time to solution. Dots: seeds; bar: median. The dotted line is the budget.",
        ),
        "best": (
            single_best(outcomes),
            "The single best trial of each study. Dots: seeds; bar: median.",
        ),
    }
    if all(outcomes.of(method) for method in CHECKPOINTING):
        found["checkpoints"] = (
            pair(outcomes, CHECKPOINTING, "A checkpoint after every epoch, or checkpoint='auto'"),
            "ASHA with a checkpoint after every epoch against checkpoint='auto', in equal time.",
        )
    if all(outcomes.of(method) for method in SEARCHES):
        found["search"] = (
            pair(outcomes, SEARCHES, "Random search, or a Gaussian process, under ASHA"),
            "ASHA with random search against ASHA with a Gaussian process, in equal time.",
        )
    return found


# -- parts ---------------------------------------------------------------------------------------


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _top(outcome: Outcome) -> Any:
    return outcome.curve


def _single(outcome: Outcome) -> Any:
    return outcome.best_curve


def _grid(outcomes: Outcomes) -> Any:
    return np.linspace(0.0, outcomes.profile.seconds, N_TIMES)


def _steps(curve: Any, until: float) -> tuple[Any, Any]:
    """Return points of a step curve, extended to the end of the budget."""
    if not len(curve):
        return np.empty(0), np.empty(0)
    times, values = curve["seconds"].to_numpy(), curve["mean"].to_numpy()
    times, values = np.append(times, until), np.append(values, values[-1])
    return np.repeat(times, 2)[1:], np.repeat(values, 2)[:-1]


def _mean(
    axes: Axes,
    outcomes: Outcomes,
    method: Method,
    curve_of: Callable[[Outcome], Any] = _top,
    colour: str | None = None,
    width: float = 2.2,
) -> None:
    """Plot the mean over the seeds, where all of them have a value."""
    curves = [curve_of(outcome) for outcome in outcomes.of(method)]
    if curves:
        grid = _grid(outcomes)
        means = on_grid(curves, "mean", grid).mean(axis=0)
        axes.plot(grid, means, color=colour or method.colour, linewidth=width)


def _band(axes: Axes, outcomes: Outcomes, method: Method) -> None:
    own = outcomes.of(method)
    grid = _grid(outcomes)
    curves = [outcome.curve for outcome in own]
    mean = on_grid(curves, "mean", grid).mean(axis=0)
    std = on_grid(curves, "std", grid).mean(axis=0)
    axes.fill_between(grid, mean - std, mean + std, color=method.colour, alpha=0.2, linewidth=0)
    for curve in curves:
        times, values = _steps(curve, outcomes.profile.seconds)
        axes.plot(times, values, color=method.colour, linewidth=0.7, alpha=0.6)
    _mean(axes, outcomes, method)


def _share(figure: Figure, outcomes: Outcomes, panels: Iterable[Axes], label: str) -> None:
    """Use the same logarithmic scale of errors and the same times in all panels."""
    panels = list(panels)
    tops = [c for o in outcomes.all for c in (o.curve, o.best_curve) if len(c)]
    if tops:
        low = float(min(curve["mean"].min() for curve in tops))
        highs = [float(o.curve["mean"].quantile(0.9)) for o in outcomes.all if len(o.curve)]
        high = max(highs, default=2 * low)
        for axes in panels:
            axes.set_yscale("log")
            axes.set_ylim(0.85 * low, 1.25 * high)
            _plain_log(axes, 0.85 * low, 1.25 * high)
    for axes in panels:
        axes.set_xlim(0, outcomes.profile.seconds)
        _times(axes, outcomes)
        _tidy(axes)
    figure.supxlabel(f"{_unit(outcomes)[1]} since the study began", fontsize=9)
    figure.supylabel(label, fontsize=9)


def _plain_log(axes: Axes, low: float, high: float) -> None:
    """Set ticks with plain labels: 0.05, 0.07, 0.1, 0.15, ..."""
    steps = [m * 10.0**e for e in range(-5, 6) for m in (1, 1.5, 2, 3, 5, 7)]
    axes.yaxis.set_major_locator(FixedLocator([step for step in steps if low <= step <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def _unit(outcomes: Outcomes) -> tuple[float, str]:
    """Return the unit of the time axis: its seconds, and its name."""
    seconds = outcomes.profile.seconds
    if seconds > 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds > 600 else (1.0, "seconds")


def _times(axes: Axes, outcomes: Outcomes) -> None:
    unit, _ = _unit(outcomes)
    spacing = outcomes.profile.seconds / unit / 4
    ticks = [unit * tick for tick in MaxNLocator(4).tick_values(0, 4 * spacing)]
    axes.xaxis.set_major_locator(
        FixedLocator([tick for tick in ticks if tick <= outcomes.profile.seconds * 1.001])
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))
    axes.tick_params(labelsize=8)


def _dots(axes: Axes, values: list[float], row: int, colour: str) -> None:
    spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
    axes.plot(values, row + np.array(spread[: len(values)]), "o", color=colour, alpha=0.75, mew=0)
    if len(values) > 1:
        axes.plot([np.median(values)], [row], "|", color=colour, markersize=16, mew=2.5)


def _rows(axes: Axes, methods: list[Method]) -> None:
    axes.set_yticks(range(len(methods)), [method.label for method in methods])
    for label, method in zip(axes.get_yticklabels(), methods, strict=False):  # none if shared
        label.set_color(method.colour)
        label.set_fontweight("bold")
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    _tidy(axes)


def _finished(own: list[Outcome]) -> str:
    """Format the number of finished trials, median and range: ``n = 41 (38–45)``."""
    counts = [outcome.n_finished for outcome in own]
    middle = f"n = {np.median(counts):g}"
    return middle if min(counts) == max(counts) else f"{middle} ({min(counts)}–{max(counts)})"


def _corner(axes: Axes, own: list[Outcome]) -> None:
    axes.annotate(
        _finished(own), (0.96, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=9
    )
    if not any(len(outcome.curve) for outcome in own):
        text = f"fewer than {K} trials"
        axes.annotate(text, (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)


def _note(axes: Axes, text: str, colour: str = GREY, place: int = 0) -> None:
    axes.annotate(
        text,
        (0.97, 0.95 - 0.09 * place) if place or colour != GREY else (0.96, 0.82),
        xycoords="axes fraction",
        ha="right",
        va="top",
        color=colour,
        fontsize=9 if colour != GREY else 8,
    )


def _tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
