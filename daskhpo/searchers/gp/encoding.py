"""Configurations as rows of numbers that a kernel can compare."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from daskhpo.core.space import Categorical, Integer, Ordinal, Real, Space
from daskhpo.core.types import Array, Config


class Encoding:
    """The unit cube of a space, and the features in which a model sees it.

    Points of the cube have one coordinate per domain, in the order of the space. Their features
    are: a real's coordinate (on its own, possibly logarithmic, scale); an integer's, rounded;
    an ordered number's value, its smallest 0 and its largest 1; for a category one column per
    value, so that two different ones are at distance 1.

    Rounding happens here, before the kernel, so a model knows that its surface is flat around an
    integer (Garrido-Merchán and Hernández-Lobato 2020, Sec. 3).

    Attributes
    ----------
    owner : for each feature, the number of the domain that it belongs to; shape (n_features,).
    first_column : the first feature of each domain, for a real its coordinate; (n_domains,).
    sizes : how many values each domain has; 0: uncountably many; shape (n_domains,).
    ordered : whether near values of a domain are alike; shape (n_domains,).
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._domains = list(space.domains.values())
        self.owner = np.repeat(np.arange(len(self._domains)), [_width(d) for d in self._domains])
        self.first_column = np.searchsorted(self.owner, np.arange(len(self._domains)))
        self.sizes = np.array([n_values(domain) for domain in self._domains], dtype=np.int64)
        self.ordered = np.array([not isinstance(d, Categorical) for d in self._domains], bool)

    @property
    def n_configs(self) -> float:
        """How many configurations there are; inf with a real among the domains."""
        return math.inf if (self.sizes == 0).any() else math.prod(int(n) for n in self.sizes)

    def features(self, units: Array) -> Array:
        """Features of points of the cube, rounded; (n, n_domains) to (n, n_features)."""
        columns = [_columns(domain, units[:, i : i + 1]) for i, domain in enumerate(self._domains)]
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(units), 0))

    def places(self, units: Array) -> Array:
        """Number of the value at each coordinate, 0 for reals; (n, n_domains) of ints."""
        columns = [_place(domain, units[:, i]) for i, domain in enumerate(self._domains)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(units), 0), np.int64)

    def unit_at(self, domain: int, place: int) -> float:
        """A coordinate at which a countable domain has its value of that number."""
        match self._domains[domain]:
            case Integer(low=low) as integer:
                return integer.to_unit(low + place)
            case _:
                return (place + 0.5) / int(self.sizes[domain])

    def grid(self) -> Array:
        """A point for each configuration of a finite space, (n_configs, n_domains)."""
        axes = [
            [self.unit_at(domain, place) for place in range(int(size))]
            for domain, size in enumerate(self.sizes)
        ]
        return np.array(list(itertools.product(*axes)))

    def unit(self, config: Config) -> list[float]:
        """Point of the cube for a configuration."""
        return self.space.to_unit(config)

    def config(self, unit: Array) -> dict[str, Any]:
        """Configuration at a point of the cube."""
        return self.space.from_unit(unit.tolist())


def n_values(domain: Any) -> int:
    """How many values a domain has; 0: uncountably many."""
    match domain:
        case Integer(low=low, high=high):
            return high - low + 1
        case Ordinal(values=values) | Categorical(values=values):
            return len(values)
        case _:
            return 0


def _width(domain: Any) -> int:
    return len(domain.values) if isinstance(domain, Categorical) else 1


def _place(domain: Any, u: Array) -> Array:
    match domain:
        case Real():
            return np.zeros(len(u), np.int64)
        case Integer(low=low, high=high, log=log):
            a, b = low - 0.5, high + 0.5
            value = a * (b / a) ** u if log else a + u * (b - a)
            return np.clip(np.floor(value + 0.5), low, high).astype(np.int64) - low
        case _:
            n = len(domain.values)
            return np.minimum((u * n).astype(np.int64), n - 1)


def _columns(domain: Any, u: Array) -> Array:
    match domain:
        case Real():
            return u
        case Integer(low=low, high=high, log=log):
            value = low + _place(domain, u[:, 0])
            a, b = low - 0.5, high + 0.5
            scaled = np.log(value / a) / math.log(b / a) if log else (value - a) / (b - a)
            return scaled[:, None]
        case Ordinal(values=values):
            scale = (np.array(values) - values[0]) / (values[-1] - values[0])
            return scale[_place(domain, u[:, 0])][:, None]
        case _:
            return np.eye(len(domain.values))[_place(domain, u[:, 0])] / math.sqrt(2.0)
