"""Rules for the choice of a scheduler and a searcher, each with its evidence.

The page ``docs/explanation/which-method.md`` shows these rules as the table that
:func:`decision_table` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Integer, Real
from daskhpo.recommendation.question import ETA, Question
from daskhpo.schedulers.asha import ASHA
from daskhpo.schedulers.fifo import FIFO
from daskhpo.schedulers.median import MedianStopping
from daskhpo.schedulers.pb2 import PB2
from daskhpo.schedulers.pbt import PBT
from daskhpo.searchers.grid import GridSearch
from daskhpo.searchers.random import RandomSearch

SUGGESTION_SECONDS = 0.3  # of a Gaussian process with a few hundred results, on one core
MANY_PARAMETERS = 20
ENOUGH_FOR_A_MODEL = 8  # full trainings

Part = TypeVar("Part", Scheduler, Searcher)


@dataclass(frozen=True)
class Rule(Generic[Part]):
    """One row of the decision table; the first row that applies is used.

    Attributes
    ----------
    when, choose, because : text of the table's columns.
    evidence : text about the measurements, with a link.
    applies : True if the rule applies to a study.
    make : makes the scheduler or searcher for a study.
    is_weak : True if there are few measurements, or none of such studies.
    """

    when: str
    choose: str
    because: str
    evidence: str
    applies: Callable[[Question], bool] = field(repr=False, compare=False)
    make: Callable[[Question], Part] = field(repr=False, compare=False)
    is_weak: bool = False


KNOWN_SCHEDULE = "a known schedule, 8 seeds: [PB2](../how-to/choose-a-scheduler.md#pb2)"
CURVES = "recorded curves: [which_method.md](../../benchmarks/results/which_method.md)"
REPLAYED = (
    "adsorption curves in virtual time: "
    "[how much time](../../experiments/time_to_solution/README.md)"
)
PLAYED = "[simulated](../../experiments/simulated/README.md)"
COMPARED = "equal time: [time to solution](../../experiments/time_to_solution/README.md)"
SUGGESTED = (
    "no own measurements; a Gaussian process is known to need more trials in more dimensions"
)


def _promotion(question: Question) -> Scheduler:
    return ASHA(question.max_t, question.grace_period, ETA, variant="promotion", compare="best")


SCHEDULER_RULES: tuple[Rule[Scheduler], ...] = (
    Rule(
        f"one unit is most of the training (`max_t` below {ETA})",
        "`FIFO`",
        "there is no rung before the end",
        "arithmetic",
        lambda q: not q.stops_early and not q.schedule,
        lambda q: FIFO(q.max_t),
    ),
    Rule(
        "a schedule is wanted, and the architecture is searched as well",
        "`ASHA`, promotion; then a population with a fixed architecture",
        "a population tries only as many architectures as it has members: find the architecture "
        "first",
        "arithmetic; two steps were not compared with one",
        lambda q: bool(q.schedule) and bool(q.architecture) and q.stops_early,
        _promotion,
        is_weak=True,
    ),
    Rule(
        "a schedule is wanted, at most 8 trials can be trained to the end, and a float or int "
        "should change",
        "`PB2`",
        "a small population explores too little at random; a model chooses the changes",
        KNOWN_SCHEDULE,
        lambda q: bool(q.schedule) and q.population <= 8 and _mutates_numbers(q),
        lambda q: PB2(q.max_t, q.interval, list(q.schedule)),
    ),
    Rule(
        "a schedule is wanted",
        "`PBT`",
        "the schedule is found while the population trains",
        KNOWN_SCHEDULE,
        lambda q: bool(q.schedule),
        lambda q: PBT(q.max_t, q.interval, list(q.schedule)),
    ),
    Rule(
        "more finished models are wanted than `ASHA` would train to the end",
        "`MedianStopping`",
        "`ASHA` trains about one trial in nine to the end, and the time is too short for more",
        REPLAYED + "; the recorded curves, where no model has to be finished, are against it",
        lambda q: q.models > max(1.0, q.n_survivors),
        lambda q: MedianStopping(FIFO(q.max_t), grace_period=q.grace_period),
        is_weak=True,
    ),
    Rule(
        "early results mislead",
        "`ASHA`, promotion, a late first rung",
        "the first rung is the riskiest one; a paused trial can still be promoted later",
        f"{CURVES}, 3 tasks (a surrogate), 40 seeds: with a late first rung a second bracket is "
        f"worse, and all brackets are no better; {PLAYED}: with a first rung after one unit "
        "the best 0.2 % are never found on one task of five",
        lambda q: q.early == "misleading",
        _promotion,
    ),
    Rule(
        "early results predict the final order",
        "`ASHA`, stopping, an early first rung",
        "most trials end after 1/27 of the training, and no state is written for them",
        f"{CURVES}, 6 tasks, 40 seeds: the best trial is as good as with promotion, the mean of "
        "the best six slightly worse; each earlier first rung is better",
        lambda q: q.early == "telling",
        lambda q: ASHA(q.max_t, q.grace_period, ETA, compare="best"),
    ),
    Rule(
        "none of these",
        "`ASHA`, promotion",
        "good where early results predict the final order and where they mislead; a paused trial "
        "can still be promoted later",
        f"{CURVES}, 9 tasks, 40 seeds; needs a trainable with a state",
        lambda q: True,
        _promotion,
    ),
)

SEARCHER_RULES: tuple[Rule[Searcher], ...] = (
    Rule(
        "all combinations can be trained to the end",
        "`GridSearch`",
        "each is tried once, and none is left out",
        "arithmetic",
        lambda q: q.n_combinations <= q.full_trainings and not q.schedule,
        lambda q: _grid(q),
    ),
    Rule(
        "a schedule is wanted",
        "`RandomSearch`",
        "the members of a population should start far apart; good values are found by exploiting",
        "no own measurements; the papers start populations in this way",
        lambda q: bool(q.schedule),
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        f"fewer than {ENOUGH_FOR_A_MODEL} trials can be trained to the end",
        "`RandomSearch`",
        "a model does not choose its first eight trials",
        f"{CURVES}, 4 tasks, 30 seeds: with time for 4 and 8 full trainings the best trial of "
        "random search is better where early results predict the order, and worse where they "
        "mislead",
        lambda q: q.full_trainings < ENOUGH_FOR_A_MODEL,
        lambda q: RandomSearch(),
    ),
    Rule(
        f"a trial starts every {SUGGESTION_SECONDS:g} s or more often",
        "`RandomSearch`",
        "a model would be too slow, and the trials would be random fallbacks",
        "a guess at the time of one suggestion with a few hundred results",
        lambda q: q.seconds_between_starts <= SUGGESTION_SECONDS,
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        f"more than {MANY_PARAMETERS} hyperparameters",
        "`RandomSearch`",
        "distances mean little in so many dimensions",
        SUGGESTED,
        lambda q: len(q.space.domains) > MANY_PARAMETERS,
        lambda q: RandomSearch(),
        is_weak=True,
    ),
    Rule(
        "none of these",
        "`GPSearch`",
        "it learns from trials of every length, and suggests trials that survive more rungs",
        f"{CURVES}, 4 tasks, 30 seeds: the mean of the best six is better with time for 4, 8, 16 "
        f"and 32 full trainings; {COMPARED}: better in all 6 seeds of one task",
        lambda q: True,
        lambda q: _gp(),
    ),
)


def _grid(question: Question) -> Searcher:
    """Make a grid of all values; those of an Integer need ``num_points``."""
    sizes = [d.high - d.low + 1 for d in question.space.domains.values() if isinstance(d, Integer)]
    return GridSearch(num_points=max(sizes)) if sizes else GridSearch()


def _gp() -> Searcher:
    from daskhpo.searchers.gp.search import GPSearch  # scipy is slow to import

    return GPSearch()


def _mutates_numbers(question: Question) -> bool:
    domains = question.space.domains
    return any(isinstance(domains[name], Real | Integer) for name in question.schedule)


def decision_table() -> str:
    """Return all rules as Markdown tables, for the page that explains them."""
    parts = []
    for what, rules in (("scheduler", SCHEDULER_RULES), ("searcher", SEARCHER_RULES)):
        lines = [f"| if | {what} | because | evidence |", "|---|---|---|---|"]
        rules_of: tuple[Rule[Any], ...] = rules
        for rule in rules_of:
            evidence = f"**weak:** {rule.evidence}" if rule.is_weak else rule.evidence
            lines.append(f"| {rule.when} | {rule.choose} | {rule.because} | {evidence} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
