"""Checks of the parts of a study, before anything starts."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from daskhpo.core.objective import check_metric_name
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.engine.coordinator import Problem
from daskhpo.trainable import Trainable, n_arguments


def check_parts(problem: Problem, trainable: Any) -> None:
    """Check that the parts are valid and fit the space and the trainable.

    Raises
    ------
    TypeError, ValueError : a part is not valid; the message says what it must be.
    """
    if not isinstance(problem.scheduler, Scheduler):
        raise TypeError(
            f"scheduler={problem.scheduler!r} must be a scheduler, such as ASHA(max_t=27)"
        )
    if not isinstance(problem.searcher, Searcher):
        raise TypeError(f"searcher={problem.searcher!r} must be a searcher, such as RandomSearch()")
    if not isinstance(problem.seed, int) or isinstance(problem.seed, bool):
        raise TypeError(f"seed={problem.seed!r} must be an int")
    check_metric_name(problem.objective.metric)
    for part in (problem.scheduler, problem.searcher):
        copy.deepcopy(part).setup(problem.space, problem.seed)
    _check_states(trainable, problem.scheduler)
    if not isinstance(trainable, type) and trainable is not None and n_arguments(trainable) == 1:
        max_t = problem.scheduler.max_t
        if max_t > 1:
            raise ValueError(
                f"trainable={trainable!r} takes config alone, so it reports once, at its end, but "
                f"max_t={max_t}: let it take (config, trial) and report each unit, or give "
                "scheduler=FIFO(1)"
            )
    _check_mutations(trainable, problem.scheduler)


def check_name(name: str) -> str:
    """Return a study's name, if it is a plain folder name."""
    if not isinstance(name, str):
        raise TypeError(f"name={name!r} must be a str")
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"name={name!r} must be a plain folder name")
    return name


def _check_states(trainable: Any, scheduler: Scheduler) -> None:
    """Refuse a population of objects without states: no member could take over another one's."""
    if (
        scheduler.is_population
        and isinstance(trainable, type)
        and issubclass(trainable, Trainable)
        and trainable.save_checkpoint is Trainable.save_checkpoint
    ):
        raise ValueError(
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
        raise ValueError(
            f"mutations: {', '.join(refused)} would change the shape of {trainable.__name__}'s "
            f"state, so that no member could take over another one's. Mutate only {others}, "
            "or make load_checkpoint adapt such a state and set adapts_checkpoints = True"
        )


def check_trainable(trainable: Any) -> Any:
    if trainable is None:
        return None
    if isinstance(trainable, type):
        if not issubclass(trainable, Trainable):
            raise TypeError(
                f"trainable={trainable.__name__} must be a subclass of daskhpo.Trainable"
            )
        missing = sorted(getattr(trainable, "__abstractmethods__", ()))
        if missing:
            raise TypeError(f"trainable={trainable.__name__} does not define {', '.join(missing)}")
        return trainable
    if not callable(trainable):
        raise TypeError(
            f"trainable={trainable!r} must be a daskhpo.Trainable subclass, or a function "
            "f(config, trial) that reports"
        )
    if n_arguments(trainable) == 0:
        raise TypeError(
            f"trainable={trainable!r} must take (config, trial), or config alone: it takes "
            f"{inspect.signature(trainable)}"
        )
    return trainable
