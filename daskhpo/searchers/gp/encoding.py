"""Configurations as vectors of numbers for the model's kernel."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from daskhpo.core.space import Categorical, Integer, Ordinal, Real, Space, n_values
from daskhpo.core.types import Array, Config


class Encoding:
    """The unit cube of a space, and the features of its points for the model.

    Points of the cube have one coordinate per domain, in the order of the space. The features are:

    - ``Real``: the coordinate, on the domain's linear or logarithmic scale.
    - ``Integer``: the coordinate of the rounded value.
    - ``Ordinal``: the value, scaled so that the smallest is 0 and the largest 1.
    - ``Categorical``: one column per value, so that different values have distance 1.

    Values are rounded here, before the kernel, so that the model is flat around an integer
    (Garrido-Merchán and Hernández-Lobato 2020, Sec. 3).

    Attributes
    ----------
    owner : for each feature, the index of its domain; shape (n_features,).
    first_column : index of each domain's first feature (a real's only one); shape (n_domains,).
    sizes : number of values of each domain; 0: uncountable; shape (n_domains,).
    ordered : True for domains in which near values behave alike; shape (n_domains,).
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
        """Number of configurations; inf if a domain is real."""
        return math.inf if (self.sizes == 0).any() else math.prod(int(n) for n in self.sizes)

    def features(self, units: Array) -> Array:
        """Convert points of the cube to features; (n, n_domains) to (n, n_features)."""
        columns = [_columns(domain, units[:, i : i + 1]) for i, domain in enumerate(self._domains)]
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(units), 0))

    def places(self, units: Array) -> Array:
        """Return the index of each coordinate's value, 0 for reals; (n, n_domains)."""
        columns = [_place(domain, units[:, i]) for i, domain in enumerate(self._domains)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(units), 0), np.int64)

    def unit_at(self, domain: int, place: int) -> float:
        """Return a coordinate at which a countable domain has its value number ``place``."""
        match self._domains[domain]:
            case Integer(low=low) as integer:
                return integer.to_unit(low + place)
            case _:
                return (place + 0.5) / int(self.sizes[domain])

    def grid(self) -> Array:
        """Return one point per configuration of a finite space, (n_configs, n_domains)."""
        axes = [
            [self.unit_at(domain, place) for place in range(int(size))]
            for domain, size in enumerate(self.sizes)
        ]
        return np.array(list(itertools.product(*axes)))

    def unit(self, config: Config) -> list[float]:
        """Convert a configuration to a point of the cube."""
        return self.space.to_unit(config)

    def config(self, unit: Array) -> dict[str, Any]:
        """Convert a point of the cube to a configuration."""
        return self.space.from_unit(unit.tolist())


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
