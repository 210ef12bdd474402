"""Matplotlib figures of the races."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from experiments.simulated.crossing import best_so_far, crossing, rungs
from experiments.simulated.frame import per_cent, spread
from experiments.simulated.methods import COUNTED, METHODS, REFERENCE
from experiments.simulated.races import K, Ran
from experiments.simulated.tables import Task

WIDTH = 9.0  # inches; displayed at about 830 pixels
GREY = "#888888"
FAMILIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
N_BEST = 30  # number of curves to draw


def scaling(table: pd.DataFrame) -> Figure:
    """Plot time to the target against workers; a panel per family and target."""
    races = table[table["share"].notna() & table["method"].isin(METHODS)]
    panels = [
        key
        for key, part in races.groupby(["family", "share"], sort=False)
        if part.workers.nunique() > 1
    ]
    figure, axes_of = _panels(panels)
    for axes, (family, share) in zip(axes_of, panels, strict=True):
        shown = races[(races["family"] == family) & (races["share"] == share)]
        for method in METHODS.values():
            times = _times(shown[shown["method"] == method.name])
            axes.plot(times.index, times, "o-", color=method.colour, label=method.name, ms=3)
            if method == REFERENCE:
                ideal = times.iloc[0] * times.index[0] / times.index.to_numpy()
                axes.plot(times.index, ideal, ":", color=GREY, linewidth=1)
        axes.set_xscale("log", base=4)
        axes.set_yscale("log")
        axes.set_xticks(times.index, [f"{n:g}" for n in times.index])
        axes.minorticks_off()
        axes.set_title(f"{family}, best {per_cent(share)}", fontsize=9)
        _tidy(axes)
    figure.supxlabel("workers", fontsize=9)
    figure.supylabel("full trainings until the target", fontsize=9)
    _legend(figure, axes_of[0])
    return figure


def in_a_budget(races: Sequence[Ran], tasks: Sequence[Task]) -> Figure:
    """Plot the mean loss of the best six over time, for the first task of each family."""
    firsts = list({task.family: task for task in reversed(tasks)}.values())[::-1]
    figure, axes_of = _panels(firsts)
    for axes, task in zip(axes_of, firsts, strict=True):
        of_task = [ran for ran in races if ran.race.task == task.name and ran.race.share is None]
        until = of_task[0].race.trainings / of_task[0].race.workers
        grid = np.linspace(0, until, 200)
        lows = []
        for method in METHODS.values():
            own = [ran for ran in of_task if ran.race.method == method.name]
            values = np.array([[ran.top_by(time) for time in grid] for ran in own])
            low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0, method="nearest")
            axes.plot(grid, middle, color=method.colour, label=method.name)
            if method in COUNTED:
                axes.fill_between(grid, low, high, color=method.colour, alpha=0.15, linewidth=0)
            lows.append(low[-1])
            if method == REFERENCE:
                bottom, top = middle[-1], np.median(middle[np.isfinite(middle)][:20])
        span = top - min(*lows, bottom)
        axes.set_ylim(min(lows) - 0.05 * span, top)
        axes.set_xlim(0, until)
        axes.set_title(task.name, fontsize=9)
        _tidy(axes)
    figure.supxlabel("full trainings, as one worker trains them", fontsize=9)
    figure.supylabel(f"mean loss of the best {K} trials", fontsize=9)
    _legend(figure, axes_of[0])
    return figure


def crossings(tasks: Sequence[Task]) -> Figure:
    """Plot the correlation of early ranks with final ones, and curves that cross."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    families = list(dict.fromkeys(task.family for task in tasks))
    for task in tasks:
        every = [r for r in range(1, task.curves.max_t + 1) if r < 6 or r % 3 == 0]
        values = [crossing(task, r).correlation for r in every]
        place = families.index(task.family)
        first = task.name == next(t.name for t in tasks if t.family == task.family)
        colour = FAMILIES[place % len(FAMILIES)]
        share = np.array(every) / task.curves.max_t
        left.plot(share, values, color=colour, label=task.family if first else None)
    left.set_xscale("log")
    left.set_ylim(None, 1)
    left.set_xlabel("share of the training", fontsize=9)
    left.set_ylabel("rank correlation with the end", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    _tidy(left)
    worst = min((t for t in tasks if t.rates is not None), key=lambda t: crossing(t, 1).kept)
    _curves(figure, right, worst)
    return figure


def _curves(figure: Figure, axes: Axes, task: Task) -> None:
    """Plot the curves that end best, and the limit of the best third at each unit."""
    curves, rates = best_so_far(task), task.rates
    assert rates is not None
    resource = np.arange(1, curves.shape[1] + 1)
    chosen = np.argsort(curves[:, -1], kind="stable")[:N_BEST]
    norm = LogNorm(rates[chosen].min(), rates[chosen].max())
    colours = ScalarMappable(norm, "viridis")
    for n in chosen:
        axes.plot(resource, curves[n], color=colours.to_rgba(rates[n]), linewidth=0.8)
    third = np.quantile(curves, 1 / 3, axis=0, method="nearest")
    axes.plot(resource, third, color="black", linewidth=2)
    end = (float(resource[-1]), float(third[-1]))
    axes.annotate(
        "a third is better", end, (0, 3), textcoords="offset points", ha="right", fontsize=8
    )
    axes.set_xscale("log")
    places = [*rungs(task), task.curves.max_t]
    axes.set_xticks(places, [str(r) for r in places])
    axes.minorticks_off()
    axes.set_xlabel("units of training", fontsize=9)
    axes.set_ylabel("best loss so far", fontsize=9)
    axes.set_title(f"{task.name}: the {N_BEST} that end best", fontsize=9)
    figure.colorbar(colours, ax=axes, label="learning rate")
    _tidy(axes)


def _times(races: pd.DataFrame) -> Any:
    """Return times by workers: geometric mean over tasks of medians over seeds."""
    of_task = races.groupby(["workers", "task"])["reached"].apply(lambda s: spread(s)[0])
    return np.exp(np.log(of_task).groupby("workers").mean())


def _panels(keys: Sequence[Any]) -> tuple[Figure, list[Axes]]:
    n_columns = min(3, len(keys))
    n_rows = -(-len(keys) // n_columns)
    figure = Figure(figsize=(WIDTH, 2.7 * n_rows + 0.5), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for empty in axes[len(keys) :]:
        empty.set_visible(False)
    return figure, list(axes[: len(keys)])


def _legend(figure: Figure, axes: Axes) -> None:
    lines, names = axes.get_legend_handles_labels()
    figure.legend(
        lines, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=8
    )


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
