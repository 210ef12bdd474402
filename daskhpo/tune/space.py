"""Search spaces in Ray Tune's words, and the flat space that a study gets."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from daskhpo.core.arguments import check_list, shown
from daskhpo.core.domains import (
    MOST_STEPS,
    Categorical,
    Domain,
    Integer,
    Ordinal,
    Real,
    n_steps,
)
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import short, to_python, why_not_plain
from daskhpo.core.random import rng
from daskhpo.tune.drawn import FromFunction, seeded

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Parameter:
    """Values of one hyperparameter: the result of `uniform`, `choice` and others.

    Attributes
    ----------
    domain : of the study's space; a plain value: a constant there.
    read : makes the script's value of the study's.
    is_grid : True: every value is tried.
    """

    domain: Any
    read: Callable[[Any], Any] | None = None
    is_grid: bool = False

    def value(self, raw: Any) -> Any:
        """Return the script's value for a value of the study's space."""
        return raw if self.read is None else self.read(raw)

    def raw(self, value: Any) -> Any:
        """Return the study's value for one of the script's."""
        return value if self.read is None else self.read.inverse(value)  # type: ignore[attr-defined]

    def sample(self, spec: Any = None) -> Any:
        """Draw a value with numpy's global generator."""
        if not isinstance(self.domain, Domain):
            return self.value(self.domain)
        return self.value(self.domain.from_unit(float(np.random.random())))  # noqa: NPY002


@dataclass(frozen=True)
class Function:
    """The result of `sample_from`: a function of the configuration so far."""

    function: Callable[..., Any]

    def sample(self, spec: Any = None) -> Any:
        """Call the function."""
        try:
            return self.function(_Access.of({} if spec is None else spec))
        except TypeError as error:
            if "positional argument" not in str(error):
                raise
            return self.function()


@dataclass(frozen=True)
class Rounded:
    """Rounds to a multiple of ``q``."""

    q: float
    whole: bool

    def __call__(self, raw: float) -> float:
        value = _multiple(round(raw / self.q), self.q)
        return int(value) if self.whole else value

    def inverse(self, value: float) -> float:
        return value


@dataclass(frozen=True)
class Normal:
    """Makes a normal draw of a uniform one; ``q``: rounded to a multiple."""

    mean: float
    sd: float
    q: float | None

    def __call__(self, raw: float) -> float:
        value = NormalDist(self.mean, self.sd).inv_cdf(min(max(raw, 1e-12), 1 - 1e-12))
        return value if self.q is None else _multiple(round(value / self.q), self.q)

    def inverse(self, value: float) -> float:
        return NormalDist(self.mean, self.sd).cdf(value)


@dataclass(frozen=True)
class Lookup:
    """Finds the script's object by the name that the study's journal has."""

    values: tuple[tuple[Any, Any], ...]

    def __call__(self, raw: Any) -> Any:
        return next(v for name, v in self.values if type(name) is type(raw) and name == raw)

    def inverse(self, value: Any) -> Any:
        for name, v in self.values:
            if v is value or (type(v) is type(value) and v == value):
                return name
        raise InvalidArgument(f"{shown(value)} is not one of {[v for _, v in self.values]}")


def uniform(lower: float, upper: float) -> Parameter:
    """Draw a float between two bounds."""
    return _real(lower, upper)


def loguniform(lower: float, upper: float, base: float = 10) -> Parameter:
    """Draw a float between two bounds, uniformly in its logarithm."""
    return _real(lower, upper, log=True)


def quniform(lower: float, upper: float, q: float) -> Parameter:
    """Draw a multiple of ``q``; both bounds are included."""
    return _quantized(Real(lower, upper), q)


def qloguniform(lower: float, upper: float, q: float, base: float = 10) -> Parameter:
    """Draw a multiple of ``q``, uniformly in its logarithm; both bounds are included."""
    return _quantized(Real(lower, upper, log=True), q)


def randint(lower: int, upper: int | None = None) -> Parameter:
    """Draw an int; ``upper`` is excluded."""
    return _whole(*((0, lower) if upper is None else (lower, upper)))


def lograndint(lower: int, upper: int, base: float = 10) -> Parameter:
    """Draw an int, uniformly in its logarithm; ``upper`` is excluded."""
    return _whole(lower, upper, log=True)


def qrandint(lower: int, upper: int, q: int = 1) -> Parameter:
    """Draw an int that is a multiple of ``q``; both bounds are included."""
    return _quantized(Integer(lower, upper), q)


