"""Advice of a searcher to the coordinator, and the lessons of its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from daskhpo.core.searcher import Searcher
from daskhpo.core.types import Choose, Suggestion, Trial, TrialId


class Advisor(Protocol):
    """A source of configurations, and of the verdict on the searcher's model."""

    def suggest(self, trial: TrialId, explore: bool) -> Suggestion | None:
        """Return a configuration for a new trial; None: there is none left."""

    def choose(self, trial: TrialId, choice: Choose) -> Suggestion | TrialId | None:
        """Return a configuration for a new trial, or the paused trial to resume."""

    def chances(self, trials: Sequence[Trial], choice: Choose) -> Sequence[float]:
        """Return the chance of each paused trial that a later choice resumes it."""

    def judge(self, trusted: bool) -> bool:
        """Return whether the model is trusted now; ``trusted``: the last verdict."""

    def add(self, trial: TrialId) -> None:
        """Note that a person chose the configuration of the trial that starts next."""


class SearcherAdvice:
    """The searcher's own advice, however long it takes.

    Parameters
    ----------
    searcher : set up.
    lessons : computes what the searcher's model has to learn.
    """

    def __init__(self, searcher: Searcher, lessons: Lessons | None = None) -> None:
        self._searcher = searcher
        self._lessons = lessons or LessonsNow()

    def suggest(self, trial: TrialId, explore: bool) -> Suggestion | None:
        searcher = self._searcher
        config = searcher.explore(trial) if explore else searcher.suggest(trial)
        return None if config is None else Suggestion(config)

    def choose(self, trial: TrialId, choice: Choose) -> Suggestion | TrialId | None:
        given = self._searcher.choose(trial, choice)
        return given if given is None or isinstance(given, int) else Suggestion(given)

    def chances(self, trials: Sequence[Trial], choice: Choose) -> Sequence[float]:
        return self._searcher.chances(trials, choice)

    def judge(self, trusted: bool) -> bool:
        self._lessons.advance(self._searcher)
        return self._searcher.trusted

    def add(self, trial: TrialId) -> None:
        pass


class Lessons(Protocol):
    """Computes the lessons of a searcher."""

    def advance(self, searcher: Searcher) -> None:
        """Let the searcher learn what has been computed; begin the next lesson."""


class LessonsNow:
    """Lessons that are computed at once."""

    def advance(self, searcher: Searcher) -> None:
        while (lesson := searcher.lesson()) is not None:
            searcher.learn(lesson())


class LessonsInThread:
    """Lessons that are computed one after another in a thread; no slot waits for them.

    Meanwhile the searcher answers with what it learned before. An error of a lesson is raised by
    the next :meth:`advance`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="daskhpo-lesson")
        self._running: Future[Any] | None = None

    def advance(self, searcher: Searcher) -> None:
        if self._running is not None:
            if not self._running.done():
                return
            searcher.learn(self._running.result())
            self._running = None
        lesson: Callable[[], Any] | None = searcher.lesson()
        if lesson is not None:
            self._running = self._pool.submit(lesson)

    def close(self) -> None:
        """End the thread; a lesson in progress is not used."""
        self._pool.shutdown(wait=False, cancel_futures=True)
