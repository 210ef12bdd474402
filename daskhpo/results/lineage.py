"""Who went on from whom: the lives of a study's trials, and the way that led to each."""

from __future__ import annotations

from typing import NamedTuple

from daskhpo.core.events import Exploited, Launched, Record, Suggested
from daskhpo.core.types import Config, TrialId


class Life(NamedTuple):
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
    """All lives of a study, as its records tell them.

    Attributes
    ----------
    lives : by number.
    current : number of each trial's newest life.
    """

    def __init__(self) -> None:
        self.lives: list[Life] = []
        self.current: dict[TrialId, int] = {}

    def tell(self, record: Record) -> None:
        """Take in the next record of the study."""
        match record:
            case Suggested(trial, config, _, seconds):
                self._begin(Life(0, trial, 0, config, None, seconds))
            case Exploited(trial, source, config, resource, seconds):
                n_exploits = self._life(trial).n_exploits + (source != trial)
                parent = self.current[source] if resource else None
                self._begin(Life(0, trial, resource, config, parent, seconds, n_exploits))
            case Launched(trial, _, resource) if resource < self._life(trial).start:
                # The state at its start is gone. An older one is of the same parents, or there
                # is none at all.
                life = self._life(trial)._replace(start=resource, seconds=record.seconds)
                self._begin(life if resource else life._replace(parent=None))

    def way(self, number: int, until: int) -> list[tuple[Life, int]]:
        """The lives that a state went through, the first one first, each with where it ended.

        Parameters
        ----------
        number : of the life that the state is of.
        until : units of training that it holds.
        """
        lives: list[tuple[Life, int]] = []
        parent: int | None = number
        while parent is not None:
            life = self.lives[parent]
            if life.start < until:
                lives.append((life, until))
                until = life.start
            parent = life.parent
        return lives[::-1]

    def _life(self, trial: TrialId) -> Life:
        return self.lives[self.current[trial]]

    def _begin(self, life: Life) -> None:
        self.current[life.trial] = len(self.lives)
        self.lives.append(life._replace(number=len(self.lives)))
