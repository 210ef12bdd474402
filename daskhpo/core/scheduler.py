"""Interface of schedulers, which choose the next segment of a trial, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

from daskhpo.core.arguments import check_choice
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.space import Space
from daskhpo.core.types import Action, Continue, Decision, Pause, Report, Trial, TrialId

Compare = Literal["last", "best"]


class Scheduler(ABC):
    """Base class of schedulers, which decide how far each trial trains.

    A scheduler keeps ranks, never statuses, and has no clock and no I/O. The coordinator works on
    its own copy, so one object may describe many studies.

    Attributes
    ----------
    max_t : the resource at which a trial is fully trained.
    mutates : hyperparameters that change while a trial keeps its state.
    is_population : True if no trial can continue before all have started; the number of trials
        must then be limited.
    """

    max_t: int
    mutates: Collection[str] = ()
    is_population: bool = False

    def setup(self, space: Space, seed: int) -> None:
        """Set up for a search space and a seed; called before any other method.

        Most schedulers do not need it.

        Raises
        ------
        ValueError : the scheduler does not fit the space.
        """

    def is_enough(self, num_trials: int) -> bool:
        """Return False if so few trials may leave none that is fully trained.

        A study then begins with a warning. The default is True.
        """
        return True

    @abstractmethod
    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        """Return the action for a free slot.

        It must not change the scheduler: repeated calls return the same action.

        Parameters
        ----------
        trials : every trial that has not ended. ``Resume``, ``Exploit`` and ``Discard`` apply to
            trials whose status is ``PAUSED``. A pausing trial runs until its state is held.
        can_start : False if no new trial may start: the study has all its trials, or the searcher
            has no more configurations.
        """

    @abstractmethod
    def on_launch(self, trial: Trial) -> None:
        """Note that the requested ``Start``, ``Resume`` or ``Choose`` was carried out.

        ``trial.until`` is the end of its segment. Not called when a lost or preempted trial is
        launched again.
        """

    @abstractmethod
    def on_report(self, trial: Trial, report: Report) -> Decision:
        """Return the decision at a segment's end (``report.resource == trial.until``)."""

    def on_trust(self, trusted: bool) -> None:
        """Note whether the searcher's model is trusted.

        It then tells good configurations from bad ones. Called when that changes; at first no
        model is trusted.
        """

    def on_exploit(self, trial: Trial, source: TrialId) -> None:
        """Note that the requested ``Exploit`` was carried out; see ``trial.config``."""

    def on_rollback(self, trial: Trial) -> bool:
        """Return True to pause a queued trial whose newest state precedes its exploit.

        Its worker was lost before a state was written since ``trial.since``, the resource at which
        it took over a state and its configuration. True: it is paused, and :meth:`next_action`
        decides on it. False, the default: it trains again from ``trial.newest``, with its current
        configuration.
        """
        return False

    def on_failure(self, trial: Trial) -> bool:
        """Return True to pause a trial that failed for good, instead of ending it.

        The paused trial can then exploit another one. The default is False.
        """
        return False

    @abstractmethod
    def on_end(self, trial: Trial) -> None:
        """Note that a trial ended: completed, stopped (also by a decision) or failed.

        One that a person ended, at whatever time, comes as failed.
        """

    def on_retry(self, trial: Trial) -> bool:
        """Return True if a trial that ended as failed can finish its segment.

        The user runs failed trials again. True: it trains until ``trial.until``, from its newest
        state or its start, and then :meth:`on_report` follows. ``trial.decision``: it failed after
        this decision, when its state was taken; the decision stands, and is carried out there.
        False, the default: a later ``Start`` is used for this trial, in the place of a new one, and
        it trains from its start.
        """
        return False

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> Mapping[TrialId, Continue | Pause]:
        """Let trials train to a larger ``max_t``; return which ended ones continue.

        Called between two sessions, when no trial runs; also on a new scheduler, with no trial, to
        see whether it can. It sets :attr:`max_t`. The default refuses.

        Parameters
        ----------
        ended : the trials that were fully trained, by number, as they were then: ``losses`` are
            those of the last report, and ``newest`` is the state that is left, or None.

        Returns
        -------
        mapping : ``Continue(until)``: the trial trains on, before others start. ``Pause()``: it is
            paused, and :meth:`next_action` may resume it. One that is not named has ended for good.

        Raises
        ------
        InvalidArgument : it cannot; the message says why.
        """
        raise InvalidArgument(
            f"max_t={max_t}: {type(self).__name__} cannot let trials train further than planned "
            f"(it has no on_extend). Begin a new study with that max_t"
        )


def ranked_loss(report: Report, compare: Compare) -> float:
    """Return the loss by which a trial is ranked: its last one, or its best so far."""
    return report.loss if compare == "last" else report.best_loss


def check_compare(compare: str) -> Compare:
    """Return ``compare`` if it is ``"last"`` or ``"best"``.

    Raises
    ------
    ValueError : any other value.
    """
    chosen: Compare = check_choice("compare", compare, get_args(Compare))
    return chosen
