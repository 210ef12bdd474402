"""The compared methods: a scheduler, a searcher and a checkpoint policy each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daskhpo.schedulers import (
    ASHA,
    FIFO,
    AsyncHyperband,
    GuardedASHA,
    Hyperband,
    MedianStopping,
    Scheduler,
)
from daskhpo.searchers import ForestSearch, GPSearch, RandomSearch, Searcher
from experiments.adsorption.profiles import Profile


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes
    ----------
    name : part of the names of studies.
    label : name in tables and figures.
    colour : colour of its lines; colour-blind readers can distinguish them (Okabe & Ito 2008).
    scheduler : makes the scheduler for a profile.
    searcher : makes the searcher.
    checkpoint : checkpoint policy.
    """

    name: str
    label: str
    colour: str
    scheduler: Callable[[Profile], Scheduler]
    searcher: Callable[[], Searcher] = RandomSearch
    checkpoint: str = "auto"


def _asha(task: Profile) -> Scheduler:
    return ASHA(task.max_t, task.grace_period, task.eta, compare="best")


def _promotion(task: Profile) -> Scheduler:
    return ASHA(task.max_t, task.grace_period, task.eta, variant="promotion", compare="best")


def _brackets(task: Profile) -> Scheduler:
    return AsyncHyperband(task.max_t, task.grace_period, task.eta, compare="best")


def _default(task: Profile) -> Scheduler:
    """Return the scheduler of a study that names none; its first rung is earlier."""
    return GuardedASHA(task.max_t)


def _hyperband(task: Profile) -> Scheduler:
    return Hyperband(task.max_t, task.grace_period, task.eta, compare="best")


def _median(task: Profile) -> Scheduler:
    return MedianStopping(FIFO(task.max_t), grace_period=task.grace_period)


def _all(task: Profile) -> Scheduler:
    return FIFO(task.max_t)


METHODS = {
    method.name: method
    for method in (
        Method("rs", "RS", "#555555", _all),
        Method("asha", "ASHA/RS", "#0072B2", _asha),
        Method("ahb", "AHB/RS", "#009E73", _brackets),
        Method("asha-gp", "ASHA/GP", "#D55E00", _asha, GPSearch),
        Method("default", "GuardedASHA/forest", "#000000", _default, ForestSearch),
        Method("promotion", "ASHA/RS, promotion", "#56B4E9", _promotion),
        Method("hyperband", "Hyperband/RS", "#CC79A7", _hyperband),
        Method("median", "Median stopping/RS", "#B8860B", _median),
        Method("asha-every", "ASHA/RS, every epoch", "#7F3C8D", _asha, checkpoint="every:1"),
    )
}
REFERENCE = METHODS["rs"]
COMPARED = [method for method in METHODS.values() if method.name != "asha-every"]
CHECKPOINTING = (METHODS["asha-every"], METHODS["asha"])
SEARCHES = (METHODS["asha"], METHODS["asha-gp"])


def in_turn(seed: int) -> list[Method]:
    """Return all methods in the order in which a seed runs them.

    The order is rotated from seed to seed. So a machine that becomes slower, warmer or busier over
    an hour does not always affect the same method.
    """
    methods = list(METHODS.values())
    first = 4 * seed % len(methods)  # 4 and 9 have no common factor: 9 seeds, 9 different orders
    return methods[first:] + methods[:first]
