"""Checks of the parts of a study, before anything starts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from daskhpo.core.arguments import (
    check_callable,
    check_int,
    check_kind,
    check_text,
    optional,
    shown,
)
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.objective import check_metric_name
from daskhpo.core.random import rng
from daskhpo.core.rungs import RESOURCE
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.foresight import check_memory
from daskhpo.schedulers.fifo import FIFO
from daskhpo.schedulers.guarded import GuardedASHA
from daskhpo.searchers.forest.search import ForestSearch
from daskhpo.searchers.random import RandomSearch
from daskhpo.trainable import Trainable, check_runs, n_arguments

LONGEST_NAME = 200  # bytes; a folder's name has at most 255, and a branch in the making has more
SHORTEST_LADDER = 3  # units; with fewer there is no rung before the end

# What is called on an object of a trainable, with as many arguments.
CALLED = {
    "setup": ("config",),
    "step": (),
    "save_checkpoint": (),
    "load_checkpoint": ("state",),
    "reset_config": ("config",),
    "cleanup": (),
}


def check_parts(problem: Problem, trainable: Any) -> None:
    """Check that the parts are valid and fit the space and the trainable.

    Raises
    ------
    InvalidArgument : a part is not valid; the message says what it must be.
    """
    check_kind("scheduler", problem.scheduler, Scheduler, "a scheduler, such as ASHA(max_t=27)")
    check_kind("searcher", problem.searcher, Searcher, "a searcher, such as RandomSearch()")
    metric = problem.objective.metric
    check_metric_name(check_text("metric", metric, why="the name of a reported number"))
    for part in (problem.scheduler, problem.searcher):
        copy.deepcopy(part).setup(problem.space, problem.seed)
    if problem.memory_of is not None:
        such_as = "a function of a configuration, such as lambda config: config['batch'] * 2**20"
        check_callable("memory", problem.memory_of, such_as)
        check_memory(problem.memory_of, problem.space.sample(rng(problem.seed, "check")))
    _check_states(trainable, problem.scheduler)
    _check_units(trainable, problem.scheduler)
    _check_mutations(trainable, problem.scheduler)


def default_parts(
    trainable: Any, scheduler: Scheduler | None, searcher: Searcher | None, max_t: int | None
) -> tuple[Scheduler, Searcher]:
    """Return a study's scheduler and searcher, by default those that belong together.

    Raises
    ------
    InvalidArgument : no scheduler and no ``max_t`` are given, or both.
    """
    is_default = scheduler is None
    if scheduler is None:
        scheduler = _default_scheduler(trainable, max_t)
    elif max_t is not None:
        raise InvalidArgument(
            f"max_t={shown(max_t)} is for a study without a scheduler, but scheduler="
            f"{shown(scheduler)} has its own: give one of the two"
        )
    if searcher is None:
        has_model = is_default or isinstance(scheduler, GuardedASHA)
        searcher = ForestSearch() if has_model else RandomSearch()
    return scheduler, searcher


def _default_scheduler(trainable: Any, max_t: int | None) -> Scheduler:
    max_t = optional(check_int, "max_t", max_t, at_least=1, why=RESOURCE)
    if max_t is None and _reports_once(trainable):
        max_t = 1
    if max_t is None:
        raise InvalidArgument(
            "max_t is not given: how many units of training, that is reports, has a trial that is "
            "trained to the end? Give max_t=81, say, or a scheduler, such as scheduler=FIFO(81); "
            "max_t=1 if a trial reports once"
        )
    if max_t < SHORTEST_LADDER:
        return FIFO(max_t)
    return GuardedASHA(max_t)


def _reports_once(trainable: Any) -> bool:
    """Return True for a function that takes ``config`` alone."""
    is_function = trainable is not None and not isinstance(trainable, type)
    return is_function and n_arguments(trainable) == 1


def check_seed(seed: Any) -> int:
    """Return a study's seed: an int of 0 or more, below 2**63."""
    return check_int("seed", seed, at_least=0)


def check_name(name: Any) -> str:
    """Return a study's name, if it is a plain folder name."""
    plain = check_text("name", name, why="a plain folder name")
    if "/" in plain or plain.startswith(".") or plain != plain.strip():
        raise InvalidArgument(
            f"name={plain!r} must be a plain folder name: without '/', a leading '.' or outer "
            "spaces"
        )
    if len(plain.encode()) > LONGEST_NAME:
        raise InvalidArgument(f"name={shown(plain)} must have at most {LONGEST_NAME} bytes")
    return plain


