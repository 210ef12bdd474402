"""PB2: population based training with values chosen by a Gaussian process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, log
from statistics import NormalDist
from typing import Any

import numpy as np

from daskhpo.core.domains import Domain, Integer, Real
from daskhpo.core.gp import GaussianProcess, squared_distances
from daskhpo.core.random import rng
from daskhpo.core.scheduler import Compare
from daskhpo.core.types import Array, Config, Report, Trial, TrialId
from daskhpo.schedulers.explore import Explorer, Perturb
from daskhpo.schedulers.pbt import Population, check_interval

N_NEWEST = 100  # segments in the model, so that an exploit costs milliseconds
N_EVERYWHERE, N_NEARBY = 256, 64  # candidates: at first, and in each round of refinement
N_KERNELS = 24  # random kernels, of which the best is refined
RESAMPLE_PROBABILITY = 0.25  # for hyperparameters that are explored as by PBT


class PB2(Population):
    """Population based bandits: like :class:`PBT`, but new values come from a model.

    Members are ranked, and the worst take over the states of the best, as by :class:`PBT`. A
    member's new values are not drawn near its source's, but chosen anywhere in the domains of
    ``mutations``. A Gaussian process learns from all members how much the loss fell in an interval.
    The values with the highest upper confidence bound are taken, given those that other members
    are trying. The older an interval, the less it counts. Small populations therefore suffice, for
    example four members.

    The model chooses floats and ints (which are rounded). Ordinal values and categories are
    perturbed, or with a probability of 0.25 drawn from their domains again. So are all values
    until the first change of the loss is known: after two intervals if
    ``perturbation_interval=1``.

    For each segment the model has the interval in which it began, the loss there, the
    hyperparameters, and the change of the loss. Unlike the paper's model, it uses ranks of losses,
    and ranks of changes among those of the same interval (as normal scores). The reason is that
    losses fall fast at first and slowly later, and that a diverging loss would hide the others. A
    segment that failed ranks last.

    Parameters
    ----------
    max_t : resource of a fully trained member.
    perturbation_interval : units of training between two rankings.
    mutations : hyperparameters that may change, at least one of them ``Real`` or ``Integer``:
        names of the study's space, with its domains, or a mapping from names to domains of their
        own. The bounds of a domain are those of the search.
    quantile_fraction : share of the population that exploits, and share that may be exploited; in
        (0, 0.5].
    synchronous : True: rank only when all members have reached the same resource.
    compare : rank by the ``"last"`` report, or by the ``"best"`` since the previous ranking; the
        model learns its change.

    Raises
    ------
    TypeError, ValueError : numbers out of range, or no mutations; from ``setup``: hyperparameters
        that the space does not have, or has as constants, or none that is a float or an int.

    References
    ----------
    Parker-Holder, Nguyen and Roberts 2020, *Provably Efficient Online Hyperparameter Optimization
    with Population-Based Bandits*, Algorithm 1. The time-varying kernel is that of Bogunovic,
    Scarlett and Cevher 2016, *Time-Varying Gaussian Process Bandit Optimization*; a batch is chosen
    as by Desautels, Krause and Burdick 2014, *Parallelizing Exploration-Exploitation Tradeoffs in
    Gaussian Process Bandit Optimization* (GP-BUCB).
    """

    def __init__(
        self,
        max_t: int,
        perturbation_interval: int,
        mutations: Sequence[str] | Mapping[str, Domain],
        quantile_fraction: float = 0.25,
        synchronous: bool = False,
        compare: Compare = "last",
    ) -> None:
        super().__init__(
            Bandit(check_interval(perturbation_interval)),
            {},
            max_t,
            perturbation_interval,
            mutations,
            quantile_fraction,
            synchronous,
            compare,
        )


@dataclass(frozen=True, slots=True)
class _Start:
    """Start of a segment; ``point``: hyperparameters in the unit cube, None: outside."""

    resource: int
    loss: float
    point: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class _Segment:
    start: _Start
    gain: float  # decrease of the loss per unit of training; -inf if it failed


class Bandit(Explorer):
    """Explorer with a Gaussian process bandit for floats and ints.

    Parameters
    ----------
    interval : units of training that count as one time step.

    References
    ----------
    Parker-Holder et al. 2020.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._perturb = Perturb(RESAMPLE_PROBABILITY)  # for values that the model does not choose
        self._domains: dict[str, Domain] = {}
        self._seed = 0
        self._segments: list[_Segment] = []  # the newest ones
        self._starts: dict[TrialId, _Start] = {}  # of each member's current or next segment

    def setup(self, domains: Mapping[str, Domain], seed: int) -> None:
        self._seed = seed
        self._perturb.setup(domains, seed)
        self._domains = {n: d for n, d in domains.items() if isinstance(d, Real | Integer)}
        if not self._domains:
            raise ValueError(
                f"mutations: none of {', '.join(domains)} is a Real or an Integer, so PB2 has "
                "nothing to choose; add one, or use PBT"
            )

    def candidates(
        self, member: TrialId, n_exploits: int, config: Config, source: TrialId | None
    ) -> Iterator[dict[str, Any]]:
        start = None if source is None else self._starts.get(source)
        generator = rng(self._seed, "bandit", member, n_exploits)
        others = [s for number, s in self._starts.items() if number != member]
        for explored in self._perturb.candidates(member, n_exploits, config, source):
            if start is not None and self._segments:
                point = _chosen(self._segments, start, others, self._interval, generator)
                for (name, domain), u in zip(self._domains.items(), point, strict=True):
                    explored[name] = domain.from_unit(u)
            yield explored

    def on_report(self, trial: Trial, report: Report, loss: float) -> None:
        point = self._point(trial.config)
        n_units = len(report.losses)
        first = _Start(report.resource - n_units, report.losses[0], point)
        start = self._starts.get(trial.id)
        # In a first segment only the change since its first unit is known.
        n_between = n_units - 1 if start is None else report.resource - start.resource
        start = start or first
        if n_between > 0:
            self._learn(replace(start, point=point), (start.loss - loss) / n_between)
        self._starts[trial.id] = _Start(report.resource, loss, point)

    def on_exploit(self, trial: Trial, source: TrialId) -> None:
        self._starts.pop(trial.id, None)
        if (start := self._starts.get(source)) is not None:
            self._starts[trial.id] = replace(start, point=self._point(trial.config))

    def on_failure(self, trial: Trial) -> None:
        point = self._point(trial.config)
        start = self._starts.pop(trial.id, None) or _Start(trial.decided_at, inf, point)
        if trial.decision is None:  # else it had reported, and saving its state failed
            self._learn(replace(start, point=point), -inf)

    def on_end(self, trial: Trial) -> None:
        self._starts.pop(trial.id, None)

    def on_extend(self, trial: Trial, loss: float) -> None:
        self._starts[trial.id] = _Start(trial.resource, loss, self._point(trial.config))

    def _learn(self, start: _Start, gain: float) -> None:
        if start.point is not None:
            self._segments = [*self._segments[1 - N_NEWEST :], _Segment(start, gain)]

    def _point(self, config: Config) -> tuple[float, ...] | None:
        if not all(domain.contains(config.get(name)) for name, domain in self._domains.items()):
            return None  # a first configuration may lie outside the mutations' own domains
        return tuple(domain.to_unit(config[name]) for name, domain in self._domains.items())


