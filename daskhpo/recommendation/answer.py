"""The recommendation for a study: a scheduler and a searcher, as code to paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from textwrap import wrap
from typing import Any

from daskhpo.core.quantities import parse_duration
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.recommendation.question import SHORTEST_SCHEDULE, Early, Question
from daskhpo.recommendation.rules import SCHEDULER_RULES, SEARCHER_RULES, Rule
from daskhpo.schedulers.pbt import Population


@dataclass(frozen=True)
class Recommendation:
    """A scheduler and a searcher for a study, each with its reason.

    ``print`` shows them as code to paste.

    Attributes
    ----------
    scheduler, searcher : arguments of :class:`daskhpo.Study`.
    num_trials : argument of ``Study.run``; None: limited only by the time.
    scheduler_rule, searcher_rule : rows of the decision table, with ``because`` and ``evidence``.
    full_trainings : number of trials that could be trained to the end.
    """

    scheduler: Scheduler
    searcher: Searcher
    num_trials: int | None
    scheduler_rule: Rule[Scheduler] = field(repr=False)
    searcher_rule: Rule[Searcher] = field(repr=False)
    full_trainings: float = field(repr=False)

    def __str__(self) -> str:
        names = [_name(self.scheduler), *(["FIFO"] if "(FIFO(" in repr(self.scheduler) else [])]
        lines = [
            f"# time for {self.full_trainings:.3g} full trainings",
            f"from daskhpo.schedulers import {', '.join(sorted(names))}",
            f"from daskhpo.searchers import {_name(self.searcher)}",
            "",
            *_reason(self.scheduler_rule),
            f"scheduler = {self.scheduler!r}",
            *_reason(self.searcher_rule),
            f"searcher = {self.searcher!r}",
        ]
        if self.num_trials is not None:
            lines.append(f"num_trials = {self.num_trials}")
        return "\n".join(lines)


def _name(part: Scheduler | Searcher) -> str:
    return repr(part).partition("(")[0]


def _reason(rule: Rule[Any]) -> list[str]:
    weak = " (weak evidence)" if rule.is_weak else ""
    return [f"# {line}" for line in wrap(f"{rule.because}{weak}", 90)]


def recommend(
    space: Mapping[str, Any],
    budget: float | str,
    workers: int,
    seconds_per_unit: float,
    max_t: int,
    *,
    early: Early = "unknown",
    schedule: Sequence[str] = (),
    architecture: Sequence[str] = (),
    models: int = 1,
) -> Recommendation:
    """Recommend a scheduler and a searcher by a table of rules, without training.

    Parameters
    ----------
    space : as for :class:`daskhpo.Study`.
    budget : seconds, or text such as ``"8h"``.
    workers : number of trials at a time.
    seconds_per_unit : mean seconds of one unit of training.
    max_t : units of a fully trained trial.
    early : ``"telling"`` if the order of trials after a few units predicts the final order;
        ``"misleading"`` if it does not; ``"unknown"``.
    schedule : hyperparameters that should change during training.
    architecture : hyperparameters that change the shape of the model.
    models : number of good, finished models wanted.

    Raises
    ------
    TypeError, ValueError : an argument is out of range; a name is no hyperparameter of the space;
        a hyperparameter of the architecture is in ``schedule``.

    Examples
    --------
    >>> from daskhpo.space import Real
    >>> print(recommend({"lr": Real(1e-4, 0.1, log=True)}, "8h", 16, 60, max_t=81))
    # time for 94.8 full trainings
    from daskhpo.schedulers import ASHA
    from daskhpo.searchers import GPSearch
    <BLANKLINE>
    # good where early results predict the final order and where they mislead; a paused trial
    # can still be promoted later
    scheduler = ASHA(max_t=81, grace_period=5, reduction_factor=3, brackets=1, \
variant='promotion', compare='best')
    # it learns from trials of every length, and suggests trials that survive more rungs
    searcher = GPSearch(acq='EI', n_initial_points=8, kappa=1.96, xi=0.01)
    """
    question = Question(
        space if isinstance(space, Space) else Space(space),
        parse_duration(budget, "budget"),
        _at_least_one(workers, "workers"),
        _positive(seconds_per_unit, "seconds_per_unit"),
        _at_least_one(max_t, "max_t"),
        early,
        tuple(schedule),
        tuple(architecture),
        _at_least_one(models, "models"),
    )
    _check(question)
    scheduler_rule = next(rule for rule in SCHEDULER_RULES if rule.applies(question))
    searcher_rule = next(rule for rule in SEARCHER_RULES if rule.applies(question))
    scheduler, searcher = scheduler_rule.make(question), searcher_rule.make(question)
    num_trials = question.population if isinstance(scheduler, Population) else None
    return Recommendation(
        scheduler, searcher, num_trials, scheduler_rule, searcher_rule, question.full_trainings
    )


def _check(question: Question) -> None:
    if question.early not in ("unknown", "telling", "misleading"):
        raise ValueError(f"early={question.early!r} must be 'unknown', 'telling' or 'misleading'")
    known = question.space.domains
    for name, given in (("schedule", question.schedule), ("architecture", question.architecture)):
        if unknown := [each for each in given if each not in known]:
            raise ValueError(
                f"{name}: {unknown} are no hyperparameters of the space, which has {[*known]}"
            )
    if question.schedule and question.max_t < SHORTEST_SCHEDULE:
        raise ValueError(
            f"max_t={question.max_t} is too short for a schedule: give at least "
            f"{SHORTEST_SCHEDULE} units"
        )
    if both := [name for name in question.schedule if name in question.architecture]:
        raise ValueError(
            f"schedule: {both} are in architecture as well; hyperparameters that change the shape "
            "of the model cannot change during training"
        )


def _at_least_one(value: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be an int of at least 1")
    return value


def _positive(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r} must be a number of seconds")
    if not (value > 0 and isfinite(value)):
        raise ValueError(f"{name}={value!r} must be positive and finite")
    return float(value)
