"""The searcher with a random forest, whose scores compare new and paused trials."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from daskhpo.core.domains import Categorical, Ordinal
from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher, check_points, checked_points, described_points
from daskhpo.core.space import Space
from daskhpo.core.types import Array, Choose, Config, Report, Status, Trial, TrialId
from daskhpo.searchers.forest.model import Forest, Rows, fit
from daskhpo.searchers.gp.dataset import Observation
from daskhpo.searchers.gp.encoding import Encoding
from daskhpo.searchers.gp.warm_start import WarmStart, checked_past, described_past, past_rows

EXPLORED = 1 / 3  # share of random ones among its suggestions, if no scheduler chooses
N_CANDIDATES = 2000
TAKEN, N_NEW = 6, 250  # after so many were taken, so many are drawn
GROWTH = 1.2  # of the number of rows until the forest is fitted again
# Share of paused trials that were resumed later, by the place of their score among all: see
# "Checkpoints" of experiments/default_rule.
RESUMED = ((0.05, 0.8), (0.2, 0.35), (0.5, 0.2), (1.0, 0.08))
MAX_COLUMNS = 16  # values of a category with a column each


Draw = Callable[[np.random.Generator, int, int], Array]


def uniform(generator: np.random.Generator, n: int, n_domains: int) -> Array:
    """Draw points of the unit cube, (n, n_domains)."""
    return generator.random((n, n_domains))


class ForestSearch(Searcher):
    """Search with a random forest over configurations and resources.

    The forest learns the ranks of trials at every rung. A configuration's score at a resource is
    the mean of its trees less their standard deviation. :class:`daskhpo.schedulers.GuardedASHA`
    compares by it a new trial with paused ones. With other schedulers, one of three suggestions is
    random; the others are the best-scored of two thousand random configurations, at the highest
    resource with a result.

    - The forest is fitted again whenever the number of results has grown by a fifth. That takes
      some hundredths of a second, in another thread if the study has several slots.
    - It is used only if it predicts the ranks of configurations that it has not seen better than
      by chance. Else all configurations are random.
    - A failed trial ranks last. A configuration that was tried is not chosen again, but may be
      drawn at random.

    Parameters
    ----------
    warm_start : the directory of another study with a comparable metric, or pairs of a
        configuration and its loss; None: none. Results outside this space are ignored.
    points_to_evaluate : configurations to try first, in this order.

    Raises
    ------
    TypeError, ValueError : as for :class:`daskhpo.searchers.GPSearch`.

    References
    ----------
    Hutter et al. 2011, *Sequential Model-Based Optimization for General Algorithm Configuration*.
    Geurts et al. 2006, *Extremely randomized trees*.
    """

    def __init__(
        self,
        warm_start: WarmStart | None = None,
        points_to_evaluate: Sequence[Config] | None = None,
    ) -> None:
        self.warm_start = self._past = checked_past(warm_start)
        if isinstance(self.warm_start, Path):  # the process may change its folder before `setup`
            self._past = self.warm_start.absolute()
        self.points_to_evaluate = check_points(points_to_evaluate)
        self.draw: Draw = uniform  # an experiment draws recorded configurations instead

    def __repr__(self) -> str:
        options = [*described_past(self.warm_start), *described_points(self.points_to_evaluate)]
        return f"ForestSearch({', '.join(options)})"

    def setup(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._points = checked_points(self.points_to_evaluate, space)
        self._encoding = Encoding(space)
        self.trusted = bool(space.domains)
        self._configs: dict[bytes, int] = {}  # number of each configuration
        self._features: list[Array] = []  # of these
        self._tried: set[bytes] = set()
        self._rows: dict[tuple[TrialId, int], _Row] = {}
        self._highest = 1
        self._due, self._next = 0, 2 * (len(space.domains) + 2)  # numbers of rows
        self._model: Forest | None = None
        self._pools: dict[int, _Pool] = {}  # by resource
        self._live: dict[TrialId, int] = {}  # configurations of trials that reported
        self._unscored: dict[TrialId, None] = {}  # of these
        self._scored: list[tuple[float, TrialId, int]] = []  # a heap: score, trial, until
        self._scored_at = 0
        rows, failed = ([], []) if self._past is None else past_rows(self._past, space)
        past = [*rows, *(Observation(unit, 0, math.inf) for unit in failed)]
        for number, row in enumerate(past, start=1):
            self._learn_of(-number, np.array(row.unit), row.resource, row.loss)

    # -- suggestions -----------------------------------------------------------------------------

    def suggest(self, trial: TrialId) -> dict[str, Any]:
        is_random = rng(self._seed, "random share", trial).random() < EXPLORED
        if trial < len(self._points) or is_random or not self.trusted:
            return self.explore(trial)
        found = self._best_new(self._highest)
        return self.explore(trial) if found is None else self._encoding.config(found[1])

    def explore(self, trial: TrialId) -> dict[str, Any]:
        if trial < len(self._points):
            return dict(self._points[trial])  # a copy, which the caller may change
        return self._encoding.config(self._points_of(rng(self._seed, "suggest", trial), 1)[0])

    def choose(self, trial: TrialId, choice: Choose) -> dict[str, Any] | TrialId:
        found = None if trial < len(self._points) else self._best_new(choice.resource)
        if found is None:
            return self.explore(trial)
        score, unit = found
        paused = self._best_paused(choice)
        if paused is not None and paused[0] + choice.margin < score:
            return paused[1]
        return self._encoding.config(unit)

    def chances(self, trials: Sequence[Trial], choice: Choose) -> Sequence[float]:
        if self._model is None:
            return super().chances(trials, choice)
        self._score_paused(self._model, choice)
        scores = {
            trial: score
            for score, trial, until in self._scored
            if choice.paused.get(trial) == until
        }
        ranked = sorted(scores.values())
        chances = {n: _chance(bisect_left(ranked, s) / len(ranked)) for n, s in scores.items()}
        return [max(choice.chance(trial), chances.get(trial.id, 0.0)) for trial in trials]

    def score(self, configs: Sequence[Config], resource: int) -> Array | None:
        """Return scores at a resource, lower is better; None: there is no model yet."""
        if self._model is None:
            return None
        units = np.array([self._encoding.unit(config) for config in configs])
        return self._model.score(features(self._encoding, units), resource)

    def _best_new(self, resource: int) -> tuple[float, Array] | None:
        """Return the score and the point of the best candidate; None: there is none."""
        if self._model is None:
            return None
        if (pool := self._pools.get(resource)) is None:
            draw = partial(self._candidates, self._model, resource)
            score = partial(self._model.score, resource=resource)
            pool = self._pools[resource] = _Pool(draw, score)
        return pool.best(self._tried)

    def _candidates(self, model: Forest, resource: int, number: int, n: int) -> _Candidates:
        key = f"candidates for {resource}"
        units = self._points_of(rng(self._seed, key, model.n_rows, number), n)
        return _Candidates(units, features(self._encoding, units))

    def _points_of(self, generator: np.random.Generator, n: int) -> Array:
        return self.draw(generator, n, len(self._space.domains))

    def _best_paused(self, choice: Choose) -> tuple[float, TrialId] | None:
        """Return the score and the number of the best paused trial; None: there is none."""
        assert self._model is not None, "scores need a model"
        self._score_paused(self._model, choice)
        best, held_back = None, []
        while self._scored and best is None:
            score, trial, ends = self._scored[0]
            if choice.paused.get(trial) != ends:  # it was resumed, or ended
                heappop(self._scored)
            elif choice.can_go(trial):
                best = score, trial
            else:
                held_back.append(heappop(self._scored))
        for entry in held_back:
            heappush(self._scored, entry)
        return best

    def _score_paused(self, model: Forest, choice: Choose) -> None:
        """Score the paused trials that have reported since they were scored."""
        if choice.resource != self._scored_at:
            self._score_all_again(choice.resource)
        new = [trial for trial in self._unscored if trial in choice.paused]
        self._unscored.clear()
        if new:
            inputs = np.stack([self._features[self._live[trial]] for trial in new])
            until = [choice.paused[trial] for trial in new]
            scores = model.score(inputs, np.maximum(until, choice.resource))
            for entry in zip(scores.tolist(), new, until, strict=True):
                heappush(self._scored, entry)

    def _score_all_again(self, resource: int) -> None:
        self._scored_at = resource
        self._scored.clear()
        self._unscored = dict.fromkeys(self._live)

    # -- what happened ---------------------------------------------------------------------------

    def on_start(self, trial: TrialId, config: Config) -> None:
        self._tried.add(keys(features(self._encoding, self._point(config)[None]))[0])

    def observe(self, trial: Trial, report: Report) -> None:
        number = self._learn_of(
            trial.id, self._point(trial.config), report.resource, report.best_loss
        )
        self._highest = max(self._highest, report.resource)
        self._live[trial.id] = number
        self._unscored[trial.id] = None

    def on_end(self, trial: Trial) -> None:
        if trial.status is Status.FAILED and (trial.id, trial.until) not in self._rows:
            self._learn_of(trial.id, self._point(trial.config), trial.until, math.inf)
        self._live.pop(trial.id, None)
        self._unscored.pop(trial.id, None)

    def _point(self, config: Config) -> Array:
        return np.array(self._encoding.unit(config))

    def _learn_of(self, trial: TrialId, point: Array, resource: int, loss: float) -> int:
        """Add a row of data; return the number of its configuration."""
        inputs = features(self._encoding, point[None])
        number = self._configs.setdefault(keys(inputs)[0], len(self._features))
        if number == len(self._features):
            self._features.append(inputs[0])
        self._rows[trial, resource] = _Row(number, resource, loss)
        if len(self._rows) >= self._next and self._space.domains:
            self._due, self._next = len(self._rows), math.ceil(GROWTH * len(self._rows))
        return number

    # -- the forest ------------------------------------------------------------------------------

    def lesson(self) -> Callable[[], Forest] | None:
        if not self._due:
            return None
        # As many rows as there were when it became due: so it is the same after a replay.
        rows = list(islice(self._rows.values(), self._due))
        n_rows, self._due = self._due, 0
        data = Rows(
            np.stack(self._features[: 1 + max(row.config for row in rows)]),
            np.array([row.config for row in rows]),
            np.array([row.resource or self._highest for row in rows]),
            np.array([row.loss for row in rows]),
        )
        return partial(fit, data, rng(self._seed, "forest", n_rows))

    def learn(self, result: Forest) -> None:
        self._model, self.trusted = result, result.trusted
        self._pools.clear()
        self._score_all_again(0)


class _Row(NamedTuple):
    config: int
    resource: int  # 0: full training, in a warm start
    loss: float


class _Candidates(NamedTuple):
    """Points of the unit cube with what the forest sees of them."""

    units: Array
    inputs: Array


class _Pool:
    """Candidates at one resource, of which the best are taken one after another.

    For those that were taken, a few new ones are drawn, so that the best stay among many. They are
    scored part by part, so that no choice takes long.

    Parameters
    ----------
    draw : returns so many candidates, of a number: 0, 1, ...
    score : returns the scores of inputs.
    """

    def __init__(
        self, draw: Callable[[int, int], _Candidates], score: Callable[[Array], Array]
    ) -> None:
        self._draw, self._score = draw, score
        self._n_drawn = self._n_taken = 0
        self._left: list[tuple[float, int, bytes, Array]] = []  # a heap: score, place, key, point
        self._few: _Candidates | None = None  # the next ones
        self._scores: list[Array] = []  # of the first of these
        self._is_exhausted = False

    def best(self, tried: set[bytes]) -> tuple[float, Array] | None:
        """Return score and point of the best untried candidate; None: all are tried."""
        while not self._is_exhausted:
            while self._left:
                score, _, key, unit = self._left[0]
                if key not in tried:
                    return score, unit
                heappop(self._left)
                self._n_taken += 1
                self._prepare(tried)
            drawn = self._draw(self._n_drawn, N_CANDIDATES)
            self._add(drawn, self._score(drawn.inputs), N_CANDIDATES, tried)
            self._is_exhausted = not self._left
        return None

    def _prepare(self, tried: set[bytes]) -> None:
        """Score the next part of a few candidates; at the last part add the best of them."""
        if self._few is None:
            self._few = self._draw(self._n_drawn, N_NEW)
        part = self._n_taken % TAKEN or TAKEN
        begin, end = sum(map(len, self._scores)), N_NEW * part // TAKEN
        self._scores.append(self._score(self._few.inputs[begin:end]))
        if part == TAKEN:
            self._add(self._few, np.concatenate(self._scores), N_NEW // 10, tried)

    def _add(self, drawn: _Candidates, scores: Array, n_kept: int, tried: set[bytes]) -> None:
        """Add the best of drawn candidates."""
        self._few, self._scores = None, []  # their number is that of the draw
        self._n_drawn += 1
        names = keys(drawn.inputs)
        for place in np.argsort(scores, kind="stable")[:n_kept].tolist():
            if (key := names[place]) not in tried:
                order = self._n_drawn * N_CANDIDATES + place
                heappush(self._left, (float(scores[place]), order, key, drawn.units[place]))


def _chance(place: float) -> float:
    """Return the chance to be resumed, by the place among all, from 0 to 1."""
    return next(chance for most, chance in RESUMED if place <= most)


def features(encoding: Encoding, units: Array) -> Array:
    """Return the columns that the forest sees of points of the cube, (n, n_features)."""
    plain, places = encoding.features(units), encoding.places(units)
    columns = []
    for i, domain in enumerate(encoding.space.domains.values()):
        match domain:
            case Categorical(values=values) if 2 < len(values) <= MAX_COLUMNS:
                columns.append(places[:, i : i + 1] == np.arange(len(values)))
            case Ordinal(values=values):
                columns.append(places[:, i : i + 1] / (len(values) - 1))
            case _:
                columns.append(plain[:, i : i + 1])
    return np.concatenate(columns, axis=1, dtype=float) if columns else plain


def keys(inputs: Array) -> list[bytes]:
    """Return a key for each row; equal configurations have equal ones."""
    return [row.tobytes() for row in np.round(inputs, 9)]