# -- the model -----------------------------------------------------------------------------------
# Its inputs are rows, one a segment: D hyperparameters and the loss's rank, in [0, 1], and a time,
# in intervals.


def _chosen(
    segments: Sequence[_Segment],
    start: _Start,
    others: Sequence[_Start],
    interval: int,
    generator: np.random.Generator,
) -> list[float]:
    """Return the point with the highest upper confidence bound, for a segment's start.

    Kernels and points are selected from lists that depend on the generator alone, by rounded
    values. Differences between machines in the last digits of linear algebra therefore have no
    effect.
    """
    ladder = np.sort([segment.start.loss for segment in segments])
    interim = [other for other in others if other.point is not None]
    n_dimensions = len(segments[0].start.point or ())

    def inputs(starts: Sequence[_Start], points: Any) -> Array:
        rows = np.empty((len(points), n_dimensions + 2))
        rows[:, :-2] = np.reshape(points, (len(points), n_dimensions))
        rows[:, -2] = np.searchsorted(ladder, [s.loss for s in starts]) / len(ladder)
        rows[:, -1] = [s.resource / interval for s in starts]
        return rows

    seen = inputs([s.start for s in segments], [s.start.point for s in segments])
    scores = _scores(seen[:, -1], np.array([segment.gain for segment in segments]))
    kernel = _fitted(seen, scores, generator)
    bound = _bound(kernel, seen, scores, inputs(interim, [other.point for other in interim]))

    def best(points: Array) -> Array:
        values = bound(inputs([start], points)).round(9)
        found: Array = points[int(np.argmax(values))]
        return found

    point = best(generator.random((N_EVERYWHERE, n_dimensions)))
    for scale in (0.1, 0.03, 0.01):
        steps = scale * generator.standard_normal((N_NEARBY, n_dimensions))
        point = best(np.clip(np.vstack([point, point + steps]), 0, 1))
    return [float(u) for u in point]


