"""Search spaces in the words of HyperOpt, of Optuna's trials and of bayes_opt."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from daskhpo.core.arguments import shown
from daskhpo.core.domains import Categorical, Domain, Integer, Real
from daskhpo.core.plain import typed, why_not_plain
from daskhpo.core.random import rng
from daskhpo.define_by_run import Suggestions, found_space
from daskhpo.tune.messages import cannot
from daskhpo.tune.space import (
    LibrarySpace,
    Lookup,
    Parameter,
    choice,
    loguniform,
    qloguniform,
    qrandn,
    quniform,
    randint,
    randn,
    uniform,
)

PROBE_SECONDS = 10.0  # of a function that suggests
# Modules of objects that are search spaces.
FOREIGN = (
    *("hyperopt.pyll", "optuna.distributions", "skopt.space", "ConfigSpace", "zoopt"),
    *("nevergrad.parametrization", "flaml.tune"),
)
INSTEAD = (
    "give a dict with tune.uniform and its like; a space of HyperOpt to HyperOptSearch, a function "
    "of Optuna's trial to OptunaSearch"
)


class SpaceOfHyperOpt(LibrarySpace):
    """A space of HyperOpt: `hp.uniform`, nested `hp.choice`, ..."""

    def __init__(self, space: Any) -> None:
        from hyperopt.pyll.base import as_apply, dfs

        self._space = space
        nodes = dfs(as_apply(space))
        drawn = {n.arg["label"].obj: n.arg["obj"] for n in nodes if n.name == "hyperopt_param"}
        self._parameters = {label: _of_hyperopt(label, node) for label, node in drawn.items()}
        for node in nodes:
            if node.name == "switch" and node.pos_args[0].name == "hyperopt_param":
                label = node.pos_args[0].arg["label"].obj
                self._parameters[label] = _by_index(node.pos_args[1:])
        super().__init__({name: each.domain for name, each in self._parameters.items()})

    def config(self, raw: Mapping[str, Any], seed: int) -> dict[Any, Any]:
        from hyperopt import space_eval

        values = {name: each.value(raw[name]) for name, each in self._parameters.items()}
        found = space_eval(self._space, values)
        return dict(found) if isinstance(found, Mapping) else {"config": found}

    def raw(self, point: Mapping[Any, Any]) -> dict[str, Any]:
        known = super().raw(point)
        return {name: self._parameters[name].raw(value) for name, value in known.items()}


class SpaceOfTrial(LibrarySpace):
    """A function that suggests values, and returns constants or None."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        super().__init__(found_space(function, PROBE_SECONDS)[0])

    def config(self, raw: Mapping[str, Any], seed: int) -> dict[Any, Any]:
        trial = _GivenTrial(raw, seed)
        constants = self._function(trial)
        return {**trial.params, **(constants or {})}


class _GivenTrial(Suggestions):
    """Optuna's trial, whose values are given."""

    def __init__(self, values: Mapping[str, Any], seed: int) -> None:
        super().__init__()
        self._values, self._seed = values, seed

    def value_of(self, name: str, domain: Any) -> Any:
        if not isinstance(domain, Domain):
            return domain
        value = self._values.get(name)
        if domain.contains(value):
            return value
        return domain.sample(rng(self._seed, f"suggest {name}"))


def library_space(space: Any) -> LibrarySpace | None:
    """Return a space in another library's words; None: it has Ray Tune's.

    Raises
    ------
    InvalidArgument : its library is one that cannot be translated.
    """
    foreign = {_library_of(each): each for each in _values(space)}
    if "hyperopt" in foreign:
        return SpaceOfHyperOpt(space)
    if inspect.isroutine(space):
        return SpaceOfTrial(space)
    if space is not None and not isinstance(space, Mapping):
        cannot(f"space={shown(space)}, in another library's words", INSTEAD)
    check_own(space)
    return None


def of_skopt(optimizer: Any, names: Any) -> dict[str, Any]:
    """Return the space of an optimizer of scikit-optimize, whose dimensions get names."""
    if not hasattr(optimizer, "space") or not isinstance(names, Sequence):
        cannot(
            f"SkOptSearch(optimizer={shown(optimizer)}, space={shown(names)})",
            "give a skopt.Optimizer and the names of its dimensions, or "
            "daskhpo.searchers.SkoptSearch() as search_alg",
        )
    return {
        name: _of_dimension(dimension)
        for name, dimension in zip(names, optimizer.space.dimensions, strict=True)
    }


def _of_dimension(dimension: Any) -> Any:
    if hasattr(dimension, "categories"):
        return choice(list(dimension.categories))
    kind = Integer if isinstance(dimension.low, int | np.integer) else Real
    return kind(dimension.low, dimension.high, dimension.prior == "log-uniform")


def check_own(config: Any) -> None:
    """Check that a configuration has no search space of another library.

    Raises
    ------
    InvalidArgument : it has one.
    """
    for value in _values(config):
        if library := _library_of(value):
            cannot(f"{shown(value)}, a search space of {library} in a configuration", INSTEAD)


def bounds(space: Any) -> Any:
    """Return a space whose pairs of numbers are ranges, as in bayes_opt."""
    if not isinstance(space, Mapping):
        return space
    return {
        name: uniform(*pair) if isinstance(pair, tuple | list) and len(pair) == 2 else pair
        for name, pair in space.items()
    }


def _library_of(value: Any) -> str:
    module = type(value).__module__
    return next((name.partition(".")[0] for name in FOREIGN if module.startswith(name)), "")


def _values(space: Any) -> list[Any]:
    if isinstance(space, Mapping):
        return [leaf for value in space.values() for leaf in _values(value)]
    if isinstance(space, list | tuple):
        return [leaf for value in space for leaf in _values(value)]
    return [space]


def _by_index(options: Sequence[Any]) -> Parameter:
    """Return the parameter of a choice, whose value is an index."""
    found = [getattr(option, "obj", option) for option in options]
    names = [*range(len(options))]
    if not any(map(why_not_plain, found)) and len(set(map(typed, found))) == len(found):
        names = found
    if len(names) == 1:
        return Parameter(names[0], Lookup(((names[0], 0),)))
    return Parameter(Categorical(names), Lookup(tuple(zip(names, range(len(names)), strict=True))))


def _of_hyperopt(label: str, node: Any) -> Parameter:
    numbers: dict[str, Any] = {name: getattr(each, "obj", None) for name, each in node.arg.items()}
    if node.name == "randint":
        return randint(*(argument.obj for argument in node.pos_args))
    if node.name == "uniform":
        return uniform(numbers["low"], numbers["high"])
    if node.name == "quniform":
        return quniform(numbers["low"], numbers["high"], numbers["q"])
    if node.name == "loguniform":
        return loguniform(math.exp(numbers["low"]), math.exp(numbers["high"]))
    if node.name == "qloguniform":
        return qloguniform(math.exp(numbers["low"]), math.exp(numbers["high"]), numbers["q"])
    if node.name == "normal":
        return randn(numbers["mu"], numbers["sigma"])
    if node.name == "qnormal":
        return qrandn(numbers["mu"], numbers["sigma"], numbers["q"])
    name = {"categorical": "pchoice"}.get(node.name, node.name)  # as it was written
    cannot(f"hp's {name!r}, for {label!r}", "use hp.uniform, loguniform, normal or choice")
