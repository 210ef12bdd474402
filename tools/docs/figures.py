"""Figures of ``docs/explanation``, from simulated studies.

The coordinator, schedulers and searchers are those of a real study. The curves are made of a
formula, so that each figure shows one thing; they prove nothing about which method is faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from daskhpo import Result
from daskhpo.core.random import rng
from daskhpo.core.rungs import milestones
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.schedulers import ASHA, FIFO, AsyncHyperband, GuardedASHA, MedianStopping
from daskhpo.searchers import ForestSearch, GPSearch, RandomSearch
from daskhpo.simulation import ClusterModel, Simulation
from daskhpo.space import Real

FOLDER = Path(__file__).parents[2] / "docs/images"
SPACE = {"lr": Real(1e-4, 1.0, log=True), "decay": Real(1e-6, 1e-2, log=True)}
MAX_T, WORKERS, N_SEEDS = 81, 8, 9
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"


class Curve:
    """A loss that falls to a floor; both depend on the configuration.

    Early losses tell which floor is lowest, as far as the speed does not depend on the rate.
    """

    haste = 0.05  # exponent of the learning rate in the speed

    def __init__(self, config: Mapping[str, Any]) -> None:
        lr, decay = math.log10(config["lr"]), math.log10(config["decay"])
        self.floor = 0.05 + 0.12 * (lr + 1.6) ** 2 + 0.03 * (decay + 4) ** 2
        self.speed = 0.12 * (config["lr"] / 10**-1.6) ** self.haste
        self._noise = rng(0, f"noise {lr} {decay}").normal(scale=0.03, size=MAX_T)

    def metric(self, resource: int) -> float:
        fall = math.exp(-self.speed * resource)
        return float((self.floor + fall) * math.exp(self._noise[resource - 1]))

    def seconds(self, resource: int) -> float:
        return 60.0 * resource


class Misleading(Curve):
    """One whose best configurations begin slowly: a large rate is ahead at first."""

    haste = 0.5


def study(
    scheduler: Scheduler,
    searcher: Searcher | None = None,
    hours: float = 4,
    curve: Callable[[Mapping[str, Any]], Curve] = Curve,
    seed: int = 3,
    **words: Any,
) -> Result:
    """Run a study in virtual time."""
    checkpoint = words.pop("checkpoint", "auto")
    chosen = searcher or RandomSearch()
    simulation = Simulation(
        curve, SPACE, "loss", "min", scheduler, chosen, num_workers=WORKERS, seed=seed, **words
    )
    return simulation.run(time_budget=3600 * hours, checkpoint=checkpoint)


def asha() -> Figure:
    """Plot what each trial trained, without and with early stopping, in equal time."""
    figure, axes = panels(2)
    for axis, scheduler in zip(axes, (FIFO(MAX_T), ASHA(MAX_T, variant="promotion")), strict=True):
        result = study(scheduler)
        curves(axis, result)
        title(axis, f"{name(scheduler)}: {result.num_trials} trials, best {result.best_value:.3f}")
        for rung in milestones(MAX_T, 1, 3) if isinstance(scheduler, ASHA) else ():
            axis.axvline(rung, color=GREY, linewidth=0.6, linestyle=":")
    axes[0].set_ylabel("loss")
    return figure


def brackets() -> Figure:
    """Plot how many trials of each bracket reached each rung."""
    figure, axes = panels(2, width=0.5)
    for axis, make in zip(axes, (ASHA, AsyncHyperband), strict=True):
        scheduler: Scheduler = make(MAX_T)
        trials = study(scheduler, hours=24).trials()
        rungs = milestones(MAX_T, 1, 3)
        reached = [int((trials["resource"] >= rung).sum()) for rung in rungs]
        ended = [n - m for n, m in zip(reached, [*reached[1:], 0], strict=True)]
        axis.bar(range(len(rungs)), reached, color=BLUE, label="reached it")
        axis.bar(range(len(rungs)), ended, color=GREY, label="ended there")
        axis.set_xticks(range(len(rungs)), [str(rung) for rung in rungs])
        axis.set_yscale("log")
        axis.set_xlabel("rung: units of training")
        title(axis, f"{make.__name__}: {len(trials):,} trials in 24 hours")
    axes[0].set_ylabel("trials")
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def guarded() -> Figure:
    """Plot the best loss over time, where early losses tell and where they mislead."""
    figure, axes = panels(2)
    methods: dict[str, tuple[str, Callable[[], tuple[Scheduler, Searcher]]]] = {
        "random search": (GREY, lambda: (FIFO(MAX_T), RandomSearch())),
        "ASHA": (BLUE, lambda: (ASHA(MAX_T), RandomSearch())),
        "AsyncHyperband": (PURPLE, lambda: (AsyncHyperband(MAX_T), RandomSearch())),
        "GuardedASHA, ForestSearch": (ORANGE, lambda: (GuardedASHA(MAX_T), ForestSearch())),
    }
    hours = np.linspace(0.2, 8, 80)
    for axis, curve in zip(axes, (Curve, Misleading), strict=True):
        for label, (colour, parts) in methods.items():
            runs = [study(*parts(), hours=8, curve=curve, seed=seed) for seed in range(N_SEEDS)]
            best = [best_by(result, hours * 3600) for result in runs]
            axis.plot(hours, np.median(best, axis=0), color=colour, label=label)
        axis.set_yscale("log")
        axis.set_xlabel("hours")
        said = "tell the order at the end" if curve is Curve else "mislead"
        title(axis, f"early losses {said}: medians of {N_SEEDS} seeds")
    axes[0].set_ylabel("best loss so far")
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def best_by(result: Result, seconds: np.ndarray[Any, Any]) -> list[float]:
    """Return the best loss that was known at each of these times."""
    history = result.history().sort_values("seconds")
    best = history["loss"].cummin().to_numpy()
    places = np.searchsorted(history["seconds"], seconds, side="right") - 1
    return [float(best[place]) if place >= 0 else math.nan for place in places]


def median() -> Figure:
    """Plot the curves under the median rule, and the median of running averages."""
    figure, [axis] = panels(1)
    result = study(MedianStopping(FIFO(MAX_T), grace_period=5), hours=3)
    curves(axis, result)
    history = result.history()
    averages = history.groupby("trial")["loss"].expanding().mean().reset_index(level=0, drop=True)
    rule = averages.groupby(history["resource"]).median()
    axis.plot(rule.index, rule, color=ORANGE, linewidth=2, label="median of running averages")
    axis.axvline(5, color=GREY, linewidth=0.8, linestyle=":", label="grace period")
    axis.legend(frameon=False, fontsize=8)
    axis.set_ylabel("loss")
    n_stopped = int((result.trials()["resource"] < MAX_T).sum())
    title(axis, f"{result.num_trials} trials, {n_stopped} of them not trained to the end")
    return figure


def gaussian_process() -> Figure:
    """Plot where random search and the Gaussian process look, over the true floor."""
    figure, axes = panels(2)
    lrs, decays = np.meshgrid(np.linspace(-4, 0, 60), np.linspace(-6, -2, 60))
    floors = [[Curve({"lr": 10**a, "decay": 10**b}).floor for a, b in zip(*rows, strict=True)]
              for rows in zip(lrs, decays, strict=True)]  # fmt: skip
    for axis, searcher in zip(axes, (RandomSearch(), GPSearch()), strict=True):
        trials = study(ASHA(MAX_T), searcher, hours=2).trials()
        axis.contour(lrs, decays, floors, levels=8, colors=GREY, linewidths=0.6)
        places = np.log10(trials[["config/lr", "config/decay"]].to_numpy(dtype=float)).T
        dots = axis.scatter(places[0], places[1], c=range(len(trials)), cmap="viridis", s=14)
        near = float((trials["config/lr"].map(lambda lr: abs(math.log10(lr) + 1.6)) < 0.5).mean())
        title(axis, f"{name(searcher)}: {near:.0%} near the best rate")
        axis.set_xlabel("log10 lr")
    axes[0].set_ylabel("log10 decay")
    figure.colorbar(dots, ax=axes, label="trial")
    return figure


def lost() -> Figure:
    """Plot what killed workers cost, by the rule for checkpoints."""
    figure, axes = panels(2, width=0.5)
    rules = ("never", "auto", "every:9", "every:1")
    results = [
        study(
            ASHA(MAX_T, variant="promotion"),
            hours=12,
            checkpoint=rule,
            cluster=ClusterModel(state_bytes=50_000_000),
            resizes=[(hour * 3600, 4 if hour % 2 else WORKERS) for hour in range(1, 12)],
        )
        for rule in rules
    ]
    costs = [result.cost() for result in results]
    for axis, key, what in (
        (axes[0], "retrained_units", "units trained again"),
        (axes[1], "checkpoint_files", "checkpoints written"),
    ):
        values = [cost[key] for cost in costs]
        bars = axis.bar(rules, values, color=[GREY, BLUE, PURPLE, GREEN])
        axis.bar_label(bars, [f"{value:,.0f}" for value in values], fontsize=8)
        title(axis, what)
    return figure


def curves(axis: Axes, result: Result) -> None:
    """Draw each trial's curve: orange if it was trained to the end."""
    for _, rows in result.history().groupby("trial"):
        full = rows["resource"].max() == MAX_T
        axis.plot(rows["resource"], rows["loss"], color=ORANGE if full else BLUE,
                  linewidth=1.0 if full else 0.6, marker="." if len(rows) == 1 else None,
                  markersize=2, alpha=0.9 if full else 0.6)  # fmt: skip
    axis.set_xscale("log", base=3)
    axis.set_xticks([1, 3, 9, 27, 81], ["1", "3", "9", "27", "81"])
    axis.set_yscale("log")
    axis.set_xlabel("units of training")


def title(axis: Axes, text: str) -> None:
    """Write a small title."""
    axis.set_title(text, fontsize=9)


def name(part: object) -> str:
    """Return the name of a scheduler or searcher, as its users write it."""
    return repr(part).partition("(")[0]


def panels(n: int, width: float = 1.0) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``n`` panels side by side."""
    figure = Figure(figsize=(4.2 * n + (1.6 if n == 1 else 0), 3.4), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False, sharey=width == 1.0)[0].tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, axes


FIGURES: dict[str, Callable[[], Figure]] = {
    "asha": asha,
    "brackets": brackets,
    "guarded": guarded,
    "median": median,
    "gaussian-process": gaussian_process,
    "lost": lost,
}


def main() -> None:
    """Write all figures."""
    for name, draw in FIGURES.items():
        path = FOLDER / f"{name}.png"
        figure = draw()
        figure.savefig(path, dpi=120, metadata={"Software": None})
        print(path)


if __name__ == "__main__":
    main()
