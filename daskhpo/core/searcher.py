"""The interface of a searcher: which configuration next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from daskhpo.core.space import Space
from daskhpo.core.types import Config, Report, Trial, TrialId


class Searcher(ABC):
    """Proposes configurations, and may learn from every report.

    The coordinator works on a copy of its own, so one object may describe many studies. Losses
    are minimised and finite.

    Attributes
    ----------
    finite : whether it runs out of configurations by itself, so that a study needs no limit.
    slow : whether to suggest may take longer than a free slot should wait; a study then has
        suggestions prepared ahead, beside its coordinator.
    """

    finite = False
    slow = False

    @abstractmethod
    def setup(self, space: Space, seed: int) -> None:
        """Learn where to search; called once, before anything else.

        Raises
        ------
        ValueError : the space is not one this searcher can search.
        """

    @abstractmethod
    def suggest(self, trial: TrialId) -> Config | None:
        """Configuration for a new trial, or None when there is none left. Trials count from 0."""

    def on_start(self, trial: TrialId, config: Config) -> None:
        """The trial began with this configuration.

        It was suggested here; in a resumed study also by an earlier session's searcher, whose
        model did not run again.
        """

    def observe(self, trial: Trial, report: Report) -> None:
        """Learn from a report at the end of a segment."""

    def on_end(self, trial: Trial) -> None:
        """The trial ended; ``trial.status`` tells how (a failed one taught nothing else)."""

    def close(self) -> None:
        """Let go of processes and connections; nothing is asked or told any more."""


def checked_points(points: Sequence[Config] | None, space: Space) -> list[dict[str, Any]]:
    """The user's points to evaluate first, each completed and checked against the space.

    Raises
    ------
    TypeError : not a list of configurations. ValueError : a point that is not in the space.
    """
    if isinstance(points, Mapping) or any(not isinstance(point, Mapping) for point in points or ()):
        raise TypeError(f"points_to_evaluate={points!r} must be a list of dicts, one per trial")
    return [space.complete(point) for point in points or ()]


def described_points(points: Sequence[Config] | None) -> list[str]:
    """The argument as it stands in a searcher's ``repr``, which a study directory records."""
    return [f"points_to_evaluate={[dict(point) for point in points]!r}"] if points else []
