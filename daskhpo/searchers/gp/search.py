"""The searcher for Bayesian optimisation with a Gaussian process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy.stats import qmc

from daskhpo.core.arguments import check_choice, check_int, check_number
from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher, check_points, checked_points, described_points
from daskhpo.core.space import Space
from daskhpo.core.types import Array, Config, Report, Status, Trial, TrialId
from daskhpo.searchers.gp.acquisition import (
    Acquisition,
    log_expected_improvement,
    log_probability_of_improvement,
    lower_confidence_bound,
)
from daskhpo.searchers.gp.blas import one_thread
from daskhpo.searchers.gp.dataset import Dataset, Observation
from daskhpo.searchers.gp.encoding import Encoding
from daskhpo.searchers.gp.local_search import N_STARTS, candidates, climb
from daskhpo.searchers.gp.surrogate import Feasibility, Fitted, Surrogate
from daskhpo.searchers.gp.warm_start import WarmStart, checked_past, described_past, past_rows

Acq = Literal["EI", "LCB", "PI"]

MAX_GRID = 1024  # up to this number of configurations, each is scored
APART = 0.01  # smallest distance to a pending point, in some feature; 1: its whole range
MAX_SKIPS = 64  # already tried points of the initial design to skip


class GPSearch(Searcher):
    """Bayesian optimisation with a Gaussian process.

    It learns from reports at every resource. The first configurations are a scrambled Sobol
    sequence. Later each suggestion maximises an acquisition function.

    - The model uses all losses. For pending points it assumes that its own mean was observed, so
      that parallel suggestions differ.
    - The noise of the losses is learned.
    - A failed trial lowers the probability to succeed around it, by which the acquisition is
      weighted; no loss is invented for it.
    - A configuration that was tried is not suggested again, unless all of a finite space were.

    Parameters
    ----------
    acq : ``"EI"``, expected improvement; ``"LCB"``, lower confidence bound; ``"PI"``, probability
        of improvement.
    n_initial_points : trials with a report or a failure that the model needs; results of a warm
        start count. Until then new trials follow the Sobol sequence, so no slot waits.
    kappa : standard deviations below the mean, for LCB; larger values explore more.
    xi : smallest improvement that PI counts, in standard deviations of the losses.
    warm_start : the directory of another study with a comparable metric, or pairs of a
        configuration and its loss; None: none. Their relevance is learned. Results outside this
        space, or with another value of one of its constants, are ignored.
    points_to_evaluate : configurations to try first, in this order.

    Raises
    ------
    ValueError : ``acq`` is unknown, or a number is out of range; in ``setup``: the warm start has
        other hyperparameters.
    TypeError : ``warm_start`` is neither a path nor such pairs.

    References
    ----------
    Jones et al. 1998, *Efficient Global Optimization of Expensive Black-Box Functions*.
    Ginsbourger et al. 2010, *Kriging is well-suited to parallelize optimization*.
    Gelbart et al. 2014, *Bayesian Optimization with Unknown Constraints*, eq. 4.
    """

    slow = True

    def __init__(
        self,
        acq: Acq = "EI",
        n_initial_points: int = 8,
        kappa: float = 1.96,
        xi: float = 0.01,
        warm_start: WarmStart | None = None,
        points_to_evaluate: Sequence[Config] | None = None,
    ) -> None:
        self.acq: Acq = check_choice("acq", acq, get_args(Acq))
        self.n_initial_points = check_int("n_initial_points", n_initial_points, at_least=1)
        self.kappa = check_number("kappa", kappa, at_least=0)
        self.xi = check_number("xi", xi, at_least=0)
        self.warm_start = self._past = checked_past(warm_start)
        if isinstance(self.warm_start, Path):  # the process may change its folder before `setup`
            self._past = self.warm_start.absolute()
        self.points_to_evaluate = check_points(points_to_evaluate)

    def __repr__(self) -> str:
        options = [
            f"acq={self.acq!r}",
            f"n_initial_points={self.n_initial_points}",
            f"kappa={self.kappa!r}",
            f"xi={self.xi!r}",
            *described_past(self.warm_start),
            *described_points(self.points_to_evaluate),
        ]
        return f"GPSearch({', '.join(options)})"

    def setup(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._points = checked_points(self.points_to_evaluate, space)
        self._encoding = Encoding(space)
        past = ([], []) if self._past is None else past_rows(self._past, space)
        self._evidence = Dataset(*past)
        self._tried: set[bytes] = set()
        self._design = np.empty((0, len(space.domains)))
        self._losses, self._labels = Fitted(), Fitted()
        self._model: tuple[int, Surrogate | None, Feasibility | None] = (-1, None, None)

    def suggest(self, trial: TrialId) -> dict[str, Any]:
        if trial < len(self._points):
            config = dict(self._points[trial])  # a copy, which the caller may change
        elif not self._space.domains:
            config = self._space.from_unit([])
        elif self._evidence.n_reporting < self.n_initial_points:
            config = self._encoding.config(self._from_design(trial - len(self._points)))
        else:
            with one_thread():
                config = self._encoding.config(self._from_model(trial))
        self._starts(trial, config)
        return config

    def on_start(self, trial: TrialId, config: Config) -> None:
        self._starts(trial, config)

    def observe(self, trial: Trial, report: Report) -> None:
        # The best since the last report; `trial.best_loss` may belong to an earlier configuration.
        row = Observation(self._unit(trial.config), report.resource, min(report.losses))
        self._evidence.reported(trial.id, row)

    def on_end(self, trial: Trial) -> None:
        failed = trial.status is Status.FAILED
        self._evidence.ended(trial.id, self._unit(trial.config), failed)

    def _starts(self, trial: TrialId, config: Config) -> None:
        unit = self._unit(config)
        self._evidence.started(trial, unit)
        self._tried.add(self._key(np.array(unit)))

    def _unit(self, config: Config) -> tuple[float, ...]:
        return tuple(self._encoding.unit(config))

    def _key(self, unit: Array) -> bytes:
        return np.round(self._encoding.features(unit[None]), 9).tobytes()

    def _from_design(self, number: int) -> Array:
        """Return the first untried point of the Sobol sequence, from ``number`` on."""
        n = number + MAX_SKIPS
        if len(self._design) < n:
            scrambling = int(rng(self._seed, "design").integers(2**31))
            sequence = qmc.Sobol(self._design.shape[1], rng=scrambling)
            self._design = sequence.random_base2(n.bit_length())
        new = (point for point in self._design[number:n] if self._key(point) not in self._tried)
        return next(new, self._design[number])

    def _from_model(self, trial: TrialId) -> Array:
        surrogate, feasibility = self._learned()
        encoding = self._encoding
        if surrogate is not None:
            best, posterior = surrogate.best, surrogate.posterior
            if len(pending := self._evidence.pending):
                believed = surrogate.at(pending)
                best = min(best, float(posterior.mean(believed).min()))
                posterior = posterior.believe(believed)
            acquisition = self._acquisition(best)

        def score(units: Array) -> Array:
            value = np.zeros(len(units))
            if surrogate is not None:
                value += acquisition(*posterior.predict(surrogate.at(units)))[0]
            if feasibility is not None:
                value += feasibility.log_weight(units)
            return value

        def score_and_slope(units: Array) -> tuple[Array, Array]:
            value, slope = np.zeros(len(units)), np.zeros(units.shape)
            if surrogate is not None:
                mean, sd, d_mean, d_sd = posterior.slopes(surrogate.at(units))
                value, by_mean, by_sd = acquisition(mean, sd)
                full = by_mean[:, None] * d_mean + by_sd[:, None] * d_sd
                slope = full[:, : units.shape[1]]
            if feasibility is not None:
                more, by_feature = feasibility.log_weight_and_slope(units)
                value, slope = value + more, slope + by_feature
            return value, slope

        if encoding.n_configs <= MAX_GRID:
            pool = encoding.grid()
            scores = score(pool)
        else:
            good = surrogate.good if surrogate is not None else np.empty((0, len(encoding.sizes)))
            parts = candidates(encoding, good, rng(self._seed, "candidates", trial))
            scored = [score(part) for part in parts]
            starts = [
                part[np.argsort(-values, kind="stable")[:N_STARTS]]
                for part, values in zip(parts, scored, strict=True)
            ]
            known = self._evidence.known
            polished = climb(encoding, np.concatenate(starts), known, score, score_and_slope)
            pool = np.concatenate([*parts, polished])
            scores = np.concatenate([*scored, score(polished)])
        return self._first_new(pool[np.argsort(-scores, kind="stable")])

    def _first_new(self, points: Array) -> Array:
        """Return the first point that is untried and not next to a pending one."""
        pending = self._evidence.pending.reshape(-1, points.shape[1])
        out = self._encoding.features(pending)

        def is_new(point: Array) -> bool:
            near = np.abs(out - self._encoding.features(point[None])).max(axis=1) < APART
            return not near.any() and self._key(point) not in self._tried

        first: Array = next(filter(is_new, points), points[0])
        return first

    def _learned(self) -> tuple[Surrogate | None, Feasibility | None]:
        """Return the models of all data; fit them if there is new data."""
        if self._model[0] != self._evidence.version:
            rows, failed = list(self._evidence.observations.values()), self._evidence.failed
            surrogate = Surrogate(self._encoding, rows, self._losses) if rows else None
            feasibility = (
                Feasibility(self._encoding, rows, failed, self._labels) if failed else None
            )
            self._model = (self._evidence.version, surrogate, feasibility)
        return self._model[1:]

    def _acquisition(self, best: float) -> Acquisition:
        match self.acq:
            case "EI":
                return log_expected_improvement(best)
            case "LCB":
                return lower_confidence_bound(self.kappa)
            case _:
                return log_probability_of_improvement(best - self.xi)
