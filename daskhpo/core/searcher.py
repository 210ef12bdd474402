"""Interface of searchers, which propose configurations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from daskhpo.core.arguments import check_each, check_list, check_mapping
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import to_python
from daskhpo.core.space import Space
from daskhpo.core.types import Choose, Config, Report, Trial, TrialId


class Searcher(ABC):
    """Base class of searchers, which propose configurations.

    A searcher may learn from every report. The coordinator works on its own copy, so one object
    may describe many studies. Losses are minimised and finite.

    Attributes
    ----------
    finite : True if it runs out of configurations; a study then needs no limit.
    slow : True if a suggestion may take longer than a free slot should wait; a study then
        prefetches suggestions in another thread than its coordinator's.
    trusted : True if it has a model whose scores a scheduler may compare by :meth:`choose`.
    """

    finite = False
    slow = False
    trusted = False

    @abstractmethod
    def setup(self, space: Space, seed: int) -> None:
        """Set up for a search space and a seed; called once, before any other method.

        Raises
        ------
        ValueError : this searcher cannot search the space.
        """

    @abstractmethod
    def suggest(self, trial: TrialId) -> Config | None:
        """Return a configuration for a new trial; None: there is none left.

        Trials are numbered from 0.
        """

    def explore(self, trial: TrialId) -> Config | None:
        """Return a configuration that no model chose, for the scheduler's random share.

        The default is :meth:`suggest`.
        """
        return self.suggest(trial)

    def choose(self, trial: TrialId, choice: Choose) -> Config | TrialId | None:
        """Return a configuration for a new trial, or the paused trial to resume instead.

        Repeated calls return the same answer, until a trial starts or reports. The default is
        :meth:`suggest`.
        """
        return self.suggest(trial)

    def chances(self, trials: Sequence[Trial], choice: Choose) -> Sequence[float]:
        """Return the chances of paused trials to be resumed later, from 0 to 1.

        Where checkpoints exceed their budget, those of trials with small chances are deleted
        first. ``choice`` is the last one. The default is 1 for all.
        """
        return [1.0] * len(trials)

    def lesson(self) -> Callable[[], Any] | None:
        """Return what the model has to compute when there is enough new data; else None.

        It may run in another thread, while other methods are called. Its result is given to
        :meth:`learn`.
        """
        return None

    def learn(self, result: Any) -> None:
        """Take over the result of a :meth:`lesson`; it may change :attr:`trusted`."""

    def on_start(self, trial: TrialId, config: Config) -> None:
        """Note that a trial began with this configuration.

        It was suggested here or, in a resumed study, by an earlier session's searcher, whose model
        does not run again.
        """

    def observe(self, trial: Trial, report: Report) -> None:
        """Learn from a report at the end of a segment."""

    def on_end(self, trial: Trial) -> None:
        """Note that a trial ended; ``trial.status`` says how.

        A segment in which a trial fails is not observed.
        """

    def close(self) -> None:
        """Release processes and connections; no method is called afterwards."""


def check_points(points: Any) -> list[dict[str, Any]] | None:
    """Return a searcher's ``points_to_evaluate``; `setup` checks their values.

    Raises
    ------
    InvalidArgument : not a list of configurations.
    """
    if points is None:
        return None
    name, of = "points_to_evaluate", "dicts, one for each trial"
    given = check_each(name, check_list(name, points, of=of), check_mapping)
    return [{key: to_python(value) for key, value in point.items()} for point in given]


def checked_points(points: Sequence[Config] | None, space: Space) -> list[dict[str, Any]]:
    """Return the user's first points, each completed and checked against the space.

    Raises
    ------
    ValueError : a point that is not in the space.
    """
    completed = []
    for number, point in enumerate(check_points(points) or ()):
        try:
            completed.append(space.complete(point))
        except ValueError as error:
            raise InvalidArgument(f"points_to_evaluate[{number}]: {error}") from None
    return completed


def described_points(points: Sequence[Config] | None) -> list[str]:
    """Return the argument as text for a searcher's ``repr``, which a study records."""
    return [f"points_to_evaluate={[dict(point) for point in points]!r}"] if points else []
