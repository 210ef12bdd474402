"""Domains of hyperparameters: the values that each may take."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from daskhpo.core.arguments import check_bool, check_list, shown
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import is_number, to_python, typed, why_not_plain

MOST_STEPS = 1000  # values of `Ordinal.steps`


class Domain(ABC):
    """The values that one hyperparameter may take; bounds are inclusive."""

    def sample(self, generator: np.random.Generator) -> Any:
        """Draw a value, uniform on the unit scale of the domain."""
        return self.from_unit(float(generator.random()))

    @abstractmethod
    def from_unit(self, u: float) -> Any:
        """Return the value at ``u`` in [0, 1].

        The inverse of :meth:`to_unit`, up to rounding.
        """

    @abstractmethod
    def to_unit(self, value: Any) -> float:
        """Return the position of a value in [0, 1]."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Return True if the value, including its type, is in the domain."""

    @abstractmethod
    def grid(self, n: int) -> list[Any]:
        """Return at most ``n`` distinct values, evenly spread; all if there are fewer."""

    @abstractmethod
    def perturb(self, value: Any, generator: np.random.Generator) -> Any:
        """Return a value near this one, inside the domain.

        Numbers are multiplied by 0.8 or by 1.2 (Jaderberg et al. 2017, App. A) and clipped to the
        bounds. An int moves by at least one, and a float of 0 by a fifth of the range. An ordinal
        value becomes one of its neighbours, a category any other one. At a bound a value may stay.
        """


@dataclass(frozen=True)
class Real(Domain):
    """A float between two bounds; ``log``: uniform in the logarithm.

    Raises
    ------
    ValueError : bounds not finite, reversed or equal; ``log`` with a bound that is not positive.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self)

    def from_unit(self, u: float) -> float:
        value = _stretch(u, self.low, self.high, self.log)
        return min(max(value, float(self.low)), float(self.high))  # exp(log(x)) may step outside

    def to_unit(self, value: float) -> float:
        return _shrink(value, self.low, self.high, self.log)

    def contains(self, value: Any) -> bool:
        return is_number(value) and bool(self.low <= value <= self.high)

    def grid(self, n: int) -> list[float]:
        return [self.from_unit(float(u)) for u in _spread(n)]

    def perturb(self, value: float, generator: np.random.Generator) -> float:
        factor = _factor(generator)
        moved = value * factor if value else (factor - 1) * (self.high - self.low)
        return min(max(moved, float(self.low)), float(self.high))


@dataclass(frozen=True)
class Integer(Domain):
    """An int between two bounds; ``log``: uniform in the logarithm before rounding.

    Raises
    ------
    ValueError : bounds reversed or equal; ``log`` with a bound below 1.
    TypeError : a bound that is not an int.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound = getattr(self, name)
            if type(to_python(bound)) is not int:
                raise InvalidArgument(
                    f"Integer: {name}={shown(bound)} must be an int; use Real for floats"
                )
        _check_bounds(self)

    # Each int owns [k - 1/2, k + 1/2) of the scale, so the two ends are as likely as the others.
    def from_unit(self, u: float) -> int:
        value = math.floor(_stretch(u, self.low - 0.5, self.high + 0.5, self.log) + 0.5)
        return int(min(max(value, self.low), self.high))

    def to_unit(self, value: int) -> float:
        return _shrink(value, self.low - 0.5, self.high + 0.5, self.log)

    def contains(self, value: Any) -> bool:
        return (
            isinstance(value, (int, np.integer))
            and not isinstance(value, bool)
            and bool(self.low <= value <= self.high)
        )

    def grid(self, n: int) -> list[int]:
        if self.high - self.low < n:
            return list(range(self.low, self.high + 1))
        ends = [_stretch(float(u), self.low, self.high, self.log) for u in _spread(n)]
        return sorted({min(max(round(value), self.low), self.high) for value in ends})

    def perturb(self, value: int, generator: np.random.Generator) -> int:
        factor = _factor(generator)
        moved = round(min(max(value * factor, self.low), self.high))
        if moved == value:
            moved += 1 if (factor > 1) == (value >= 0) else -1
        return min(max(moved, self.low), self.high)


