"""Figures of population based training.

They need matplotlib: ``pip install 'daskhpo[figures]'``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from daskhpo.core.types import TrialId
from daskhpo.results.multistep import MultiStep
from daskhpo.results.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["plot_genealogy", "plot_schedule"]

BLUE, ORANGE, GREY = "#1f77b4", "#d95f02", "#bbbbbb"
LEAST_RANGE = 10.0  # least ratio of the ends of a logarithmic axis


def plot_schedule(
    result: Result,
    name: str | None = None,
    steps: MultiStep | None = None,
    log: bool = True,
    trial_id: TrialId | None = None,
) -> Figure:
    """Plot the winner's metric over its training, above one hyperparameter.

    Parameters
    ----------
    name : name of the hyperparameter; None: the only one that changes.
    steps : fitted multistep schedule to draw on top; None: no schedule.
    log : True: logarithmic axes for both values.
    trial_id : trial to plot; None: the winner.

    Raises
    ------
    ImportError : matplotlib is not installed.
    ValueError : ``name`` is None and not exactly one hyperparameter changes, the values are not
        numbers, or nothing was reported.
    KeyError : the hyperparameter or the trial does not exist.
    """
    from matplotlib.figure import Figure

    schedule = result.schedule(trial_id)
    name = schedule.only_name() if name is None else name
    rates = _numbers(name, (piece.config[name] for piece in schedule))
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    metric = result.objective.metric
    history = result.history()
    for _, of_one in history.groupby("trial"):
        jumps = of_one["resource"].diff() != 1  # it continued from an older or a newer state
        for _, part in of_one.groupby(jumps.cumsum()):
            above.plot(part["resource"], part[metric], color=GREY, linewidth=0.6)
    winner = result.training(trial_id)
    which = "the winner" if trial_id is None else f"trial {trial_id}"
    label = f"{which} and its ancestors"
    above.plot(winner["resource"], winner[metric], color=BLUE, label=label)
    above.set_ylabel(metric)
    edges = [0, *(piece.until for piece in schedule)]
    below.stairs(rates, edges, baseline=None, color=BLUE)
    if steps is not None:
        below.stairs(
            steps.values,
            [0, *steps.milestones, steps.max_t],
            baseline=None,
            color=ORANGE,
            linewidth=2,
            label=f"fitted, {_counted(len(steps.milestones), 'step')}",
        )
        below.legend(frameon=False)
    below.set_ylabel(name)
    below.set_xlabel("units of training")
    above.legend(frameon=False)
    for axes in (above, below):
        _tidy(axes, log)
    return figure


def plot_genealogy(
    result: Result, name: str | None = None, trial_id: TrialId | None = None
) -> Figure:
    """Plot the population over its training: each generation a line.

    A vertical line leads from each exploit to its source.

    Parameters
    ----------
    name : hyperparameter that colours the generations; None: the only one that changes.
    trial_id : trial whose ancestry is drawn on top; None: the winner.

    Raises
    ------
    ImportError : matplotlib is not installed.
    ValueError : ``name`` is None and not exactly one hyperparameter changes, the values are not
        numbers, or nothing was reported.
    KeyError : the hyperparameter or the trial does not exist.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure

    schedule = result.schedule(trial_id)
    name = schedule.only_name() if name is None else name
    generations: list[Any] = result.lineage().to_dict("records")
    members = sorted({generation["trial"] for generation in generations})
    values = _numbers(name, (generation[f"config/{name}"] for generation in generations))
    scale = LogNorm if min(values) > 0 else Normalize
    colours = ScalarMappable(scale(min(values), max(values)), "viridis")
    figure = Figure(figsize=(7, 0.3 * len(members) + 1.5), layout="constrained")
    axes = figure.subplots()
    for generation, value in zip(generations, values, strict=True):
        member, start = generation["trial"], generation["start"]
        colour = colours.to_rgba(np.array([value]))[0]
        axes.hlines(member, start, generation["until"], color=colour, linewidth=4)
        if start > 0:
            source = generations[generation["parent"]]["trial"]
            axes.vlines(start, min(source, member), max(source, member), color=GREY, linewidth=0.8)
    label = "ancestry of the winner" if trial_id is None else f"ancestry of trial {trial_id}"
    path = [(at, float(p.trial or 0)) for p in schedule for at in (p.start, p.until)]
    axes.plot(*zip(*path, strict=True), color="black", linewidth=1, label=label)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    axes.set_xlabel("units of training")
    axes.set_ylabel("member")
    axes.set_yticks(members)
    bar = figure.colorbar(colours, ax=axes, label=name)
    if scale is LogNorm:
        _plain_ticks(bar.ax.yaxis)
    _tidy(axes, log=False)
    return figure


def _numbers(name: str, values: Iterable[Any]) -> list[float]:
    """Return the values of a hyperparameter as floats; check that they are numbers."""
    given = list(values)
    for value in given:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(
                f"{name}={value!r}: only numbers can be plotted; name another hyperparameter"
            )
    return [float(value) for value in given]


def _tidy(axes: Axes, log: bool) -> None:
    if log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high < LEAST_RANGE * low:  # small differences should look small
            middle = (low * high) ** 0.5
            axes.set_ylim(middle / LEAST_RANGE**0.5, middle * LEAST_RANGE**0.5)
        _plain_ticks(axes.yaxis)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _plain_ticks(axis: Axis) -> None:
    """Label ticks 0.02 and 0.05 where matplotlib would write 2 · 10⁻² or nothing."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
