"""Who went on from whom: the lives of a study's trials, and the way that led to each."""

from __future__ import annotations

from typing import NamedTuple

from daskhpo.core.events import Exploited, Launched, Record, Suggested
from daskhpo.core.types import Config, TrialId


class Generation(NamedTuple):
    """A trial from one of its beginnings on, with one configuration.

    A trial begins another life when it takes over a state or changes its configuration (an
    exploit), and when it has to train again from an earlier resource than its life began at,
    because no state held it any more.

    Attributes
    ----------
    number : of the life within its study, in order of time.
    start : units of training that its first state held.
    parent : number of the life whose state that was; None: it began untrained.
    seconds : when it began, since the study's beginning.
    n_exploits : states of others that the trial has taken over so far.
    """

    number: int
    trial: TrialId
    start: int
    config: Config
    parent: int | None
    seconds: float
    n_exploits: int = 0


class Lineage:
    """All generations of a study, by its records.

    Attributes
    ----------
    generations : by number.
    current : number of each trial's newest generation.
    """

    def __init__(self) -> None:
        self.generations: list[Generation] = []
        self.current: dict[TrialId, int] = {}

    def apply(self, record: Record) -> None:
        """Take in the next record of the study."""
        match record:
            case Suggested(trial, config, _, seconds):
                self._begin(Generation(0, trial, 0, config, None, seconds))
            case Exploited(trial, source, config, resource, seconds):
                n_exploits = self._generation(trial).n_exploits + (source != trial)
                parent = self.current[source] if resource else None
                self._begin(Generation(0, trial, resource, config, parent, seconds, n_exploits))
            case Launched(trial, _, resource) if resource < self._generation(trial).start:
                # The state at its start is gone. An older one is of the same parents, or there
                # is none at all.
                generation = self._generation(trial)._replace(
                    start=resource, seconds=record.seconds
                )
                self._begin(generation if resource else generation._replace(parent=None))

    def ancestry(self, number: int, until: int) -> list[tuple[Generation, int]]:
        """The lives that a state went through, the first one first, each with where it ended.

        Parameters
        ----------
        number : of the life that the state is of.
        until : units of training that it holds.
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
