"""Lineage of a study: the generations of its trials, and their ancestry."""

from __future__ import annotations

from typing import NamedTuple

from daskhpo.core.events import Exploited, Launched, Record, Suggested
from daskhpo.core.types import Config, TrialId


class Generation(NamedTuple):
    """A stretch of a trial's training, with one configuration.

    A new generation begins with an exploit: the trial takes over a state or changes its
    configuration. It also begins when the trial has to train again from a resource before the
    generation's start, because the state at that start is gone.

    Attributes
    ----------
    number : number of the generation within its study, in order of time.
    start : units of training that its first state held.
    parent : number of the generation that this state came from; None: it began untrained.
    seconds : time of its beginning, in seconds since the study began.
    """

    number: int
    trial: TrialId
    start: int
    config: Config
    parent: int | None
    seconds: float


class Lineage:
    """All generations of a study, from its records.

    Attributes
    ----------
    generations : generations by number.
    current : number of each trial's newest generation.
    """

    def __init__(self) -> None:
        self.generations: list[Generation] = []
        self.current: dict[TrialId, int] = {}

    def apply(self, record: Record) -> None:
        """Process the next record of the study."""
        match record:
            case Suggested(trial, config, _, seconds):
                self._begin(Generation(0, trial, 0, config, None, seconds))
            case Exploited(trial, source, config, resource, seconds):
                parent = self.current[source] if resource else None
                self._begin(Generation(0, trial, resource, config, parent, seconds))
            case Launched(trial, _, resource) if resource < self._generation(trial).start:
                # The state at its start is gone. It continues from an older state of the same
                # ancestry, or untrained.
                generation = self._generation(trial)._replace(
                    start=resource, seconds=record.seconds
                )
                self._begin(generation if resource else generation._replace(parent=None))

    def ancestry(self, number: int, until: int) -> list[tuple[Generation, int]]:
        """Return the generations that led to a state, oldest first, each with its end.

        Parameters
        ----------
        number : number of the state's generation.
        until : units of training that the state holds.
        """
        generations: list[tuple[Generation, int]] = []
        parent: int | None = number
        while parent is not None:
            generation = self.generations[parent]
            if generation.start < until:
                generations.append((generation, until))
                until = generation.start
            parent = generation.parent
        return generations[::-1]

    def _generation(self, trial: TrialId) -> Generation:
        return self.generations[self.current[trial]]

    def _begin(self, generation: Generation) -> None:
        self.current[generation.trial] = len(self.generations)
        self.generations.append(generation._replace(number=len(self.generations)))
