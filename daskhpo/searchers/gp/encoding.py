"""Configurations as vectors of numbers for the model's kernel."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from daskhpo.core.domains import Categorical, Integer, Ordinal, Real, n_values
from daskhpo.core.space import Space
from daskhpo.core.types import Array, Config


class Encoding:
    """The unit cube of a space, and the features of its points for the model.

    Points of the cube have one coordinate per domain, in the order of the space, and as many
    features. None takes memory in the size of its domain. The features are:

    - ``Real``: the coordinate, on the domain's linear or logarithmic scale.
    - ``Integer``: the coordinate of the rounded value.
    - ``Ordinal``: the value, scaled so that the smallest is 0 and the largest 1.
    - ``Categorical``: the number of the value; for the model, different ones are 1 apart.

    Values are rounded here, before the kernel, so that the model is flat around an integer
    (Garrido-Merchán and Hernández-Lobato 2020, Sec. 3).

    Attributes
    ----------
    sizes : number of values of each domain, as floats; 0: uncountable; shape (n_domains,).
    ordered : True for domains in which near values behave alike; shape (n_domains,).
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._domains = list(space.domains.values())
        self.sizes = np.array([float(n_values(domain)) for domain in self._domains])
        self.ordered = np.array([not isinstance(d, Categorical) for d in self._domains], bool)

    @property
    def n_configs(self) -> float:
        """Number of configurations; inf if a domain is real."""
        return math.inf if (self.sizes == 0).any() else math.prod(self.sizes.tolist())

    def features(self, units: Array) -> Array:
        """Convert points of the cube to features; both (n, n_domains)."""
        columns = [_columns(domain, units[:, i : i + 1]) for i, domain in enumerate(self._domains)]
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(units), 0))

    def places(self, units: Array) -> Array:
        """Return the index of each coordinate's value, 0 for reals; (n, n_domains)."""
        columns = [_place(domain, units[:, i]) for i, domain in enumerate(self._domains)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(units), 0))

    def unit_at(self, domain: int, place: int) -> float:
        """Return a coordinate at which a countable domain has its value number ``place``."""
        match self._domains[domain]:
            case Integer(low=low) as integer:
                return integer.to_unit(low + place)
            case _:
                return (place + 0.5) / float(self.sizes[domain])

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


def _place(domain: Any, u: Array) -> Array:
    match domain:
        case Real():
            return np.zeros(len(u))
        case Integer(low=low, high=high, log=log):
            a, b = low - 0.5, high + 0.5
            value = a * (b / a) ** u if log else a + u * (b - a)
            return np.clip(np.floor(value + 0.5), low, high) - low
        case _:
            n = len(domain.values)
            place: Array = np.minimum(np.floor(u * n), n - 1.0)
            return place


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
            chosen = np.array([values[int(place)] for place in _place(domain, u[:, 0])])
            scaled = (chosen - values[0]) / (values[-1] - values[0])
            return scaled[:, None]
        case _:
            return _place(domain, u[:, 0])[:, None]
