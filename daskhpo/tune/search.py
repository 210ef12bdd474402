"""Searchers by Ray Tune's names; a study makes daskhpo's of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daskhpo import searchers
from daskhpo.core import searcher as core
from daskhpo.core.errors import InvalidArgument
from daskhpo.tune.messages import cannot, say
from daskhpo.tune.space import ParamSpace

Make = Callable[[list[dict[str, Any]] | None], core.Searcher]


class Searcher:
    """A searcher, described.

    Attributes
    ----------
    metric, mode, space : what the study takes if it gives none itself.
    seed : of the study; None: not given.
    max_concurrent : trials at a time; None: no limit.
    """

    def __init__(
        self,
        make: Make,
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
        if space is not None and not isinstance(space, Mapping):
            cannot(
                f"space={space!r:.60}, in another library's words",
                "give a dict with tune.uniform and its like; for a function of Optuna's trial "
                "use daskhpo.from_optuna",
            )
        self.metric, self.mode, self.space, self.seed = metric, mode, space, seed
        self.max_concurrent = max_concurrent
        self._make, self._points = make, points_to_evaluate

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
    name: str, make: Make, note: str = "", seeds: tuple[str, ...] = ("seed", "random_state_seed")
) -> Any:
    def described(
        space: Any = None,
        metric: Any = None,
        mode: Any = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> Searcher:
        """Describe a searcher; options of its library cannot be given."""
        seed = next((kwargs.pop(key) for key in seeds if key in kwargs), None)
        limit = kwargs.pop("max_concurrent", None)
        for key, value in kwargs.items():
            if value is not None:
                cannot(f"{name}({key}=...)", f"give daskhpo.searchers' own {name} to daskhpo.Study")
        if note:
            say(name, note)
        return Searcher(
            make,
            space=space,
            metric=metric,
            mode=mode,
            points_to_evaluate=points_to_evaluate,
            seed=seed,
            max_concurrent=limit,
        )

    described.__name__ = name
    return described


def _unavailable(name: str, instead: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        """Refuse: there is no such searcher here."""
        cannot(name, instead)

    refuse.__name__ = name
    return refuse


GP = "is daskhpo.searchers.GPSearch here, a Gaussian process of its own"
AxSearch = _library("AxSearch", lambda points: searchers.AxSearch(points))
BayesOptSearch = _library(
    "BayesOptSearch",
    lambda points: searchers.GPSearch(points_to_evaluate=points),
    GP,
    ("random_state",),
)
HyperOptSearch = _library(
    "HyperOptSearch", lambda points: searchers.HyperOptSearch(points_to_evaluate=points)
)
OptunaSearch = _library(
    "OptunaSearch", lambda points: searchers.OptunaSearch(points_to_evaluate=points)
)
SkOptSearch = _library(
    "SkOptSearch", lambda points: searchers.SkoptSearch(points_to_evaluate=points)
)
DragonflySearch = _unavailable("DragonflySearch", "use daskhpo.searchers.DragonflySearch(python=)")
SigOptSearch = _unavailable("SigOptSearch", "use daskhpo.searchers.SigOptSearch(address, token)")
TuneBOHB = _unavailable("TuneBOHB", "use OptunaSearch with ASHAScheduler")
HEBOSearch = _unavailable("HEBOSearch", "use BayesOptSearch or OptunaSearch")
NevergradSearch = _unavailable("NevergradSearch", "use OptunaSearch")
ZOOptSearch = _unavailable("ZOOptSearch", "use OptunaSearch")
BlendSearch = _unavailable("BlendSearch", "use OptunaSearch with ASHAScheduler")
CFO = _unavailable("CFO", "use OptunaSearch")


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


SEARCHERS: dict[str, Callable[..., Searcher]] = {
    "random": BasicVariantGenerator,
    "variant_generator": BasicVariantGenerator,
    "ax": AxSearch,
    "bayesopt": BayesOptSearch,
    "bohb": TuneBOHB,
    "dragonfly": DragonflySearch,
    "hebo": HEBOSearch,
    "hyperopt": HyperOptSearch,
    "nevergrad": NevergradSearch,
    "optuna": OptunaSearch,
    "sigopt": SigOptSearch,
    "skopt": SkOptSearch,
    "zoopt": ZOOptSearch,
}


def create_searcher(search_alg: str, **kwargs: Any) -> Searcher:
    """Return the searcher of a name, such as ``"optuna"``."""
    if search_alg.lower() not in SEARCHERS:
        raise InvalidArgument(f"search_alg={search_alg!r} must be one of {sorted(SEARCHERS)}")
    return SEARCHERS[search_alg.lower()](**kwargs)


def described(search_alg: Any) -> Searcher:
    """Return a searcher that was given by its name or as an object."""
    match search_alg:
        case None:
            return BasicVariantGenerator()
        case str():
            return create_searcher(search_alg)
        case core.Searcher():
            return Searcher(lambda points: search_alg)
        case Searcher() if hasattr(search_alg, "_make"):
            return search_alg
    cannot(
        f"search_alg={search_alg!r:.60}, a searcher of your own",
        "derive it from daskhpo.searchers.Searcher; see docs/how-to/write-a-scheduler.md",
    )
