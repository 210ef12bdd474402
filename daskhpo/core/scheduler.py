"""The interface of a scheduler: which segment next, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Literal

from daskhpo.core.space import Space
from daskhpo.core.types import Action, Decision, Report, Trial, TrialId

Compare = Literal["last", "best"]


class Scheduler(ABC):
    """Decides how far each trial trains. Keeps ranks, never statuses; holds no clock and no I/O.

    The coordinator works on a copy of its own, so one object may describe many studies.

    Attributes
    ----------
    max_t : the resource at which a trial is fully trained.
    mutates : hyperparameters that it changes while a trial's state stays.
    is_population : nobody goes on before all trials have begun; so there must be an end to them.
    """

    max_t: int
    mutates: Collection[str] = ()
    is_population: bool = False

    def setup(self, space: Space, seed: int) -> None:
        """Learn what is searched, before anything else; most schedulers need not know.

        Raises
        ------
        ValueError : the scheduler does not fit the space.
        """

    @abstractmethod
    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        """What a free slot should do. Changes nothing; the same question has the same answer.

        Parameters
        ----------
        trials : every trial that has not ended. ``Resume`` and ``Discard`` are for those whose
            status is ``PAUSED``: until its checkpoint is committed, a pausing trial still runs.
        can_start : False if no new trial may ever start (the study has all its trials).
        """

    @abstractmethod
    def on_launch(self, trial: Trial) -> None:
        """The ``Start`` or ``Resume`` that was asked for has been carried out; see its ``until``.

        Not called when a lost trial runs again.
        """

    @abstractmethod
    def on_report(self, trial: Trial, report: Report) -> Decision:
        """The trial came to the end of its segment (``report.resource == trial.until``)."""

    def on_exploit(self, trial: Trial, source: TrialId) -> None:
        """The ``Exploit`` that was asked for has been carried out; see its ``config``."""

    def on_rollback(self, trial: Trial) -> bool:
        """The trial shall run again, but its newest state is older than its configuration.

        Its worker was lost before a state was written since ``trial.since``, where it took over a
        state and the configuration. True: it is paused instead, and :meth:`next_action` sees to
        it. By default it trains again from ``trial.newest``, with the configuration that it has.
        """
        return False

    def on_failure(self, trial: Trial) -> bool:
        """The trial failed for good. True: it shall be paused, to exploit another one, and lives.

        By default it ends.
        """
        return False

    @abstractmethod
    def on_end(self, trial: Trial) -> None:
        """The trial completed, was stopped (by a decision, too) or failed: it will not return."""


def ranked_loss(report: Report, compare: Compare) -> float:
    """The loss by which a trial is compared: its last one, or its best so far."""
    return report.loss if compare == "last" else report.best_loss


def check_compare(compare: str) -> Compare:
    """Refuse anything but the two ways to compare.

    Raises
    ------
    ValueError : anything but ``"last"`` and ``"best"``.
    """
    if compare == "last":
        return "last"
    if compare == "best":
        return "best"
    raise ValueError(f"compare={compare!r} must be 'last' or 'best' (the best report so far)")
