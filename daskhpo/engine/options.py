"""How a session is run, as users write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.policy import check_policy
from daskhpo.study.limits import check_limits, seconds_of

if TYPE_CHECKING:
    from daskhpo.engine.coordinator import Problem


@dataclass(frozen=True)
class RunOptions:
    """All that a user may say of a run besides what the study is; plain data.

    Attributes
    ----------
    limits, policy : where it ends; which states are written.
    resources : what a trial needs.
    max_concurrent : most trials at a time; None: all that have room.
    worker_timeout : seconds to wait for the first suitable worker; None: for ever.
    reuse_actors, verify_reuse : let objects serve many trials; compare them with new ones.
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
    """The options as :meth:`daskhpo.Study.start` takes them, checked.

    Raises
    ------
    TypeError, ValueError : bad arguments, nothing that would ever end the study, or a population
        without a number of members.
    """
    limits = Limits(num_trials, None, target, max_failures, fail_fast)
    limits = check_limits(limits, time_budget, problem)
    timeout = None if worker_timeout is None else seconds_of(worker_timeout, "worker_timeout")
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
            f"resources['cpu']={asked['cpu']!r} must be a whole number: a trial has its own process"
        )
    if asked.get("gpu", 0) > 1 and asked["gpu"] != int(asked["gpu"]):
        raise ValueError(f"resources['gpu']={asked['gpu']!r} must be whole above 1")
    return asked
