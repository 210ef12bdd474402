"""Searchers by Ray Tune's names; a study makes daskhpo's of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daskhpo import searchers
from daskhpo.core import searcher as core
from daskhpo.core.errors import InvalidArgument
from daskhpo.tune.library_spaces import bounds, of_skopt
from daskhpo.tune.messages import cannot, no_effect, say
from daskhpo.tune.space import ParamSpace
from daskhpo.tune.space import grid_search as grid_search

Make = Callable[[list[dict[str, Any]] | None], core.Searcher]


class Searcher:
    """A searcher, described.

    Attributes
    ----------
    metric, mode, space : what the study takes if it gives none itself.
    seed : of the study; None: not given.
    max_concurrent : trials at a time; None: no limit.
    is_described : False: a searcher of one's own, which cannot be translated.
    """

    is_described = False

    def __init__(
        self,
        make: Make | None = None,
        *,
        space: Any = None,
        metric: str | Sequence[str] | None = None,
        mode: str | Sequence[str] | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        seed: int | None = None,
        max_concurrent: int | None = None,
    ) -> None:
        if not isinstance(metric, str | None):
            cannot(f"metric={list(metric)!r}", "a study has one metric")
        self.metric, self.mode, self.space, self.seed = metric, mode, space, seed
        self.max_concurrent = max_concurrent
        self._points, self.is_described = points_to_evaluate, make is not None
        if make is not None:
            self._make = make

    def made(self, params: ParamSpace) -> core.Searcher:
        """Return daskhpo's searcher.

        Raises
        ------
        InvalidArgument : the space has a grid.
        """
        if params.grid:
            cannot(f"grid_search with a searcher, for {params.grid}", "use tune.choice")
        return self._make(self.points(params))

    def points(self, params: ParamSpace) -> list[dict[str, Any]] | None:
        """Return the first configurations, as the study's."""
        if not self._points:
            return None
        return [params.raw(point) for point in self._points]


class BasicVariantGenerator(Searcher):
    """Random and grid search: `daskhpo.searchers.RandomSearch` and `GridSearch`."""

    def __init__(
        self,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        max_concurrent: int = 0,
        constant_grid_search: bool = False,
        random_state: Any = None,
    ) -> None:
        if constant_grid_search:
            cannot("constant_grid_search=True", "each trial of a grid draws its own values")
        super().__init__(
            lambda points: searchers.RandomSearch(points),
            points_to_evaluate=points_to_evaluate,
            seed=random_state if isinstance(random_state, int) else None,
            max_concurrent=max_concurrent or None,
        )


