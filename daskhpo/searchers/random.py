"""Random search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher, check_points, checked_points, described_points
from daskhpo.core.space import Space
from daskhpo.core.types import Config, TrialId


class RandomSearch(Searcher):
    """Independent draws, uniform on each domain's scale; a strong baseline.

    The configuration of trial ``n`` depends on the seed and ``n`` only.

    Parameters
    ----------
    points_to_evaluate : configurations to try first, in this order.

    References
    ----------
    Bergstra and Bengio 2012, *Random Search for Hyper-Parameter Optimization*.
    """

    def __init__(self, points_to_evaluate: Sequence[Config] | None = None) -> None:
        self.points_to_evaluate = check_points(points_to_evaluate)

    def __repr__(self) -> str:
        return f"RandomSearch({', '.join(described_points(self.points_to_evaluate))})"

    def setup(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._points = checked_points(self.points_to_evaluate, space)

    def suggest(self, trial: TrialId) -> dict[str, Any]:
        if trial < len(self._points):
            return dict(self._points[trial])  # a copy, which the caller may change
        return self._space.sample(rng(self._seed, "suggest", trial))
