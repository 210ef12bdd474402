"""The compared methods, each a scheduler and a searcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from daskhpo.core.random import rng
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import (
    Action,
    Array,
    Config,
    Decision,
    Pause,
    Report,
    Resume,
    Start,
    Status,
    Stop,
    Trial,
    TrialId,
    Wait,
)
from daskhpo.schedulers import (
    ASHA,
    FIFO,
    PASHA,
    AsyncHyperband,
    GuardedASHA,
    Hyperband,
    MedianStopping,
)
from daskhpo.searchers import ForestSearch, GPSearch


@dataclass(frozen=True)
class Method:
    """A scheduler and a searcher.

    Attributes
    ----------
    scheduler : makes the scheduler; its argument is ``max_t``.
    searcher : makes the searcher; its argument is the recorded configurations, as points.
    """

    name: str
    scheduler: Callable[[int], Scheduler]
    searcher: Callable[[Array], Searcher]


class Recorded(Searcher):
    """Random search among recorded configurations, with replacement."""

    def __init__(self, units: Array) -> None:
        self._units = units

    def setup(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed

    def suggest(self, trial: TrialId) -> Config:
        generator = rng(self._seed, "suggest", trial)
        return self._space.from_unit(draw(self._units, generator, 1, 0)[0].tolist())


def draw(units: Array, generator: np.random.Generator, n: int, n_domains: int) -> Array:
    """Draw recorded configurations; each at most once."""
    chosen: Array = (
        units[generator.permutation(len(units))[:n]]
        if n > 1
        else units[[generator.integers(len(units))]]
    )
    return chosen


def forest(units: Array) -> Searcher:
    """Return the default searcher, whose candidates are recorded configurations."""
    searcher = ForestSearch()
    searcher.draw = partial(draw, units)
    return searcher


class OneUnit(Scheduler):
    """Trains all trials for one unit, then the best of them to the end."""

    def __init__(self, max_t: int, num_trials: int) -> None:
        self.max_t, self._num_trials = max_t, num_trials
        self._n = 0
        self._losses: dict[TrialId, float] = {}

    def __repr__(self) -> str:
        return f"OneUnit(max_t={self.max_t}, num_trials={self._num_trials})"

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        if can_start and self._n < self._num_trials:
            return Start(1)
        if any(t.until == 1 and t.status is not Status.PAUSED for t in trials.values()):
            return Wait()
        best = min(self._losses, key=lambda trial: (self._losses[trial], trial), default=None)
        return Wait() if best is None else Resume(best, self.max_t)

    def on_launch(self, trial: Trial) -> None:
        self._n += trial.until == 1
        self._losses.pop(trial.id, None)

    def on_report(self, trial: Trial, report: Report) -> Decision:
        if report.resource == self.max_t:
            return Stop("fully trained")
        self._losses[trial.id] = report.best_loss
        return Pause()

    def on_end(self, trial: Trial) -> None:
        self._losses.pop(trial.id, None)


def _ladder(kind: Callable[..., Scheduler], max_t: int) -> Scheduler:
    return kind(max_t, 1, 3, compare="best")


_promotion = partial(ASHA, variant="promotion")
N_ONE_UNIT = 500
OPTUNA = "Optuna, TPE + Hyperband"  # its own loop: see peers.py

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("RS", FIFO, Recorded),
        Method("ASHA, stopping", partial(_ladder, ASHA), Recorded),
        Method("ASHA, promotion", partial(_ladder, _promotion), Recorded),
        Method("AHB", partial(_ladder, partial(AsyncHyperband, variant="promotion")), Recorded),
        Method("Hyperband", partial(_ladder, Hyperband), Recorded),
        Method(
            "Median stopping",
            lambda max_t: MedianStopping(FIFO(max_t), grace_period=3),
            Recorded,
        ),
        Method("PASHA", partial(_ladder, PASHA), Recorded),
        Method("1 unit, then the best", lambda max_t: OneUnit(max_t, N_ONE_UNIT), Recorded),
        Method("ASHA + GPSearch", partial(_ladder, _promotion), lambda units: GPSearch()),
        Method("GuardedASHA, no model", GuardedASHA, Recorded),
        Method("GuardedASHA", GuardedASHA, forest),
    )
}
