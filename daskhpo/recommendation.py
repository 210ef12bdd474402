"""Recommendation of a scheduler and a searcher, by the first rule that applies.

``docs/explanation/which-method.md`` shows the same rules, with the evidence for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, prod
from textwrap import wrap
from typing import Any, Generic, Literal, TypeVar, get_args

from daskhpo.core.arguments import check_choice, check_int, check_list
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.quantities import check_duration
from daskhpo.core.rungs import milestones
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.schedulers.asha import ASHA
from daskhpo.schedulers.fifo import FIFO
from daskhpo.schedulers.guarded import GuardedASHA
from daskhpo.schedulers.median import MedianStopping
from daskhpo.schedulers.pb2 import PB2
from daskhpo.schedulers.pbt import PBT, Population
from daskhpo.searchers.forest.search import ForestSearch
from daskhpo.searchers.grid import GridSearch
from daskhpo.searchers.random import RandomSearch

Early = Literal["unknown", "telling", "misleading"]
Part = TypeVar("Part", Scheduler, Searcher)

ETA = 3
GRACE_SHARES = {"telling": 27, "unknown": 16, "misleading": 9}  # first rung: ``max_t`` over this
POPULATIONS = (4, 16)  # members of the smallest and the largest recommended population
RANKINGS = 30  # of a population during a whole training
SHORTEST_SCHEDULE = 4  # units; the least ``max_t`` for a schedule
SUGGESTION_SECONDS = 0.3  # of a Gaussian process with a few hundred results, on one core
MANY_PARAMETERS = 20
ENOUGH_FOR_A_MODEL = 8  # full trainings


@dataclass(frozen=True)
class Question:
    """A planned study; fields as for :func:`recommend`, ``seconds`` is the budget."""

    space: Space
    seconds: float
    workers: int
    seconds_per_unit: float
    max_t: int
    early: Early
    schedule: tuple[str, ...]
    architecture: tuple[str, ...]
    models: int

    @property
    def full_trainings(self) -> float:
        """Number of trials that all workers together could train to the end."""
        return self.seconds * self.workers / (self.seconds_per_unit * self.max_t)

    @property
    def grace_period(self) -> int:
        """Resource of the first rung: the less early results predict, the later."""
        return max(1, self.max_t // GRACE_SHARES[self.early])

    @property
    def units_per_trial(self) -> float:
        """Mean units of a trial in a bracket, where one in three passes each rung."""
        rungs = (0, *milestones(self.max_t, self.grace_period, ETA))
        units: float = sum((end - begin) / ETA**n for n, (begin, end) in enumerate(pairwise(rungs)))
        return units

    @property
    def n_survivors(self) -> float:
        """Number of trials that a bracket would train to the end."""
        n_started = self.full_trainings * self.max_t / self.units_per_trial
        n_cuts = len(milestones(self.max_t, self.grace_period, ETA)) - 1
        return n_started * float(ETA**-n_cuts)

    @property
    def n_combinations(self) -> float:
        """Number of configurations; inf if a hyperparameter is a float."""
        return prod(map(_size, self.space.domains.values()))

    @property
    def population(self) -> int:
        """Members of a population: all that can be trained to the end, within limits."""
        smallest, largest = POPULATIONS
        return max(smallest, min(largest, int(self.full_trainings)))

    @property
    def interval(self) -> int:
        """Units between two rankings of a population."""
        return max(1, self.max_t // RANKINGS)


@dataclass(frozen=True)
class Rule(Generic[Part]):
    """One row of the decision table.

    Attributes
    ----------
    because : reason for users.
    applies : True if the rule applies to a study.
    make : makes the scheduler or searcher for a study.
    is_weak : True if there are few measurements, or none of such studies.
    """

    because: str
    applies: Callable[[Question], bool] = field(repr=False)
    make: Callable[[Question], Part] = field(repr=False)
    is_weak: bool = False


def _promotion(question: Question) -> Scheduler:
    return ASHA(question.max_t, question.grace_period, ETA, variant="promotion", compare="best")


SCHEDULER_RULES: tuple[Rule[Scheduler], ...] = (
    Rule(
        "there is no rung before the end",
        lambda q: q.max_t < ETA and not q.schedule,
        lambda q: FIFO(q.max_t),
    ),
    Rule(
        "a population tries only as many architectures as it has members: find the architecture "
        "first",
        lambda q: bool(q.schedule) and bool(q.architecture),
        _promotion,
        is_weak=True,
    ),
    Rule(
        "a small population explores too little at random; a model chooses the changes",
        lambda q: q.population <= 8 and any(_is_number(q.space.domains[n]) for n in q.schedule),
        lambda q: PB2(q.max_t, q.interval, list(q.schedule)),
    ),
    Rule(
        "the schedule is found while the population trains",
        lambda q: bool(q.schedule),
        lambda q: PBT(q.max_t, q.interval, list(q.schedule)),
    ),
    Rule(
        "`ASHA` trains about one trial in nine to the end, and the time is too short for more",
        lambda q: q.models > max(1.0, q.n_survivors),
        lambda q: MedianStopping(FIFO(q.max_t), grace_period=q.grace_period),
        is_weak=True,
    ),
    Rule(
        "the first rung is the riskiest one; a paused trial can still be promoted later",
        lambda q: q.early == "misleading",
        _promotion,
    ),
    Rule(
        "most trials end after 1/27 of the training, and no state is written for them",
        lambda q: q.early == "telling",
        lambda q: ASHA(q.max_t, q.grace_period, ETA, compare="best"),
    ),
    Rule(
        "as fast as `ASHA` where early results predict the final order; where they mislead, a "
        "reserve of other brackets and a model find what the first rungs missed",
        lambda q: True,
        lambda q: GuardedASHA(q.max_t, reduction_factor=ETA),
    ),
)


def _scheduler_rule(question: Question) -> Rule[Scheduler]:
    return next(rule for rule in SCHEDULER_RULES if rule.applies(question))


SEARCHER_RULES: tuple[Rule[Searcher], ...] = (
    Rule(
        "each is tried once, and none is left out",
        lambda q: q.n_combinations <= q.full_trainings and not q.schedule,
        lambda q: _grid(q.space),
    ),
    Rule(
        "the members of a population should start far apart; good values are found by exploiting",
        lambda q: bool(q.schedule),
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        "`GuardedASHA` compares new and paused trials by its scores; no slot waits for it",
        lambda q: _scheduler_rule(q) is SCHEDULER_RULES[-1],
        lambda q: ForestSearch(),
    ),
    Rule(
        "a model does not choose its first eight trials",
        lambda q: q.full_trainings < ENOUGH_FOR_A_MODEL,
        lambda q: RandomSearch(),
    ),
    Rule(
        "a model would be too slow, and the trials would be random fallbacks",
        lambda q: q.seconds_per_unit * q.units_per_trial / q.workers <= SUGGESTION_SECONDS,
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        "distances mean little in so many dimensions",
        lambda q: len(q.space.domains) > MANY_PARAMETERS,
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        "it learns from trials of every length, and suggests trials that survive more rungs",
        lambda q: True,
        lambda q: _gp(),
    ),
)


@dataclass(frozen=True)
class Recommendation:
    """A scheduler and a searcher for a study, each with its reason.

    ``print`` shows them as code to paste.

    Attributes
    ----------
    scheduler, searcher : arguments of :class:`daskhpo.Study`.
    num_trials : argument of ``Study.run``; None: limited only by the time.
    scheduler_rule, searcher_rule : rows of the decision table, with ``because`` and ``is_weak``.
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
    TypeError, ValueError : an argument is out of range; the budget is too short for one full
        training; a name is no hyperparameter of the space; a hyperparameter of the architecture is
        in ``schedule``.

    Examples
    --------
    >>> from daskhpo.space import Real
    >>> print(recommend({"lr": Real(1e-4, 0.1, log=True)}, "8h", 16, 60, max_t=81))
    # time for 94.8 full trainings
    from daskhpo.schedulers import GuardedASHA
    from daskhpo.searchers import ForestSearch
    <BLANKLINE>
    # as fast as `ASHA` where early results predict the final order; where they mislead, a
    # reserve of other brackets and a model find what the first rungs missed
    scheduler = GuardedASHA(max_t=81, grace_period=1, reduction_factor=3)
    # `GuardedASHA` compares new and paused trials by its scores; no slot waits for it
    searcher = ForestSearch()
    """
    question = Question(
        space if isinstance(space, Space) else Space(space),
        check_duration("budget", budget),
        check_int("workers", workers, at_least=1),
        check_duration("seconds_per_unit", seconds_per_unit),
        check_int("max_t", max_t, at_least=1),
        check_choice("early", early, get_args(Early)),
        tuple(check_list("schedule", schedule, of="names of hyperparameters")),
        tuple(check_list("architecture", architecture, of="names of hyperparameters")),
        check_int("models", models, at_least=1),
    )
    _check(question)
    scheduler_rule = _scheduler_rule(question)
    searcher_rule = next(rule for rule in SEARCHER_RULES if rule.applies(question))
    scheduler = scheduler_rule.make(question)
    return Recommendation(
        scheduler,
        searcher_rule.make(question),
        question.population if isinstance(scheduler, Population) else None,
        scheduler_rule,
        searcher_rule,
        question.full_trainings,
    )


def _check(question: Question) -> None:
    training = question.seconds_per_unit * question.max_t
    if question.seconds < training:
        raise ValueError(
            f"budget: {question.seconds:g} s is {question.seconds / training:.0%} of one full "
            f"training (max_t * seconds_per_unit = {training:g} s), so no trial would come to its "
            "end: give more time, or a smaller max_t"
        )
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


def _size(domain: Domain) -> float:
    match domain:
        case Ordinal(values) | Categorical(values):
            return len(values)
        case Integer(low, high):
            return high - low + 1
        case _:
            return inf


def _is_number(domain: Domain) -> bool:
    return isinstance(domain, Real | Integer)


def _grid(space: Space) -> Searcher:
    """Make a grid of all values; those of an Integer need ``num_points``."""
    sizes = [d.high - d.low + 1 for d in space.domains.values() if isinstance(d, Integer)]
    return GridSearch(num_points=max(sizes)) if sizes else GridSearch()


def _gp() -> Searcher:
    from daskhpo.searchers.gp.search import GPSearch  # scipy is slow to import

    return GPSearch()


def _name(part: Scheduler | Searcher) -> str:
    return repr(part).partition("(")[0]


def _reason(rule: Rule[Any]) -> list[str]:
    weak = " (weak evidence)" if rule.is_weak else ""
    return [f"# {line}" for line in wrap(f"{rule.because}{weak}", 90)]