def qlograndint(lower: int, upper: int, q: int, base: float = 10) -> Parameter:
    """Draw a multiple of ``q``, uniformly in its logarithm; both bounds are included."""
    return _quantized(Integer(lower, upper, log=True), q)


def randn(mean: float = 0.0, sd: float = 1.0) -> Parameter:
    """Draw from a normal distribution; the study's tables show the quantile in [0, 1]."""
    return Parameter(Real(0.0, 1.0), Normal(mean, sd, None))


def qrandn(mean: float, sd: float, q: float) -> Parameter:
    """Draw from a normal distribution, rounded to a multiple of ``q``."""
    return Parameter(Real(0.0, 1.0), Normal(mean, sd, q))


def choice(categories: Sequence[Any]) -> Parameter:
    """Draw one of several values; any object may be one."""
    return _listed("choice", categories)


def sample_from(func: Callable[..., Any]) -> Function:
    """Draw by a function of other values: ``lambda spec: 2 * spec.config.width``.

    It may draw from `random` and from numpy's global generator, which are seeded for each trial, so
    that a trial that continues elsewhere has the same value.
    """
    return Function(func)


def grid_search(values: Sequence[Any]) -> Parameter:
    """Try every value; several of these make a grid."""
    return _listed("grid_search", values, is_grid=True)


