"""Options and limits of a run, as users give them, and their checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from daskhpo.core.quantities import parse_duration
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.checkpoint_policy import check_policy

if TYPE_CHECKING:
    from daskhpo.engine.coordinator import Problem


@dataclass(frozen=True)
class RunOptions:
    """All options of a run, apart from the study's definition; plain data.

    Attributes
    ----------
    limits, policy : limits of the run; which states are written.
    resources : resources of one trial, by name.
    max_concurrent : maximum number of trials at a time; None: one per slot.
    worker_timeout : seconds to wait for the first suitable worker; None: no limit.
    reuse_actors, verify_reuse : reuse an object for several trials; compare reused objects with new
        ones.
    """

    limits: Limits
    policy: CheckpointPolicy
    resources: dict[str, float]
    max_concurrent: int | None = None
    worker_timeout: float | None = None
    reuse_actors: bool = True
    verify_reuse: bool = False


def check_options(
    problem: Problem,
    num_trials: int | None = None,
    time_budget: float | str | None = None,
    target: float | None = None,
    *,
    resources: Mapping[str, float] | None = None,
    max_concurrent: int | None = None,
    worker_timeout: float | str | None = None,
    checkpoint: str | CheckpointPolicy = "auto",
    fail_fast: bool = False,
    max_failures: int = 0,
    reuse_actors: bool = True,
    verify_reuse: bool = False,
) -> RunOptions:
    """Check the options that :meth:`daskhpo.Study.start` takes, and return them.

    Raises
    ------
    TypeError, ValueError : invalid arguments, no limit that ends the study, or a population
        without ``num_trials``.
    """
    limits = Limits(num_trials, None, target, max_failures, fail_fast)
    limits = check_limits(limits, time_budget, problem)
    timeout = None if worker_timeout is None else parse_duration(worker_timeout, "worker_timeout")
    if max_concurrent is not None and max_concurrent < 1:
        raise ValueError(f"max_concurrent={max_concurrent!r} must be at least 1")
    return RunOptions(
        limits,
        check_policy(checkpoint),
        _check_resources(resources),
        max_concurrent,
        timeout,
        reuse_actors,
        verify_reuse,
    )


def _check_resources(resources: Mapping[str, float] | None) -> dict[str, float]:
    asked = {"cpu": 1.0} | dict(resources or {})
    for name, amount in asked.items():
        if not isinstance(amount, (int, float)) or amount < 0:
            raise ValueError(f"resources[{name!r}]={amount!r} must be a number of 0 or more")
    if asked["cpu"] != int(asked["cpu"]) or asked["cpu"] < 1:
        raise ValueError(
            f"resources['cpu']={asked['cpu']!r} must be a whole number of at least 1: each trial "
            "has its own process"
        )
    if asked.get("gpu", 0) > 1 and asked["gpu"] != int(asked["gpu"]):
        raise ValueError(f"resources['gpu']={asked['gpu']!r} must be a whole number if above 1")
    return asked


def check_limits(limits: Limits, time_budget: float | str | None, problem: Problem) -> Limits:
    """Check the limits; return them with the time budget in seconds.

    Raises
    ------
    ValueError : numbers out of range, no limit that ends the study, or a population without
        ``num_trials``.
    """
    if time_budget is not None:
        limits = replace(limits, time_budget=parse_duration(time_budget))
    n = limits.num_trials
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise ValueError(f"num_trials={n!r} must be an int of at least 1, or None")
    if limits.max_failures < 0:
        raise ValueError(f"max_failures={limits.max_failures!r} must be 0 or more")
    if limits.target is not None and not math.isfinite(limits.target):
        raise ValueError(f"target={limits.target!r} must be finite")
    ends = (n, limits.time_budget, limits.target)
    if all(limit is None for limit in ends) and not problem.searcher.finite:
        raise ValueError(
            "nothing would end this study: give at least one of num_trials, time_budget and target"
        )
    if n is None and problem.scheduler.is_population and not problem.searcher.finite:
        raise ValueError(
            "num_trials is required for population-based schedulers: no member continues before "
            "all have started"
        )
    return limits
