"""Which scheduler and which searcher for which study: rules, each with the evidence for it.

The rules stand here only. The page ``docs/explanation/which-method.md`` shows them as a table that
:func:`decision_table` writes.
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

SUGGESTION_SECONDS = 0.3  # of a Gaussian process with some hundred results, on one core
MANY_PARAMETERS = 20
ENOUGH_FOR_A_MODEL = 8  # full trainings

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


KNOWN_SCHEDULE = "a known schedule, 8 seeds: [PB2](../how-to/choose-a-scheduler.md#pb2)"
CURVES = "recorded curves: [which_method.md](../../benchmarks/results/which_method.md)"
REPLAYED = (
    "adsorption curves in virtual time: "
    "[how much time](../../experiments/time_to_solution/README.md)"
)
PLAYED = "[simulated](../../experiments/simulated/README.md)"
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
        "a ladder trains one trial in nine or so to the end, and the time is too short for more",
        REPLAYED + "; the recorded curves, where no model need be finished, are against it",
        lambda q: q.models > max(1.0, q.n_survivors),
        lambda q: MedianStopping(FIFO(q.max_t), grace_period=q.grace_period),
        is_weak=True,
    ),
    Rule(
        "early results mislead",
        "`ASHA`, promotion, a late first rung",
        "the first rung is the most dangerous one; a trial that was set aside may come back",
        f"{CURVES}, 3 tasks (a surrogate), 40 seeds: beside a late first rung a second bracket "
        f"costs, and all brackets are no better; and {PLAYED}: from the first unit "
        "the best 0.2 % are never found on one task of five",
        lambda q: q.early == "misleading",
        _promotion,
    ),
    Rule(
        "early results tell the order",
        "`ASHA`, stopping, an early first rung",
        "most trials end after a twenty-seventh of training, and no state is written for them",
        f"{CURVES}, 6 tasks, 40 seeds: as good as promotion by the best trial, by the mean of "
        "six a little worse; better with each earlier rung",
        lambda q: q.early == "telling",
        lambda q: ASHA(q.max_t, q.grace_period, ETA, compare="best"),
    ),
    Rule(
        "none of these",
        "`ASHA`, promotion",
        "good where early results tell the order and where they mislead; a trial that was set "
        "aside may come back",
        f"{CURVES}, 9 tasks, 40 seeds; needs a trainable with a state",
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
        f"{CURVES}, 4 tasks, 30 seeds: with time for 4 and 8 random search has the better best "
        "trial where early results tell, and the worse one where they mislead",
        lambda q: q.full_trainings < ENOUGH_FOR_A_MODEL,
        lambda q: RandomSearch(),
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
        f"{CURVES}, 4 tasks, 30 seeds: the mean of the best six is ahead with time for 4, 8, 16 "
        f"and 32; {COMPARED}, 6 seeds of one task, all ahead",
        lambda q: True,
        lambda q: _gp(),
    ),
)


def _grid(question: Question) -> Searcher:
    """All values: those of an Integer have to be asked for."""
    sizes = [d.high - d.low + 1 for d in question.space.domains.values() if isinstance(d, Integer)]
    return GridSearch(num_points=max(sizes)) if sizes else GridSearch()


def _gp() -> Searcher:
    from daskhpo.searchers.gp.search import GPSearch  # scipy takes a while to load

    return GPSearch()


def _mutates_numbers(question: Question) -> bool:
    domains = question.space.domains
    return any(isinstance(domains[name], Real | Integer) for name in question.schedule)


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
