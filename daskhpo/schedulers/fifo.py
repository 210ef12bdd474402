"""No early stopping: every trial trains to ``max_t``, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daskhpo.core.arguments import check_int
from daskhpo.core.rungs import RESOURCE
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import Action, Continue, Decision, Report, Start, Stop, Trial, TrialId, Wait


class FIFO(Scheduler):
    """Scheduler that trains each trial to ``max_t`` in one segment.

    Raises
    ------
    TypeError, ValueError : ``max_t`` is not an int of at least 1.
    """

    def __init__(self, max_t: int) -> None:
        self.max_t = check_int("max_t", max_t, at_least=1, why=RESOURCE)

    def __repr__(self) -> str:
        return f"FIFO(max_t={self.max_t})"

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        return Start(until=self.max_t) if can_start else Wait()

    def on_launch(self, trial: Trial) -> None:
        pass

    def on_report(self, trial: Trial, report: Report) -> Decision:
        if report.resource < self.max_t:  # it began before an extension
            return Continue(self.max_t)
        return Stop("fully trained")

    def on_end(self, trial: Trial) -> None:
        pass

    def on_retry(self, trial: Trial) -> bool:
        return True

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> dict[TrialId, Continue]:
        self.max_t = max_t
        return {trial.id: Continue(max_t) for trial in ended}