class LibrarySpace(ABC):
    """Hyperparameters whose configuration another library makes of them.

    Attributes
    ----------
    domains : of the study's space, by name.
    """

    def __init__(self, domains: Mapping[str, Any]) -> None:
        self.domains = dict(domains)

    @abstractmethod
    def config(self, raw: Mapping[str, Any], seed: int) -> dict[Any, Any]:
        """Return the script's configuration for the study's."""

    def raw(self, point: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the study's configuration for a point to evaluate; it may be partial."""
        return {str(name): value for name, value in point.items() if name in self.domains}


@dataclass(frozen=True)
class ParamSpace:
    """A nested configuration of Ray Tune, as the flat space of a study.

    Attributes
    ----------
    space : of the study, by names such as ``"model/layers"``.
    paths : of these names: the keys that lead to the value.
    parameters : those that are drawn, by name.
    functions : those that `sample_from` draws.
    objects : constants that no journal could hold.
    library : makes the rest of the configuration, from a space in another library's words.
    """

    space: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    functions: dict[Path, Function] = field(default_factory=dict)
    objects: dict[Path, Any] = field(default_factory=dict)
    library: LibrarySpace | None = None

    @classmethod
    def of(cls, config: Mapping[Any, Any], library: LibrarySpace | None = None) -> ParamSpace:
        """Return the space of a configuration."""
        made = cls(library=library)
        if library is not None:
            made.space.update(library.domains)
        for path, value in _leaves(config):
            made._add(path, value)
        for path, function in made.functions.items():
            made._draws_alone(path, function)
        if not made.space:
            made.space["(none)"], made.paths["(none)"] = None, ()
        return made

    def _add(self, path: Path, value: Any) -> None:
        name = "/".join(map(str, path))
        if isinstance(value, Function):
            self.functions[path] = value
            return
        parameter = value if isinstance(value, Parameter) else None
        plain = to_python(parameter.domain if parameter else value)
        if parameter is None and (isinstance(plain, Domain) or not why_not_plain(plain)):
            parameter = Parameter(plain)  # a domain of daskhpo's own, or a constant
        if parameter is None:
            self.objects[path] = value
        else:
            self.space[name], self.paths[name] = plain, path
            self.parameters[name] = parameter

    def show_drawn(self) -> None:
        """Let the study's tables have what functions draw that need no configuration."""
        for path, function in list(self.functions.items()):
            if self._draws_alone(path, function):
                name = "/".join(map(str, path))
                self.space[name], self.paths[name] = FromFunction(function.sample), path
                self.parameters[name] = Parameter(self.space[name])
                del self.functions[path]
        if len(self.space) > 1 and self.paths.get("(none)") == ():
            del self.space["(none)"], self.paths["(none)"]

    def _draws_alone(self, path: Path, function: Function) -> bool:
        """Return True if a function draws a plain value without a configuration."""
        drawn = []
        for _ in range(2):
            with seeded(0):
                try:
                    drawn.append(function.sample({}))
                except Exception:  # it needs the configuration
                    return False
        if why_not_plain(to_python(drawn[0])):
            return False
        if drawn[0] != drawn[1]:
            raise InvalidArgument(
                f"sample_from for {'/'.join(map(str, path))} draws from neither random nor numpy's "
                "global generator, so a trial that continues elsewhere would have another value: "
                "draw from one of these, or use tune.uniform and its like"
            )
        return True

    @property
    def grid(self) -> list[str]:
        """Names of which every value is tried."""
        return [name for name, each in self.parameters.items() if each.is_grid]

    def config(self, raw: Mapping[str, Any], seed: int) -> dict[Any, Any]:
        """Return the nested configuration of a trial.

        Parameters
        ----------
        raw : its configuration in the study. seed : of the trial.
        """
        config = {} if self.library is None else self.library.config(raw, seed)
        for path, value in self.objects.items():
            _put(config, path, value)
        for name, path in self.paths.items():
            if path:
                _put(config, path, self.parameters[name].value(raw[name]))
        left = dict(self.functions)
        while left:
            n_before = len(left)
            for path, function in list(left.items()):
                key = rng(seed, "sample_from " + "/".join(map(str, path)))
                with seeded(int(key.integers(2**32))):
                    try:
                        value = function.sample(config)
                    except (KeyError, AttributeError):  # it needs another one first
                        if len(left) == 1 or (path == list(left)[-1] and len(left) == n_before):
                            raise
                        continue
                _put(config, path, to_python(value))
                del left[path]
        return config

    def raw(self, point: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the study's configuration for one of the script's; it may be partial."""
        names = {path: name for name, path in self.paths.items()}
        known = {} if self.library is None else self.library.raw(point)
        return known | {
            names[path]: self.parameters[names[path]].raw(value)
            for path, value in _leaves(point)
            if path in names
        }


class _Access(dict[str, Any]):
    """A configuration whose values are attributes, too; ``config`` is itself."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> _Access:
        return cls({k: cls.of(v) if isinstance(v, Mapping) else v for k, v in config.items()})

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name == "config":
            return self
        raise AttributeError(f"the configuration has no {name!r} (yet)")

    def __missing__(self, name: str) -> Any:
        if name == "config":
            return self
        raise KeyError(name)


def _leaves(config: Mapping[Any, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and set(value) == {"grid_search"}:
            yield (*path, key), grid_search(value["grid_search"])
        elif isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _put(config: dict[Any, Any], path: Path, value: Any) -> None:
    for key in path[:-1]:
        config = config.setdefault(key, {})
    config[path[-1]] = value


def _real(lower: float, upper: float, log: bool = False) -> Parameter:
    return Parameter(lower if lower == upper else Real(lower, upper, log))


def _whole(lower: int, upper: int, log: bool = False) -> Parameter:
    if upper - lower == 1:
        return Parameter(lower)
    return Parameter(Integer(lower, upper - 1, log))


def _quantized(domain: Real | Integer, q: float) -> Parameter:
    if not q > 0:
        raise InvalidArgument(f"q={shown(q)} must be a number above 0")
    whole = isinstance(domain, Integer)
    lowest = _multiple(math.ceil(domain.low / q - 1e-9), q)
    lowest = int(lowest) if whole else lowest
    n = n_steps(lowest, domain.high, q)
    if n < 1:
        raise InvalidArgument(f"q={q!r}: no multiple is between {domain.low} and {domain.high}")
    if n == 1:
        return Parameter(lowest)
    if domain.log or n > MOST_STEPS:
        return Parameter(domain, Rounded(q, whole))
    return Parameter(Ordinal.steps(lowest, domain.high, q))


def _multiple(k: int, q: float) -> float:
    return float(f"{k * q:.12g}")


def _listed(what: str, values: Any, is_grid: bool = False) -> Parameter:
    objects = check_list(what, values, of="values")
    if not objects:
        raise InvalidArgument(f"{what}([]) is empty: give at least one value")
    names: list[Any] = []
    for value in objects:
        if any(isinstance(leaf, (Parameter, Function)) for _, leaf in _leaves({0: value})):
            raise InvalidArgument(
                f"{what} has {shown(value)}, in which something is to be drawn: give that its own "
                "name beside this one, and use sample_from for what depends on it"
            )
        name = _name(value)
        taken = {(type(n), n) for n in names}
        names.append(name if (type(name), name) not in taken else f"{name} ({len(names)})")
    is_plain = all(name is to_python(value) for name, value in zip(names, objects, strict=True))
    read = None if is_plain else Lookup(tuple(zip(names, objects, strict=True)))
    return Parameter(names[0] if len(names) == 1 else Categorical(names), read, is_grid)


def _name(value: Any) -> Any:
    plain = to_python(value)
    if not why_not_plain(plain):
        return plain
    return getattr(value, "__name__", None) or " ".join(short(value).split())