@dataclass(frozen=True)
class Ordinal(Domain):
    """One of several ordered numbers, such as batch sizes; neighbours behave alike.

    Raises
    ------
    ValueError : fewer than two values, or values not strictly increasing.
    TypeError : a value that is not a number.
    """

    values: tuple[float, ...]

    def __init__(self, values: Sequence[float]) -> None:
        given = check_list("values", values, of="numbers, such as Ordinal([16, 32, 64])")
        object.__setattr__(self, "values", tuple(map(to_python, given)))
        for value in self.values:
            if not is_number(value):
                raise InvalidArgument(
                    f"Ordinal(values={shown(given)}): {shown(value)} is not a number; use "
                    "Categorical"
                )
        if len(self.values) < 2:
            raise ValueError(f"{self} needs at least two values; give a constant as a plain value")
        if any(b <= a for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ValueError(f"{self}: values must increase strictly")

    @classmethod
    def steps(cls, low: float, high: float, step: float) -> Ordinal:
        """Return the domain of ``low``, ``low + step``, ... up to ``high``.

        The values are ints if ``low`` and ``step`` are, else floats of twelve digits.

        Raises
        ------
        ValueError : a step that is not positive, fewer than two values, or more than 1,000: give a
            range then, and round in the trainable.

        Examples
        --------
        >>> Ordinal.steps(0.1, 0.5, 0.2)
        Ordinal(values=(0.1, 0.3, 0.5))
        """
        given = f"Ordinal.steps({shown(low)}, {shown(high)}, {shown(step)})"
        if not (is_number(low) and is_number(high) and is_number(step) and step > 0):
            raise InvalidArgument(f"{given} must have finite bounds and a step above 0")
        n = n_steps(low, high, step)
        if not 2 <= n <= MOST_STEPS:
            raise InvalidArgument(f"{given} must have between 2 and {MOST_STEPS} values")
        values = [low + k * step for k in range(n)]
        whole = isinstance(to_python(low), int) and isinstance(to_python(step), int)
        return cls(values if whole else [float(f"{value:.12g}") for value in values])

    def from_unit(self, u: float) -> float:
        return self.values[_slot(u, len(self.values))]

    def to_unit(self, value: float) -> float:
        return (self.values.index(value) + 0.5) / len(self.values)

    def contains(self, value: Any) -> bool:
        return is_number(value) and value in self.values

    def grid(self, n: int) -> list[float]:
        return [self.values[i] for i in _pick(n, len(self.values))]

    def perturb(self, value: float, generator: np.random.Generator) -> float:
        place = self.values.index(value) + (1 if generator.random() < 0.5 else -1)
        return self.values[min(max(place, 0), len(self.values) - 1)]


@dataclass(frozen=True)
class Categorical(Domain):
    """One of several unordered values: str, int, float, bool, None, tuples of these.

    Raises
    ------
    ValueError : fewer than two values, or a repeated one.
    TypeError : a value that a journal cannot hold. Use a name, and look it up in the trainable.
    """

    values: tuple[Any, ...]

    def __init__(self, values: Sequence[Any]) -> None:
        given = check_list("values", values, of="values, such as Categorical(['sgd', 'adam'])")
        object.__setattr__(self, "values", tuple(map(to_python, given)))
        for value in self.values:
            if reason := why_not_plain(value):
                raise InvalidArgument(
                    f"Categorical: values has {shown(value)}, which {reason}. Give names and look "
                    "the objects up in the trainable"
                )
        if len(self.values) < 2:
            raise ValueError(f"{self} needs at least two values; give a constant as a plain value")
        if len({typed(value) for value in self.values}) < len(self.values):
            raise ValueError(f"{self}: a value is given twice")

    @cached_property
    def _places(self) -> dict[Any, int]:
        return {typed(value): place for place, value in enumerate(self.values)}

    def _place(self, value: Any) -> int:
        try:
            return self._places[typed(to_python(value))]
        except (KeyError, TypeError):
            raise ValueError(f"{shown(value)} is not in {self}") from None

    def from_unit(self, u: float) -> Any:
        return self.values[_slot(u, len(self.values))]

    def to_unit(self, value: Any) -> float:
        return (self._place(value) + 0.5) / len(self.values)

    def contains(self, value: Any) -> bool:
        value = to_python(value)
        return not why_not_plain(value) and typed(value) in self._places

    def grid(self, n: int) -> list[Any]:
        return [self.values[i] for i in _pick(n, len(self.values))]

    def perturb(self, value: Any, generator: np.random.Generator) -> Any:
        here = self._place(value)
        other = int(generator.integers(len(self.values) - 1))
        return self.values[other + (other >= here)]


def n_steps(low: float, high: float, step: float) -> int:
    """Return how many of ``low``, ``low + step``, ... are not above ``high``."""
    return math.floor((high - low) / step + 1e-9) + 1


def n_values(domain: Domain) -> int:
    """Return the number of a domain's values; 0: uncountable."""
    match domain:
        case Integer(low=low, high=high):
            return high - low + 1
        case Ordinal(values=values) | Categorical(values=values):
            return len(values)
    return 0


def _factor(generator: np.random.Generator) -> float:
    return 1.2 if generator.random() < 0.5 else 0.8


def _stretch(u: float, low: float, high: float, log: bool) -> float:
    if u <= 0 or u >= 1:  # the bounds themselves: exp(log(x)) is not always x
        return float(low if u <= 0 else high)
    if log:
        return math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    return low + u * (high - low)


def _shrink(value: float, low: float, high: float, log: bool) -> float:
    if log and (width := math.log(high) - math.log(low)):  # 0: their logarithms are one float
        return (math.log(value) - math.log(low)) / width
    return (value - low) / (high - low)


def _spread(n: int) -> Any:
    return np.linspace(0.0, 1.0, n) if n > 1 else np.array([0.5])


def _slot(u: float, n: int) -> int:
    return min(int(u * n), n - 1)


def _pick(n: int, available: int) -> list[int]:
    if available <= n:
        return list(range(available))
    return sorted({round(float(u) * (available - 1)) for u in _spread(n)})


def own_value(domain: Domain, value: Any) -> Any:
    """Return the domain's own object for an equal value: 40 for 40.0 in an Integer.

    Raises
    ------
    ValueError : the domain has no such value.
    """
    plain = _tuples(to_python(value))
    match domain:
        case Real(low=low, high=high) if is_number(plain):
            kind = type(value) if isinstance(value, np.floating) else float
            if kind(low) <= kind(value) <= kind(high):  # bounds as exact as the value
                return min(max(float(plain), float(low)), float(high))
        case Integer(low=low, high=high) if is_number(plain) and plain == int(plain):
            if low <= plain <= high:
                return int(plain)
        case Ordinal(values=values) if is_number(plain) and plain in values:
            return values[values.index(plain)]
        case Categorical(values=values):
            if domain.contains(plain):
                return domain.from_unit(domain.to_unit(plain))
            if len(equal := [each for each in values if is_same(plain, each)]) == 1:
                return equal[0]
        case Real() | Integer() | Ordinal():
            pass
        case _ if domain.contains(plain):  # of a class of its own, perhaps without an inverse
            return plain
    raise ValueError(f"{shown(value)} is not in {domain}")


def is_same(one: Any, other: Any) -> bool:
    """Return True if two plain values are equal, whatever kind of number each is."""
    one, other = _tuples(to_python(one)), _tuples(to_python(other))
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return type(one) is type(other) and one == other if not is_number(one) else one == other


def _tuples(value: Any) -> Any:
    """Convert lists to tuples: JSON has no tuples."""
    return tuple(map(_tuples, map(to_python, value))) if isinstance(value, list | tuple) else value


def _check_bounds(domain: Real | Integer) -> None:
    """Check a domain's bounds and its ``log``, and keep them as Python's own."""
    kind = type(domain).__name__
    low, high = to_python(domain.low), to_python(domain.high)
    log = check_bool(f"{kind}: log", domain.log)
    vars(domain).update(low=low, high=high, log=log)  # a frozen object cannot be assigned to
    if not (is_number(low) and is_number(high) and is_number(high - low)):
        raise ValueError(
            f"{kind}: low={shown(low)} and high={shown(high)} must be finite numbers, and so must "
            "their distance"
        )
    if low == high:
        raise ValueError(f"{domain}: low equals high; give a constant as a plain value")
    if low > high:
        raise ValueError(f"{domain}: low={low!r} is above high={high!r}; swap them")
    if log and low <= 0:
        raise ValueError(f"{domain}: log=True needs low above 0, got {low!r}")
