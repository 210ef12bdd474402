"""Search spaces: the domain or the constant of each hyperparameter."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from daskhpo.core.arguments import check_mapping, shown
from daskhpo.core.domains import Domain, is_same, own_value
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import is_number, to_python, why_not_plain
from daskhpo.core.types import Config


class Space(Mapping[str, Any]):
    """A search space: the domain or the constant of each hyperparameter, checked once.

    The order of the domains is the order of coordinates in the unit cube.

    Parameters
    ----------
    space : mapping of names to a :class:`Domain`, or to a plain value, which is a constant.

    Raises
    ------
    TypeError, ValueError : an empty space, a name that is empty or not a string, or a value that
        is neither.
    """

    def __init__(self, space: Mapping[str, Any]) -> None:
        given = check_mapping("space", space, of="names to domains, such as {'lr': Real(0, 1)}")
        if not given:
            raise ValueError("space={} is empty: give at least one hyperparameter")
        for name, item in given.items():
            given[name] = item = to_python(item)
            if not isinstance(item, Domain) and (reason := why_not_plain(item)):
                raise InvalidArgument(
                    f"space[{name!r}]={shown(item)} {reason}. {_instead(name, item)}"
                )
            if _looks_like_a_range(item):
                low, high = item
                warnings.warn(
                    f"space[{name!r}]={item!r} is a constant, the same tuple in every trial: to "
                    f"search between its numbers, give Real({low!r}, {high!r})",
                    stacklevel=3,  # who makes the study
                )
        self._hold(given)

    def _hold(self, items: dict[str, Any]) -> None:
        self._items = items
        self.domains: dict[str, Domain] = {
            name: item for name, item in items.items() if isinstance(item, Domain)
        }
        self.constants: dict[str, Any] = {
            name: item for name, item in items.items() if name not in self.domains
        }

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Space({self._items!r})"

    def ordered(self, names: Iterable[str]) -> Space:
        """Return the same space with its names in this order; it must be the same names."""
        other = Space.__new__(Space)
        other._hold({name: self._items[name] for name in names})
        return other

    def sample(self, generator: np.random.Generator) -> dict[str, Any]:
        """Draw a configuration; its keys are in the order of the space."""
        return self.from_unit(generator.random(len(self.domains)).tolist())

    def from_unit(self, point: Sequence[float]) -> dict[str, Any]:
        """Return the configuration at a point of the unit cube.

        The point has one coordinate per domain, in order.
        """
        config = dict(self._items)  # sets the order and the constants
        for (name, domain), u in zip(self.domains.items(), point, strict=True):
            config[name] = domain.from_unit(u)
        return config

    def to_unit(self, config: Config) -> list[float]:
        """Return the point in the unit cube, one coordinate per domain, in order."""
        return [domain.to_unit(config[name]) for name, domain in self.domains.items()]

    def complete(self, config: Config) -> dict[str, Any]:
        """Return a checked configuration with the space's constants, in its order.

        Values are compared, not types, and become those of the space: 40 for ``40.0`` or
        ``np.int64(40)``.

        Raises
        ------
        ValueError : a missing or unknown name, a value outside its domain, or a changed constant.
        """
        unknown = [name for name in config if name not in self._items]
        missing = [name for name in self.domains if name not in config]
        if unknown or missing:
            raise ValueError(
                f"configuration {dict(config)!r}: unknown names {unknown}, missing names {missing};"
                f" the space has {list(self._items)}"
            )
        own = {}
        for name, domain in self.domains.items():
            try:
                own[name] = own_value(domain, config[name])
            except ValueError:
                raise ValueError(f"{name}={shown(config[name])} is not in {domain}") from None
        for name, constant in self.constants.items():
            if name in config and not is_same(config[name], constant):
                raise ValueError(
                    f"{name}={shown(config[name])} but the space fixes it at {constant!r}"
                )
        return {name: own.get(name, self._items[name]) for name in self._items}


def _instead(name: str, item: Any) -> str:
    """Return what a user may have meant by something that no space can hold."""
    if isinstance(item, list):
        return f"To try each of its values, give Categorical({shown(item)}) or Ordinal"
    if isinstance(item, Mapping):
        return f"A space is flat: give each of its names, such as {name + '.x'!r}, a domain"
    if isinstance(item, type) and issubclass(item, Domain):
        return f"Give an object, such as {item.__name__}(…), not the class"
    return "A domain is a Real, Integer, Ordinal or Categorical"


def _looks_like_a_range(item: Any) -> bool:
    if not isinstance(item, tuple) or len(item) != 2 or not all(map(is_number, item)):
        return False
    return bool(item[0] < item[1])