def _scores(times: Array, gains: Array) -> Array:
    """Return the normal quantile of each gain's rank among the gains of its time."""
    peers = times[:, None] == times
    below = (peers & (gains < gains[:, None])).sum(1)
    equal = (peers & (gains == gains[:, None])).sum(1)
    places = (below + equal / 2) / peers.sum(1)
    return np.array([NormalDist().inv_cdf(float(p)) for p in places])


@dataclass(frozen=True, slots=True)
class _Kernel:
    """Covariances of segments, in units of the signal's variance.

    Attributes
    ----------
    length : length scale of the features.
    epsilon : share that is forgotten in an interval, ε; 0: nothing.
    noise : variance of the noise.
    """

    length: float
    epsilon: float
    noise: float

    def of(self, squares: Array, apart: Array) -> Array:
        """Return ``exp(-|x - x'|² / 2 length²) (1 - ε)^(|t - t'| / 2)``, of any shape."""
        rate = log(1 - self.epsilon) / 2
        covariance: Array = np.exp(rate * apart - squares / (2 * self.length**2))
        return covariance


def _distances(a: Array, b: Array) -> tuple[Array, Array]:
    """Return squared distances without time, and distances in time; both (N, M)."""
    return squared_distances(a[:, :-1], b[:, :-1]), np.abs(a[:, -1:] - b[:, -1])


SHORTEST, LONGEST = _Kernel(0.05, 0.005, 0.003), _Kernel(2.0, 0.5, 1.0)
SIGNAL_PRIOR = 2.0  # weight, in segments, of the prior that scores have a variance of one


def _signal(process: GaussianProcess) -> tuple[float, float]:
    """Return the signal's variance, and the log marginal likelihood with it."""
    n = process.n_values + SIGNAL_PRIOR
    variance = (process.misfit + SIGNAL_PRIOR) / n
    return variance, -process.log_volume - n / 2 * log(variance)


def _fitted(inputs: Array, scores: Array, generator: np.random.Generator) -> _Kernel:
    """Return the most likely of some kernels: first random ones, then near the best."""
    low, high = (np.log([k.length, k.epsilon, k.noise]) for k in (SHORTEST, LONGEST))
    distances = _distances(inputs, inputs)

    def best(logs: Array) -> Array:
        kernels = [_Kernel(*row) for row in np.exp(logs).tolist()]
        processes = [GaussianProcess(k.of(*distances), k.noise, scores) for k in kernels]
        values = [_signal(process)[1] for process in processes]
        found: Array = logs[int(np.argmax(np.round(values, 9)))]
        return found

    found = best(low + (high - low) * generator.random((N_KERNELS, 3)))
    for scale in (0.15, 0.05):
        steps = scale * (high - low) * generator.standard_normal((N_KERNELS // 3, 3))
        found = best(np.clip(np.vstack([found, found + steps]), low, high))
    return _Kernel(*np.exp(found).tolist())


def _bound(kernel: _Kernel, seen: Array, scores: Array, pending: Array) -> Callable[[Array], Array]:
    """Return the upper confidence bound on scores, as a function of M inputs.

    Pending segments have no scores yet, but narrow the bound as if their scores were as expected.
    """

    def covariance(a: Array, b: Array) -> Array:
        return kernel.of(*_distances(a, b))

    process = GaussianProcess(covariance(seen, seen), kernel.noise, scores)
    signal, _ = _signal(process)
    process = process.believe(covariance(seen, pending), covariance(pending, pending))
    known = np.vstack([seen, pending])

    def bound(inputs: Array) -> Array:
        cross = covariance(known, inputs)
        variance = signal * (1 - process.explained(cross)).clip(0)
        beta = 0.8 * log(4 * (1 + float(inputs[:, -1].max())))  # grows like the paper's β_t
        return process.mean(cross) + np.sqrt(beta * variance)

    return bound
