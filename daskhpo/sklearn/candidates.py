"""Candidates as scikit-learn draws them, and the space of a study that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daskhpo.core.arguments import shown
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import is_number, short, to_python, typed, why_not_plain
from daskhpo.core.types import Config

CANDIDATE = "candidate"  # the only name of a space whose candidates have different parameters


@dataclass(frozen=True)
class Candidates:
    """The parameters that a search may try.

    Attributes
    ----------
    space : domain, or constant, of each parameter.
    points : configurations of the candidates that were drawn; empty for a searcher that proposes.
    objects : for each parameter, its values by `typed` key of what the space has in their place.
    by_number : parameters of each candidate, if the space has only their numbers.
    """

    space: dict[str, Any]
    points: tuple[dict[str, Any], ...]
    objects: dict[str, dict[Any, Any]]
    by_number: tuple[dict[str, Any], ...] = ()

    def params(self, config: Config) -> dict[str, Any]:
        """Return the estimator's parameters of a configuration, as the user gave them."""
        if self.by_number:
            return dict(self.by_number[config[CANDIDATE]])
        return {
            name: self.objects.get(name, {}).get(typed(config[name]), config[name])
            for name in self.space
        }


def drawn(parameters: Any, candidates: Sequence[Mapping[str, Any]]) -> Candidates:
    """Return the candidates that were drawn from ``parameters``.

    A distribution without a domain of the same kind, such as a normal one, becomes an ordinal
    domain of the values that were drawn from it.
    """
    several = not isinstance(parameters, Mapping) and len(parameters) > 1
    if several:
        numbers = range(len(candidates))
        domain: Any = Integer(0, len(candidates) - 1) if len(candidates) > 1 else 0
        points = tuple({CANDIDATE: number} for number in numbers)
        return Candidates({CANDIDATE: domain}, points, {}, tuple(map(dict, candidates)))
    distributions = parameters if isinstance(parameters, Mapping) else parameters[0]
    space: dict[str, Any] = {}
    objects: dict[str, dict[Any, Any]] = {}
    for name, distribution in distributions.items():
        values = [candidate[name] for candidate in candidates]
        if (domain := _translated(distribution)) is None or not all(map(domain.contains, values)):
            listed = values if hasattr(distribution, "rvs") else [*distribution]
            domain, objects[name] = _of_values(listed)
        space[name] = domain
    points = tuple(
        {name: _place(value, objects.get(name)) for name, value in candidate.items()}
        for candidate in candidates
    )
    return Candidates(space, points, objects)


def proposed(parameters: Any) -> Candidates:
    """Return the space in which a searcher proposes candidates.

    Raises
    ------
    InvalidArgument : a distribution has no domain of its kind.
    """
    if not isinstance(parameters, Mapping):
        if len(parameters) > 1:
            raise InvalidArgument(
                "a list of several parameter dicts cannot be searched by searcher=: give one dict, "
                "or no searcher"
            )
        (parameters,) = parameters
    space: dict[str, Any] = {}
    objects: dict[str, dict[Any, Any]] = {}
    for name, distribution in parameters.items():
        domain = _translated(distribution)
        if domain is None and hasattr(distribution, "rvs"):
            kind = getattr(getattr(distribution, "dist", None), "name", type(distribution).__name__)
            raise InvalidArgument(
                f"parameter {name!r} has scipy's distribution {kind!r}, which searcher= cannot "
                "search: give uniform, loguniform, randint or a list of values, or no searcher"
            )
        if domain is None:
            domain, objects[name] = _of_values([*distribution])
        space[name] = domain
    return Candidates(space, (), objects)


def _translated(distribution: Any) -> Domain | None:
    """Return the domain with a distribution's values and their probabilities, or None."""
    if isinstance(distribution, Domain):
        return distribution
    kind = getattr(getattr(distribution, "dist", None), "name", None)
    if kind not in ("uniform", "loguniform", "reciprocal", "randint"):
        return None
    low, high = map(to_python, distribution.support())
    if kind == "randint":
        return Integer(int(low), int(high)) if low < high else None
    return Real(float(low), float(high), log=kind != "uniform")


def _of_values(values: Sequence[Any]) -> tuple[Any, dict[Any, Any]]:
    """Return a domain or constant for a list, and the object of each value."""
    if any(why_not_plain(to_python(value)) for value in values):
        labelled = {f"{number}: {short(value)}": value for number, value in enumerate(values)}
        pairs = [*labelled.items()]
    else:
        pairs = [(to_python(value), value) for value in values]
    objects: dict[Any, Any] = {}
    for plain, value in pairs:
        objects.setdefault(typed(plain), value)
    plains = list({typed(plain): plain for plain, _ in pairs}.values())
    if len(plains) == 1:
        return plains[0], objects
    numbers: list[Any] = plains
    if all(map(is_number, plains)) and len(set(numbers)) == len(numbers):
        return Ordinal(sorted(numbers)), objects
    return Categorical(plains), objects


def _place(value: Any, objects: dict[Any, Any] | None) -> Any:
    """Return what the space has in the place of a candidate's value."""
    plain = to_python(value)
    if objects is None or (not why_not_plain(plain) and typed(plain) in objects):
        return plain
    for (_, label), other in objects.items():
        if other is value or (type(other) is type(value) and repr(other) == repr(value)):
            return label
    raise InvalidArgument(f"{shown(value)} is not among the values that were given")
