"""The searcher that uses scikit-optimize's `Optimizer`."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from daskhpo.core.arguments import check_choice, check_int, shown
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.errors import InvalidArgument, MissingLibrary
from daskhpo.core.space import Space
from daskhpo.core.types import Config
from daskhpo.searchers.external.adapter import (
    AskTellSearcher,
    Optimiser,
    TrialOutcome,
    place,
    seed_below,
)
from daskhpo.searchers.gp.blas import one_thread

Estimator = Literal["GP", "RF", "ET", "GBRT"]
AcquisitionFunction = Literal["LCB", "EI", "PI", "gp_hedge"]
AcquisitionOptimizer = Literal["auto", "sampling", "lbfgs"]
InitialPoints = Literal["random", "sobol", "halton", "hammersly", "lhs", "grid"]
# Acquisition functions of scikit-optimize that a study cannot use.
UNUSABLE = {
    "EIps": "needs the seconds of each trial, which searchers do not get",
    "PIps": "needs the seconds of each trial, which searchers do not get",
    "MES": "draws from numpy's global generator, so the study could not be repeated",
    "PVRS": "takes minutes for each proposal: it factorises a matrix for each of 10,000 points",
}
N_DRAWS = 100  # random points, of which the first new one replaces a proposal that was tried


class SkoptSearch(AskTellSearcher):
    """scikit-optimize's `Optimizer`, with any of its models and acquisition functions.

    Parameters
    ----------
    base_estimator : the model. ``"GP"``, a Gaussian process; ``"RF"``, a random forest; ``"ET"``,
        extra trees; ``"GBRT"``, gradient boosted trees; or a regressor whose ``predict`` takes
        ``return_std``, such as those of ``skopt.learning``.
    acq_func : acquisition function. ``"EI"``, expected improvement; ``"PI"``, probability of
        improvement; ``"LCB"``, lower confidence bound; ``"gp_hedge"``, one of these three, drawn
        by their success so far.
    n_initial_points : number of losses that must be known before the model is used; at least 1.
    initial_point_generator : design of the first proposals: ``"random"``, ``"sobol"``,
        ``"halton"``, ``"hammersly"``, ``"lhs"`` (Latin hypercube) or ``"grid"``.
    acq_optimizer : maximisation of the acquisition function. ``"sampling"``, the best of 10,000
        random points; ``"lbfgs"``, improves the best five of them, and needs a Gaussian process;
        ``"auto"``, ``"lbfgs"`` where it is possible.
    points_to_evaluate : configurations to try first, in this order.

    Notes
    -----
    The model is fitted once for each proposal. A trial's loss is its running best, at any resource.
    A running trial without a loss counts as the best loss so far (a constant liar, as in
    scikit-optimize), so that proposals for parallel trials differ. A failed trial counts as the
    worst loss so far. A proposal that was tried before is replaced by a random one.

    ``Real`` and ``Integer`` become scikit-optimize's, with their scale; ``Ordinal`` becomes an
    integer, the value's index; ``Categorical`` becomes one of the index as text.

    Raises
    ------
    MissingLibrary : scikit-optimize is not installed.

    References
    ----------
    Ginsbourger et al. 2010, *Kriging Is Well-Suited to Parallelize Optimization*, Sec. 4.3;
    Hoffman et al. 2011, *Portfolio Allocation for Bayesian Optimization* (``gp_hedge``).
    """

    def __init__(
        self,
        base_estimator: Estimator | Any = "GP",
        acq_func: AcquisitionFunction = "gp_hedge",
        n_initial_points: int = 10,
        initial_point_generator: InitialPoints = "random",
        acq_optimizer: AcquisitionOptimizer = "auto",
        points_to_evaluate: Sequence[Config] | None = None,
    ) -> None:
        super().__init__(points_to_evaluate)
        _check_estimator(base_estimator, acq_optimizer)
        if isinstance(acq_func, str) and acq_func in UNUSABLE:
            raise InvalidArgument(
                f"acq_func={acq_func!r} {UNUSABLE[acq_func]}; use one of "
                f"{list(get_args(AcquisitionFunction))}"
            )
        self.base_estimator = base_estimator
        self.acq_func = check_choice("acq_func", acq_func, get_args(AcquisitionFunction))
        self.n_initial_points = check_int("n_initial_points", n_initial_points, at_least=1)
        self.initial_point_generator = check_choice(
            "initial_point_generator", initial_point_generator, get_args(InitialPoints)
        )
        self.acq_optimizer = check_choice(
            "acq_optimizer", acq_optimizer, get_args(AcquisitionOptimizer)
        )
        if importlib.util.find_spec("skopt") is None:
            raise MissingLibrary(
                "skopt is not installed; install it with: pip install scikit-optimize"
            )

    def described(self) -> list[str]:
        estimator = " ".join(repr(self.base_estimator).split())  # scikit-learn breaks lines
        return [
            f"base_estimator={estimator}",
            f"acq_func={self.acq_func!r}",
            f"n_initial_points={self.n_initial_points}",
            f"initial_point_generator={self.initial_point_generator!r}",
            f"acq_optimizer={self.acq_optimizer!r}",
        ]

    def optimiser(self, space: Space, seed: int) -> Optimiser:
        from skopt import Optimizer

        small = seed_below(2**31, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Sobol points that are not a power of two
            optimizer = Optimizer(
                [_dimension(domain) for domain in space.domains.values()],
                base_estimator=_model(self.base_estimator, small),
                n_initial_points=self.n_initial_points,
                initial_point_generator=self.initial_point_generator,
                acq_func=self.acq_func,
                acq_optimizer=self.acq_optimizer,
                random_state=small,
                model_queue_size=1,
            )
        return _Skopt(optimizer, self.n_initial_points, space)


Point = tuple[Any, ...]  # a configuration's values in the order of the domains, for skopt


class _Skopt(Optimiser):
    """An `Optimizer` that gets all trials for each proposal; handles are numbers.

    Losses change, and pending trials have a made-up one: `Optimizer.tell` only appends. To ask it
    for several points would fit the model once for each of them.
    """

    def __init__(self, optimizer: Any, n_initial_points: int, space: Space) -> None:
        self._optimizer, self._space = optimizer, space
        self._n_initial = n_initial_points
        self._design: list[list[Any]] = []
        for _ in range(n_initial_points):
            self._design.append(optimizer.ask())
            optimizer.tell(self._design[-1], 0.0, fit=False)
        self._points: dict[int, Point] = {}
        self._losses: dict[int, float | None] = {}  # None: failed; missing: pending

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        tried = set(self._points.values())
        for proposal in self._proposals():
            config = {
                name: _value(domain, value)
                for (name, domain), value in zip(self._space.domains.items(), proposal, strict=True)
            }
            if self._point(config) not in tried:
                return self.add(config), config
        return None

    def add(self, config: Config) -> int:
        number = len(self._points)
        self._points[number] = self._point(config)
        return number

    def tell(self, handle: int | None, config: Config, outcome: TrialOutcome) -> int:
        number = self.add(config) if handle is None else handle
        self._points[number] = self._point(config)
        self._losses[number] = outcome.loss
        return number

    def _proposals(self) -> Iterator[list[Any]]:
        """Yield the next point of the design or of the model, then random ones."""
        known = [loss for loss in self._losses.values() if loss is not None]
        if len(known) >= self._n_initial:
            yield self._modelled(min(known), max(known))
        elif len(self._points) < len(self._design):
            yield self._design[len(self._points)]
        yield from self._optimizer.space.rvs(N_DRAWS, random_state=self._optimizer.rng)

    def _modelled(self, best: float, worst: float) -> list[Any]:
        """Fit the model to all trials; return its proposal."""
        losses = [self._losses.get(number, best) for number in self._points]
        *others, last = [worst if loss is None else loss for loss in losses]
        *points, point = map(list, self._points.values())
        optimizer = self._optimizer
        optimizer.Xi, optimizer.yi = points, others
        with one_thread(), warnings.catch_warnings():
            # A model may be fitted badly, and may propose a point that was tried.
            warnings.simplefilter("ignore")
            optimizer.tell(point, last)
            proposal: list[Any] = optimizer.ask()
        return proposal

    def _point(self, config: Config) -> Point:
        return tuple(_param(domain, config[name]) for name, domain in self._space.domains.items())


def _check_estimator(estimator: Any, acq_optimizer: str) -> None:
    """Raise if the model is unknown, or cannot be used with this way to maximise."""
    names = get_args(Estimator)
    if isinstance(estimator, str):
        if estimator not in names:
            raise InvalidArgument(
                f"base_estimator={estimator!r} must be one of {list(names)}, or a regressor"
            )
        if estimator != "GP" and acq_optimizer == "lbfgs":
            raise ValueError(
                f"acq_optimizer='lbfgs' needs gradients, which base_estimator={estimator!r} does "
                "not have; use 'sampling' or 'auto'"
            )
        return
    predict = getattr(estimator, "predict", None)
    if isinstance(estimator, type) or predict is None:
        raise InvalidArgument(
            f"base_estimator={shown(estimator)} must be one of {list(names)}, or a regressor object"
        )
    if "return_std" not in inspect.signature(predict).parameters:
        raise ValueError(
            f"base_estimator={estimator!r} cannot say how sure it is: its predict must take "
            "return_std, as that of the regressors in skopt.learning does"
        )


def _model(estimator: Any, seed: int) -> Any:
    """Return the name of a model, or a copy of a regressor with seeds."""
    from sklearn.base import clone
    from skopt.learning import GradientBoostingQuantileRegressor
    from skopt.utils import cook_estimator

    if estimator in ("GP", "RF", "ET"):
        return estimator
    copied = cook_estimator("GBRT") if estimator == "GBRT" else clone(estimator)
    if isinstance(copied, GradientBoostingQuantileRegressor):
        copied = _boosted_trees(copied)
    unseeded = {
        name: seed
        for name, value in copied.get_params().items()
        if name.rpartition("__")[2] == "random_state" and value is None
    }
    return copied.set_params(**unseeded)


def _boosted_trees(trees: Any) -> Any:
    """Mend scikit-optimize 0.10.2 for numpy 2.4 (``in1d``) and scikit-learn 1.7."""
    from skopt.learning import GradientBoostingQuantileRegressor

    class BoostedTrees(GradientBoostingQuantileRegressor):  # type: ignore[misc]
        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            tags.estimator_type = "regressor"
            return tags

        def predict(self, X: Any, return_std: bool = False, return_quantiles: bool = False) -> Any:  # noqa: N803 - scikit-learn's name
            if not return_std:
                return super().predict(X, return_quantiles=return_quantiles)
            found = super().predict(X, return_quantiles=True)
            low, mean, high = (found[:, self.quantiles.index(q)] for q in (0.16, 0.5, 0.84))
            return mean, (high - low) / 2

    return BoostedTrees(**trees.get_params(deep=False))


def _dimension(domain: Domain) -> Any:
    from skopt import space

    match domain:
        case Real(low, high, log):
            return space.Real(float(low), float(high), "log-uniform" if log else "uniform")
        case Integer(low, high, log):
            return space.Integer(low, high, "log-uniform" if log else "uniform")
        case Ordinal(values=values):
            return space.Integer(0, len(values) - 1)
        case Categorical(values=values):
            return space.Categorical([str(number) for number in range(len(values))])
    raise ValueError(f"scikit-optimize cannot search {domain!r}")


def _param(domain: Domain, value: Any) -> Any:
    match domain:
        case Real():
            return float(value)
        case Integer():
            return int(value)
        case Categorical():
            return str(place(domain, value))
        case _:
            return place(domain, value)


def _value(domain: Domain, param: Any) -> Any:
    match domain:
        case Real(low, high):
            return min(max(float(param), float(low)), float(high))
        case Integer(low, high):
            return min(max(int(param), low), high)
        case Ordinal(values=values) | Categorical(values=values):
            return values[int(param)]
    raise ValueError(f"scikit-optimize cannot search {domain!r}")
