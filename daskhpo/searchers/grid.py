"""Grid search."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from daskhpo.core.arguments import check_each, check_int, check_list, check_mapping, check_text
from daskhpo.core.domains import Categorical, Ordinal
from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher, check_points, checked_points, described_points
from daskhpo.core.space import Space
from daskhpo.core.types import Config, TrialId


class GridSearch(Searcher):
    """A full grid, each combination once; the last hyperparameter varies fastest.

    Parameters
    ----------
    num_points : values per ``Real`` or ``Integer``: one number for all, or one per name (names
        that are left out get 5). They are evenly spread on the domain's scale, bounds included.
        ``Ordinal`` and ``Categorical`` contribute all values, unless named here.
    sampled : hyperparameters that are no part of the grid: each trial draws them at random.
    repeats : number of times that the grid is tried, one after another.
    points_to_evaluate : configurations to try first, in this order; the grid skips them.

    Raises
    ------
    ValueError : a count is below 1, or (in ``setup``) a name is not in the space.
    """

    finite = True

    def __init__(
        self,
        num_points: int | Mapping[str, int] = 5,
        points_to_evaluate: Sequence[Config] | None = None,
        *,
        sampled: Sequence[str] = (),
        repeats: int = 1,
    ) -> None:
        self.num_points: int | dict[str, int]
        if isinstance(num_points, Mapping):
            self.num_points = {
                name: check_int(f"num_points[{name!r}]", count, at_least=1)
                for name, count in check_mapping("num_points", num_points).items()
            }
        else:
            self.num_points = check_int("num_points", num_points, at_least=1)
        self.points_to_evaluate = check_points(points_to_evaluate)
        of = "names of hyperparameters, such as ['lr']"
        self.sampled = check_each("sampled", check_list("sampled", sampled, of=of), check_text)
        self.repeats = check_int("repeats", repeats, at_least=1)

    def __repr__(self) -> str:
        options = [f"num_points={self.num_points!r}", *described_points(self.points_to_evaluate)]
        options += [f"sampled={self.sampled!r}"] if self.sampled else []
        options += [f"repeats={self.repeats}"] if self.repeats > 1 else []
        return f"GridSearch({', '.join(options)})"

    def setup(self, space: Space, seed: int) -> None:
        named = self.num_points if isinstance(self.num_points, Mapping) else {}
        unknown = [name for name in named if name not in space.domains]
        if unknown:
            raise ValueError(
                f"num_points names {unknown}; names with a domain are {list(space.domains)}"
            )
        unknown = [name for name in self.sampled if name not in space.domains]
        if unknown:
            raise ValueError(
                f"sampled names {unknown}; names with a domain are {list(space.domains)}"
            )
        self._space, self._seed = space, seed
        self._points = checked_points(self.points_to_evaluate, space)
        self._axes: dict[str, list[Any]] = {}
        for name, domain in space.domains.items():
            if name in self.sampled:
                continue
            match domain:
                case Ordinal(values=values) | Categorical(values=values):
                    count = len(values)
                case _:
                    count = 5 if isinstance(self.num_points, Mapping) else self.num_points
            self._axes[name] = domain.grid(named.get(name, count))
        self._skipped = sorted(
            {place for point in self._points if (place := self._place(point)) is not None}
        )
        if self.sampled:
            self._skipped = []

    def __len__(self) -> int:
        """Total number of trials, at most Python's longest; known after ``setup``."""
        return min(self._n_trials, sys.maxsize)

    @property
    def _n_trials(self) -> int:
        return len(self._points) + self.repeats * self._n_grid - len(self._skipped)

    @property
    def _n_grid(self) -> int:
        return math.prod(len(axis) for axis in self._axes.values())

    def suggest(self, trial: TrialId) -> dict[str, Any] | None:
        if trial < len(self._points):
            return dict(self._points[trial])  # a copy, which the caller may change
        if trial >= self._n_trials:
            return None
        place = trial - len(self._points)
        for skipped in self._skipped:  # sorted: each one up to `place` shifts it by one
            if skipped <= place:
                place += 1
        drawn: dict[str, Any] = {}
        if self.sampled:
            free = self._space.sample(rng(self._seed, "suggest", trial))
            drawn = {name: free[name] for name in self.sampled}
        place %= self._n_grid
        for name, axis in reversed(self._axes.items()):
            place, index = divmod(place, len(axis))
            drawn[name] = axis[index]
        return self._space.complete(drawn)

    def _place(self, point: Config) -> int | None:
        """Index of a point in the grid's order; None: it is not on the grid."""
        place = 0
        for name, axis in self._axes.items():
            to_unit = self._space.domains[name].to_unit  # distinguishes 1 and True
            units = [to_unit(value) for value in axis]
            if (unit := to_unit(point[name])) not in units:
                return None
            place = place * len(axis) + units.index(unit)
        return place
