"""Which scheduler and which searcher for which study: rules, each with the evidence for it.

The rules stand here only. The page ``docs/explanation/which-method.md`` shows them as a table that
:func:`decision_table` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, isfinite, prod
from textwrap import wrap
from typing import Any, Generic, Literal, TypeVar

from daskhpo.core.rungs import milestones
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Categorical, Domain, Integer, Ordinal, Real, Space
from daskhpo.schedulers.asha import ASHA
from daskhpo.schedulers.fifo import FIFO
from daskhpo.schedulers.median import MedianStopping
from daskhpo.schedulers.pb2 import PB2
from daskhpo.schedulers.pbt import PBT, Population
from daskhpo.searchers.grid import GridSearch
from daskhpo.searchers.random import RandomSearch
from daskhpo.study.limits import seconds_of

__all__ = ["Recommendation", "recommend"]

Early = Literal["unknown", "telling", "misleading"]

ETA = 3
SUGGESTION_SECONDS = 0.3  # of a Gaussian process with some hundred results, on one core
MANY_PARAMETERS = 20
ENOUGH_FOR_A_MODEL = 16  # full trainings
POPULATIONS = (4, 16)  # the smallest and the largest that are recommended
RANKINGS = 30  # of a population, in all
SHORTEST_SCHEDULE = 4  # units


@dataclass(frozen=True)
class Question:
    """A study that is to be run, in the words of :func:`recommend`."""

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
        """How many trials could be trained to the end, on all workers together."""
        return self.seconds * self.workers / (self.seconds_per_unit * self.max_t)

    @property
    def grace_period(self) -> int:
        """The first rung: the later, the less early results say."""
        share = {"telling": 27, "unknown": 16, "misleading": 9}[self.early]
        return max(1, self.max_t // share)

    @property
    def units_per_trial(self) -> float:
        """Of a ladder, on average: one in three goes on at each rung."""
        rungs = (0, *milestones(self.max_t, self.grace_period, ETA))
        parts = enumerate(pairwise(rungs))
        units: float = sum((end - begin) / ETA**n for n, (begin, end) in parts)
        return units

    @property
    def n_survivors(self) -> float:
        """How many trials a ladder would train to the end."""
        n_rungs = len(milestones(self.max_t, self.grace_period, ETA))
        share: float = 1 / ETA ** (n_rungs - 1)
        return self.full_trainings * self.max_t / self.units_per_trial * share

    @property
    def seconds_between_starts(self) -> float:
        """Seconds from one trial's start to the next, where a ladder stops trials early."""
        return self.seconds_per_unit * self.units_per_trial / self.workers

    @property
    def n_combinations(self) -> float:
        """How many configurations there are; inf with a float among them."""
        return prod(_size(domain) for domain in self.space.domains.values())

    @property
    def population(self) -> int:
        """Members of a population: as many as can be trained to the end, within bounds."""
        smallest, largest = POPULATIONS
        return max(smallest, min(largest, int(self.full_trainings)))

    @property
    def interval(self) -> int:
        """Units between two rankings of a population."""
        return max(1, self.max_t // RANKINGS)

    @property
    def stops_early(self) -> bool:
        """Whether training is long enough to have a rung before its end."""
        return self.max_t >= ETA


def _size(domain: Domain) -> float:
    match domain:
        case Ordinal(values) | Categorical(values):
            return len(values)
        case Integer(low, high):
            return high - low + 1
        case _:
            return inf


def _mutates_numbers(question: Question) -> bool:
    domains = question.space.domains
    return any(isinstance(domains[name], Real | Integer) for name in question.schedule)


Part = TypeVar("Part", Scheduler, Searcher)


@dataclass(frozen=True)
class Rule(Generic[Part]):
    """One row of the decision table; the first that applies is taken.

    Attributes
    ----------
    when, choose, because : as the table says it.
    evidence : what was measured, and where.
    is_weak : there are few measurements, or they are not of studies such as this one.
    """

    when: str
    choose: str
    because: str
    evidence: str
    applies: Callable[[Question], bool] = field(repr=False, compare=False)
    make: Callable[[Question], Part] = field(repr=False, compare=False)
    is_weak: bool = False


KNOWN = "a known schedule, 8 seeds: [PB2](../how-to/choose-a-scheduler.md#pb2)"
CURVES = "recorded curves: [which_method.md](../../benchmarks/results/which_method.md)"
REPLAYED = (
    "adsorption curves in virtual time: "
    "[how much time](../../experiments/time_to_solution/README.md)"
)
COMPARED = "equal time: [time to solution](../../experiments/time_to_solution/README.md)"
SUGGESTED = "none of ours: a Gaussian process is known to need more trials the more dimensions"


def _promotion(question: Question) -> Scheduler:
    return ASHA(question.max_t, question.grace_period, ETA, variant="promotion", compare="best")


SCHEDULER_RULES: tuple[Rule[Scheduler], ...] = (
    Rule(
        f"a unit is nearly all of training (`max_t` below {ETA})",
        "`FIFO`",
        "there is no rung before the end",
        "arithmetic",
        lambda q: not q.stops_early and not q.schedule,
        lambda q: FIFO(q.max_t),
    ),
    Rule(
        "a schedule is wanted, and the architecture is searched, too",
        "`ASHA`, promotion; then a population with the architecture held",
        "a population tries as many architectures as it has members: find the architecture first",
        "arithmetic; the two steps were not compared with one",
        lambda q: bool(q.schedule) and bool(q.architecture) and q.stops_early,
        _promotion,
        is_weak=True,
    ),
    Rule(
        "a schedule is wanted, at most 8 trials can be trained to the end, and a float or int "
        "shall change",
        "`PB2`",
        "a small population explores too little by chance; a model chooses the changes",
        KNOWN,
        lambda q: bool(q.schedule) and q.population <= 8 and _mutates_numbers(q),
        lambda q: PB2(q.max_t, q.interval, list(q.schedule)),
    ),
    Rule(
        "a schedule is wanted",
        "`PBT`",
        "the schedule is found while the population trains",
        KNOWN,
        lambda q: bool(q.schedule),
        lambda q: PBT(q.max_t, q.interval, list(q.schedule)),
    ),
    Rule(
        "more finished models are wanted than `ASHA` would train to the end",
        "`MedianStopping`",
        "a ladder trains one trial in nine or so to the end, and the time is too short for more",
        REPLAYED + "; the recorded curves, where no model need be finished, are against it",
        lambda q: q.models > max(1.0, q.n_survivors),
        lambda q: MedianStopping(FIFO(q.max_t), grace_period=q.grace_period),
        is_weak=True,
    ),
    Rule(
        "early results mislead",
        "`ASHA`, two brackets, a late first rung",
        "some of the trials are judged at the second rung only",
        CURVES + " (LCBench), 2 seeds; there two brackets were better than `AsyncHyperband` up "
        "to 16 trainings. The late first rung was measured with one bracket only",
        lambda q: q.early == "misleading",
        lambda q: ASHA(q.max_t, q.grace_period, ETA, brackets=2, compare="best"),
        is_weak=True,
    ),
    Rule(
        "early results tell the order",
        "`ASHA`, stopping, an early first rung",
        "most trials end after a twenty-seventh of training, and no state is written for them",
        CURVES + " (TaskSet), 2 seeds",
        lambda q: q.early == "telling",
        lambda q: ASHA(q.max_t, q.grace_period, ETA, compare="best"),
    ),
    Rule(
        "none of these",
        "`ASHA`, promotion",
        "good where early results tell the order, and not bad where they mislead; a trial that "
        "was set aside may come back",
        CURVES + ", both families, 2 seeds; needs a trainable with a state",
        lambda q: True,
        _promotion,
    ),
)

SEARCHER_RULES: tuple[Rule[Searcher], ...] = (
    Rule(
        "all combinations can be trained to the end",
        "`GridSearch`",
        "each is tried once, and nothing is left out",
        "arithmetic",
        lambda q: q.n_combinations <= q.full_trainings and not q.schedule,
        lambda q: _grid(q),
    ),
    Rule(
        "a schedule is wanted",
        "`RandomSearch`",
        "the members of a population should begin apart; what is good is found by exploiting",
        "none of ours: it is how populations are begun in the papers",
        lambda q: bool(q.schedule),
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        f"fewer than {ENOUGH_FOR_A_MODEL} trials can be trained to the end",
        "`RandomSearch`",
        "a model begins with eight trials that it does not choose",
        CURVES + ", two tasks of each family, 2 seeds",
        lambda q: q.full_trainings < ENOUGH_FOR_A_MODEL,
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        f"a trial starts every {SUGGESTION_SECONDS:g} s or more often",
        "`RandomSearch`",
        "a model would be late, and its trials be drawn at random",
        "a guess at the time of one suggestion with some hundred results",
        lambda q: q.seconds_between_starts <= SUGGESTION_SECONDS,
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        f"more than {MANY_PARAMETERS} hyperparameters",
        "`RandomSearch`",
        "distances say little in so many dimensions",
        SUGGESTED,
        lambda q: len(q.space.domains) > MANY_PARAMETERS,
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        "none of these",
        "`GPSearch`",
        "it learns from trials of every length, and chooses ones that go on",
        f"{COMPARED}, 3 seeds of one task, all ahead of random search under `ASHA`; {CURVES} "
        "without early stopping, 2 seeds. Against it: those curves under `ASHA`, 2 seeds, where "
        "the nearest recorded trial answers for each that is new",
        lambda q: True,
        lambda q: _gp(),
        is_weak=True,
    ),
)


def _grid(question: Question) -> Searcher:
    """All values: those of an Integer have to be asked for."""
    sizes = [_size(d) for d in question.space.domains.values() if isinstance(d, Integer)]
    return GridSearch(num_points=int(max(sizes))) if sizes else GridSearch()


def _gp() -> Searcher:
    from daskhpo.searchers.gp.search import GPSearch  # scipy takes a while to load

    return GPSearch()


@dataclass(frozen=True)
class Recommendation:
    """A scheduler and a searcher for a study, each with its reason.

    ``print`` shows it as code to paste.

    Attributes
    ----------
    scheduler, searcher : for :class:`daskhpo.Study`.
    num_trials : of ``Study.run``; None: as many as there is time for.
    scheduler_rule, searcher_rule : rows of the decision table, with ``because`` and ``evidence``.
    full_trainings : how many trials could be trained to the end.
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
    """Which scheduler and which searcher to use, by a table of rules. Runs nothing.

    Parameters
    ----------
    space : as for :class:`daskhpo.Study`.
    budget : seconds, or text such as ``"8h"``.
    workers : trials at a time.
    seconds_per_unit : that a trial takes for one unit of training, on average.
    max_t : units of a fully trained trial.
    early : whether the order of trials after a few units is that at the end (``"telling"``),
        another one (``"misleading"``), or not known.
    schedule : hyperparameters that should change during training.
    architecture : hyperparameters that change the shape of the model.
    models : how many good, finished models are wanted.

    Raises
    ------
    TypeError, ValueError : an argument out of range; names that are no hyperparameters of the
        space; a hyperparameter of the architecture that should change during training.

    Examples
    --------
    >>> from daskhpo.space import Real
    >>> print(recommend({"lr": Real(1e-4, 0.1, log=True)}, "8h", 16, 60, max_t=81))
    # time for 94.8 full trainings
    from daskhpo.schedulers import ASHA
    from daskhpo.searchers import GPSearch
    <BLANKLINE>
    # good where early results tell the order, and not bad where they mislead; a trial that was
    # set aside may come back
    scheduler = ASHA(max_t=81, grace_period=5, reduction_factor=3, brackets=1, \
variant='promotion', compare='best')
    # it learns from trials of every length, and chooses ones that go on (weak evidence)
    searcher = GPSearch(acq='EI', n_initial_points=8, kappa=1.96, xi=0.01)
    """
    question = Question(
        space if isinstance(space, Space) else Space(space),
        seconds_of(budget, "budget"),
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
            raise ValueError(f"{name}: {unknown} are no hyperparameters; the space has {[*known]}")
    if question.schedule and question.max_t < SHORTEST_SCHEDULE:
        raise ValueError(
            f"max_t={question.max_t} is too short for a schedule: give at least "
            f"{SHORTEST_SCHEDULE} units"
        )
    if both := [name for name in question.schedule if name in question.architecture]:
        raise ValueError(
            f"schedule: {both} change the shape of the model, and cannot change during training"
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


def decision_table() -> str:
    """All rules as Markdown, for the page that explains them."""
    parts = []
    for what, rules in (("scheduler", SCHEDULER_RULES), ("searcher", SEARCHER_RULES)):
        lines = [f"| if | {what} | because | evidence |", "|---|---|---|---|"]
        rules_of: tuple[Rule[Any], ...] = rules
        for rule in rules_of:
            evidence = f"**weak:** {rule.evidence}" if rule.is_weak else rule.evidence
            lines.append(f"| {rule.when} | {rule.choose} | {rule.because} | {evidence} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