def _check_units(trainable: Any, scheduler: Scheduler) -> None:
    """Refuse several units of a function that reports once, at its end."""
    if scheduler.max_t > 1 and _reports_once(trainable):
        raise InvalidArgument(
            f"trainable={shown(trainable)} takes config alone, so it reports once, at its end, but "
            f"max_t={scheduler.max_t}: let it take (config, trial) and report each unit, or give "
            "scheduler=FIFO(1), or neither a scheduler nor max_t"
        )


def _check_states(trainable: Any, scheduler: Scheduler) -> None:
    """Refuse a population of objects without states."""
    if (
        scheduler.is_population
        and isinstance(trainable, type)
        and issubclass(trainable, Trainable)
        and trainable.save_checkpoint is Trainable.save_checkpoint
    ):
        raise InvalidArgument(
            f"trainable={trainable.__name__} has no save_checkpoint, but {scheduler!r} lets "
            "members continue from the states of others: define save_checkpoint and "
            "load_checkpoint"
        )


def _check_mutations(trainable: Any, scheduler: Scheduler) -> None:
    """Refuse mutations of hyperparameters that the shape of a model depends on."""
    if (
        not (isinstance(trainable, type) and issubclass(trainable, Trainable))
        or trainable.adapts_checkpoints
    ):
        return
    refused = [name for name in scheduler.mutates if name in trainable.shape_hyperparameters]
    if refused:
        others = [name for name in scheduler.mutates if name not in refused]
        instead = f"Mutate only {', '.join(others)}" if others else "Mutate others"
        raise ValueError(
            f"mutations: {', '.join(refused)} would change the shape of {trainable.__name__}'s "
            f"state, so that no member could take over another one's. {instead}, "
            "or make load_checkpoint adapt such a state and set adapts_checkpoints = True"
        )


def check_trainable(trainable: Any) -> Any:
    """Return a trainable whose methods can be called as a worker will call them."""
    if trainable is None:
        return None
    if isinstance(trainable, type):
        _check_class(trainable)
        return trainable
    if not callable(trainable):
        made = " (an object: give the class)" if isinstance(trainable, Trainable) else ""
        raise InvalidArgument(
            f"trainable={shown(trainable)} must be a daskhpo.Trainable subclass, or a function "
            f"f(config, trial) that reports{made}"
        )
    check_runs(f"trainable={shown(trainable)}", trainable)
    if n_arguments(trainable) == 0:
        raise InvalidArgument(
            f"trainable={shown(trainable)} must take (config, trial), or config alone: it takes "
            f"{inspect.signature(trainable)}"
        )
    _check_order(trainable)
    return trainable


def _check_order(function: Callable[..., Any]) -> None:
    """Refuse a function that has its two arguments in the other order."""
    try:
        names = [*inspect.signature(function).parameters]
    except ValueError:  # it does not tell
        return
    if names[:2] == ["trial", "config"]:
        raise InvalidArgument(
            f"trainable={shown(function)} takes (trial, config), but is called with (config, "
            "trial): swap them"
        )


def _check_class(trainable: type) -> None:
    name = trainable.__name__
    if not issubclass(trainable, Trainable):
        raise InvalidArgument(f"trainable={name} must be a subclass of daskhpo.Trainable")
    missing = sorted(getattr(trainable, "__abstractmethods__", ()))
    if missing:
        raise InvalidArgument(f"trainable={name} does not define {', '.join(missing)}")
    if (error := _refusal(trainable, ())) is not None:
        raise InvalidArgument(
            f"trainable={name} has an __init__ that needs arguments ({error}), but a worker calls "
            f"{name}(): move what it does to setup(config), or give its arguments defaults"
        )
    for method, arguments in CALLED.items():
        function = inspect.getattr_static(trainable, method)
        is_static = isinstance(function, (staticmethod, classmethod))
        function = getattr(trainable, method)
        check_runs(f"trainable={name}: {method}", function)
        given = arguments if is_static else ("self", *arguments)
        if (error := _refusal(function, given)) is not None:
            raise InvalidArgument(
                f"trainable={name}: its {method} is called as {method}({', '.join(arguments)}), "
                f"which it does not take: {error}. Define it as def "
                f"{method}({', '.join(('self', *arguments))})"
            )


def _refusal(function: Callable[..., Any], arguments: tuple[str, ...]) -> TypeError | None:
    """Return why a call with so many arguments would fail, or None."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # what is really called
    except (TypeError, ValueError):  # of a builtin
        return None
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return error
    return None
