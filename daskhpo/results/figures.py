"""Figures of what a population found; needs matplotlib: ``pip install 'daskhpo[figures]'``."""

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
LEAST_RANGE = 10.0  # of a logarithmic axis, between its ends


def plot_schedule(
    result: Result,
    name: str | None = None,
    steps: MultiStep | None = None,
    log: bool = True,
    trial_id: TrialId | None = None,
) -> Figure:
    """The winner's metric over its training, above one of its hyperparameters.

    Parameters
    ----------
    name : of the hyperparameter; may be left out if only one changes.
    steps : a fitted multistep schedule to draw on top.
    log : logarithmic axes for both values.
    trial_id : another trial than the winner.

    Raises
    ------
    ImportError : matplotlib is not there.
    ValueError : several hyperparameters change and none was named, its values are no numbers, or
        nothing was reported.
    KeyError : there is no such hyperparameter.
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
        jumps = of_one["resource"].diff() != 1  # it went on from an older or a newer state
        for _, part in of_one.groupby(jumps.cumsum()):
            above.plot(part["resource"], part[metric], color=GREY, linewidth=0.6)
    winner = result.training(trial_id)
    which = "the winner" if trial_id is None else f"trial {trial_id}"
    label = f"{which} and those it went on from"
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
    """The population over its training: each life a line, each exploit a step to its source.

    Parameters
    ----------
    name : hyperparameter that colours the lives; may be left out if only one changes.
    trial_id : whose way is drawn on top; None: the winner's.

    Raises
    ------
    ImportError : matplotlib is not there.
    ValueError : several hyperparameters change and none was named, its values are no numbers, or
        nothing was reported.
    KeyError : there is no such hyperparameter.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure

    schedule = result.schedule(trial_id)
    name = schedule.only_name() if name is None else name
    lives: list[Any] = result.lineage().to_dict("records")
    members = sorted({life["trial"] for life in lives})
    values = _numbers(name, (life[f"config/{name}"] for life in lives))
    scale = LogNorm if min(values) > 0 else Normalize
    colours = ScalarMappable(scale(min(values), max(values)), "viridis")
    figure = Figure(figsize=(7, 0.3 * len(members) + 1.5), layout="constrained")
    axes = figure.subplots()
    for life, value in zip(lives, values, strict=True):
        member, start = life["trial"], life["start"]
        colour = colours.to_rgba(np.array([value]))[0]
        axes.hlines(member, start, life["until"], color=colour, linewidth=4)
        if start > 0:
            source = lives[life["parent"]]["trial"]
            axes.vlines(start, min(source, member), max(source, member), color=GREY, linewidth=0.8)
    label = "the winner's way" if trial_id is None else f"the way of trial {trial_id}"
    way = [(at, float(p.trial or 0)) for p in schedule for at in (p.start, p.until)]
    axes.plot(*zip(*way, strict=True), color="black", linewidth=1, label=label)
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
    """The values of a hyperparameter, if they are numbers."""
    given = list(values)
    for value in given:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(f"{name}={value!r}: only numbers can be drawn; name another one")
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
    """0.02 and 0.05 where matplotlib would say 2 · 10⁻² or nothing."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