def _library(
    name: str, kind: str, options: Callable[..., dict[str, Any]] = dict, note: str = ""
) -> Any:
    """Return what stands for a class of Ray Tune.

    Parameters
    ----------
    kind : name of the class of `daskhpo.searchers`.
    options : makes its arguments of those that Ray's class has besides the usual ones.
    """
    known = set(inspect.signature(options).parameters) if options is not dict else set[str]()

    def describe(
        space: Any = None,
        metric: Any = None,
        mode: Any = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> Searcher:
        """Describe a searcher."""
        seeds = ("seed", "random_state_seed", "random_state")
        seed = next((kwargs.pop(key) for key in seeds if key in kwargs), None)
        limit = kwargs.pop("max_concurrent", None)
        given = {key: value for key, value in kwargs.items() if value is not None}
        for key in given.keys() - known:
            cannot(f"{name}({key}=...)", f"give daskhpo.searchers.{kind}(...) as search_alg")
        own = options(**given)
        if note:
            say(name, note)
        return Searcher(
            lambda points: getattr(searchers, kind)(points_to_evaluate=points, **own),
            space=space,
            metric=metric,
            mode=mode,
            points_to_evaluate=points_to_evaluate,
            seed=seed,
            max_concurrent=limit,
        )

    describe.__name__ = name
    return describe


def _of_bayesopt(
    random_search_steps: int = 10,
    utility_kwargs: Mapping[str, Any] | None = None,
    verbose: int = 0,
    skip_duplicate: bool = True,
    patience: int = 5,
) -> dict[str, Any]:
    utility = {"kind": "ucb", "kappa": 2.576, "xi": 0.0, **(utility_kwargs or {})}
    acq = {"ucb": "LCB", "ei": "EI", "poi": "PI"}[utility["kind"]]
    numbers = {"kappa": utility["kappa"], "xi": utility["xi"]}
    return {"acq": acq, "n_initial_points": random_search_steps, **numbers}


def _of_hyperopt(n_initial_points: int = 20, gamma: float = 0.25) -> dict[str, Any]:
    if gamma != 0.25:
        cannot(f"HyperOptSearch(gamma={gamma})", "it is 0.25 in daskhpo.searchers.HyperOptSearch")
    return {"n_startup_trials": n_initial_points}


def _of_optuna(sampler: Any = None) -> dict[str, Any]:
    names = {"TPESampler": "tpe", "CmaEsSampler": "cmaes", "GPSampler": "gp"}
    if sampler is None:
        return {}
    if (name := type(sampler).__name__) not in names:
        cannot(f"OptunaSearch(sampler={name})", f"give one of {', '.join(names)}")
    say(f"sampler={name}(...)", "has its usual options here")
    return {"sampler": names[name]}


GP = "is daskhpo.searchers.GPSearch here, a Gaussian process of its own"
AxSearch = _library("AxSearch", "AxSearch")
_BayesOptSearch = _library("BayesOptSearch", "GPSearch", _of_bayesopt, GP)
HyperOptSearch = _library("HyperOptSearch", "HyperOptSearch", _of_hyperopt)
OptunaSearch = _library("OptunaSearch", "OptunaSearch", _of_optuna)
_SkOptSearch = _library("SkOptSearch", "SkoptSearch")


def BayesOptSearch(space: Any = None, *args: Any, **kwargs: Any) -> Searcher:  # noqa: N802
    """Describe `daskhpo.searchers.GPSearch`; pairs of numbers are ranges."""
    described: Searcher = _BayesOptSearch(bounds(space), *args, **kwargs)
    return described


def SkOptSearch(  # noqa: N802 - a class in Ray
    optimizer: Any = None,
    space: Any = None,
    metric: str | None = None,
    mode: str | None = None,
    points_to_evaluate: Sequence[Any] | None = None,
    evaluated_rewards: Sequence[float] | None = None,
    **kwargs: Any,
) -> Searcher:
    """Describe `daskhpo.searchers.SkoptSearch`.

    With an optimizer, ``space`` names its dimensions. Points may be lists, in that order.
    """
    if optimizer is not None:
        space = of_skopt(optimizer, space)
        say("SkOptSearch(optimizer=...)", "gives its space; a study makes its own optimizer")
    no_effect({"evaluated_rewards": evaluated_rewards}, "the points are evaluated")
    points = [
        point if isinstance(point, Mapping) else dict(zip(space, point, strict=True))
        for point in points_to_evaluate or ()
    ]
    described: Searcher = _SkOptSearch(bounds(space), metric, mode, points, **kwargs)
    return described


class ConcurrencyLimiter(Searcher):
    """A searcher with a limit of trials at a time: `RunOptions.max_concurrent`."""

    def __init__(self, searcher: Searcher, max_concurrent: int, batch: bool = False) -> None:
        if batch:
            cannot("ConcurrencyLimiter(batch=True)", "no trial waits for a batch")
        vars(self).update(vars(described(searcher)))
        self.max_concurrent = max_concurrent


class Repeater(Searcher):
    """A searcher whose configurations are repeated: `daskhpo.searchers.Repeater`."""

    def __init__(self, searcher: Searcher, repeat: int = 1, set_index: bool = True) -> None:
        vars(self).update(vars(described(searcher)))
        inner = self._make
        if repeat > 1:
            self._make = lambda points: searchers.Repeater(inner(points), repeat)


SEARCHERS = {
    "random": "BasicVariantGenerator",
    "variant_generator": "BasicVariantGenerator",
    "ax": "AxSearch",
    "bayesopt": "BayesOptSearch",
    "bohb": "TuneBOHB",
    "dragonfly": "DragonflySearch",
    "hebo": "HEBOSearch",
    "hyperopt": "HyperOptSearch",
    "nevergrad": "NevergradSearch",
    "optuna": "OptunaSearch",
    "sigopt": "SigOptSearch",
    "skopt": "SkOptSearch",
    "zoopt": "ZOOptSearch",
}


def create_searcher(search_alg: str, **kwargs: Any) -> Searcher:
    """Return the searcher of a name, such as ``"optuna"``."""
    if (name := search_alg.lower()) not in SEARCHERS:
        raise InvalidArgument(f"search_alg={search_alg!r} must be one of {sorted(SEARCHERS)}")
    made: Searcher = globals()[SEARCHERS[name]](**kwargs)
    return made


def described(search_alg: Any) -> Searcher:
    """Return a searcher that was given by its name or as an object."""
    match search_alg:
        case None:
            return BasicVariantGenerator()
        case str():
            return create_searcher(search_alg)
        case core.Searcher():
            return Searcher(lambda points: search_alg)
        case Searcher(is_described=True):
            return search_alg
    cannot(
        f"search_alg={search_alg!r:.60}, a searcher of your own",
        "derive it from daskhpo.searchers.Searcher; see docs/how-to/write-a-scheduler.md",
    )
