"""The options of a run: the one place where each is named, described and checked.

`Study.start` and its kin, the command line, submissions and executors take all of them from here. A
new option is a field of `RunOptions`, a line in its docstring, and a line in a dictionary below.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, get_args

from daskhpo.core.arguments import (
    check_bool,
    check_choice,
    check_int,
    check_kind,
    check_mapping,
    check_number,
    optional,
)
from daskhpo.core.out_of_memory import OnOutOfMemory
from daskhpo.core.plain import short
from daskhpo.core.quantities import check_bytes, check_duration
from daskhpo.core.resource_names import hint
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.checkpoint_policy import check_policy

logger = logging.getLogger("daskhpo")


class LimitKeywords(TypedDict, total=False):
    """Limits of a run, as users may write them."""

    num_trials: int | None
    time_budget: float | str | None
    target: float | None


class RunKeywords(TypedDict, total=False):
    """Options of a run besides its limits, as users may write them."""

    resources: Mapping[str, float] | None
    max_concurrent: int | None
    worker_timeout: float | str | None
    checkpoint: str | CheckpointPolicy
    fail_fast: bool
    max_failures: int
    max_failed_trials: int
    trial_time_limit: float | str | None
    step_timeout: float | str | None
    memory_limit: int | str | None
    on_oom: OnOutOfMemory
    reuse_actors: bool
    verify_reuse: bool


class OptionKeywords(LimitKeywords, RunKeywords, total=False):
    """All options of a run, as users may write them."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run: plain data, checked when it is made.

    They are no part of a study's definition: each session may have others.

    Attributes
    ----------
    num_trials : number of trials in the whole study, earlier sessions included; None: no limit.
    time_budget : seconds of this session, or text such as ``"8h"`` or ``"1h30m"``; None: no limit.
    target : value of the metric at which the study stops; None: no limit.
    resources : what one trial needs: ``cpu`` (threads, 1 by default), ``gpu`` (the worker's ``GPU``
        resource; may be a fraction), or any other Dask resource that workers offer.
    max_concurrent : maximum number of trials at a time; None: as many as fit.
    worker_timeout : seconds, or text such as ``"10m"``, to wait for the first worker that can run a
        trial; None: no limit, with a warning.
    checkpoint : which states are written: ``"auto"`` (those worth their write), ``"every:N"`` (also
        after every N units), ``"rung"`` (after every segment), ``"end"`` (at every pause and end),
        ``"never"``; or a :class:`daskhpo.checkpoints.CheckpointPolicy`, which also limits the
        memory and disk that they use.
    fail_fast : stop at the first trial that fails.
    max_failures : number of retries of a trial whose code raised, from its checkpoint.
    max_failed_trials : stop the study if this many trials, the first of a session, all fail by the
        same error, and no other trial gets further; 0: no limit.
    trial_time_limit : seconds, or text such as ``"2h"``, that a trial may spend in slots, over all
        its attempts; then it ends at its next report as stopped, and what it has reported counts.
        A trial without a report ends as failed. If its code comes to no report within 10 seconds,
        or twice the longest unit so far, its process is replaced. None: no limit.
    step_timeout : seconds, or text such as ``"10m"``, that a trial's code may run without a report;
        then the trial fails, with its stack as the error, and its process is replaced. It is also
        the limit for ``setup`` and for saving. None: no limit.
    memory_limit : bytes, or text such as ``"8 GB"``, that a trial's process and its children may
        use; then the trial fails, and its process is replaced. None: only the worker's own limit.
    on_oom : what follows for a trial that finds too little memory: ``"infeasible"`` (it fails at
        once, and the searcher learns that), ``"retry_alone"`` (it runs once more, while no other
        trial uses its device or machine), ``"larger"`` (it runs once more on a worker with more
        memory, if one has served the study, or comes within a minute of the session's beginning);
        in each case its process is replaced.
    reuse_actors : let objects whose ``reset_config`` returns True serve many trials.
    verify_reuse : train each reused object's first segment also with a new object, and compare.

    Raises
    ------
    TypeError, ValueError : an option is not valid; the message says what it must be.

    Examples
    --------
    >>> options = RunOptions(num_trials=200, time_budget="8h", checkpoint="every:5")
    >>> options.time_budget
    28800.0
    >>> options.policy.every
    5
    """

    num_trials: int | None = None
    time_budget: float | None = None
    target: float | None = None
    resources: dict[str, float] = field(default_factory=dict)
    max_concurrent: int | None = None
    worker_timeout: float | None = None
    checkpoint: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    fail_fast: bool = False
    max_failures: int = 0
    max_failed_trials: int = 5
    trial_time_limit: float | None = None
    step_timeout: float | None = None
    memory_limit: int | None = None
    on_oom: OnOutOfMemory = "infeasible"
    reuse_actors: bool = True
    verify_reuse: bool = False

    if TYPE_CHECKING:  # more may be written than is kept: durations as text, policies by name

        def __init__(self, **given: Unpack[OptionKeywords]) -> None: ...

    def __post_init__(self) -> None:
        vars(self).update(  # a frozen object cannot be assigned to
            num_trials=optional(check_int, "num_trials", self.num_trials, at_least=1),
            time_budget=optional(check_duration, "time_budget", self.time_budget),
            target=optional(check_number, "target", self.target),
            resources=_check_resources(self.resources),
            max_concurrent=optional(check_int, "max_concurrent", self.max_concurrent, at_least=1),
            worker_timeout=optional(check_duration, "worker_timeout", self.worker_timeout),
            checkpoint=check_policy(self.checkpoint),
            fail_fast=check_bool("fail_fast", self.fail_fast),
            max_failures=check_int("max_failures", self.max_failures, at_least=0),
            max_failed_trials=check_int("max_failed_trials", self.max_failed_trials, at_least=0),
            trial_time_limit=optional(check_duration, "trial_time_limit", self.trial_time_limit),
            step_timeout=optional(check_duration, "step_timeout", self.step_timeout),
            memory_limit=optional(check_bytes, "memory_limit", self.memory_limit, at_least=1),
            on_oom=check_choice("on_oom", self.on_oom, get_args(OnOutOfMemory)),
            reuse_actors=check_bool("reuse_actors", self.reuse_actors),
            verify_reuse=check_bool("verify_reuse", self.verify_reuse),
        )

    @property
    def limits(self) -> Limits:
        """The options that end the session, or a trial that fails; the journal has them."""
        return Limits(
            self.num_trials,
            self.time_budget,
            self.target,
            self.max_failures,
            self.fail_fast,
            self.max_failed_trials,
            self.trial_time_limit,
            self.on_oom,
        )

    @property
    def policy(self) -> CheckpointPolicy:
        """The checkpoint policy; the journal has it."""
        return self.checkpoint

    @property
    def has_limit(self) -> bool:
        """True if at least one of the limits is given."""
        limits = (self.num_trials, self.time_budget, self.target)
        return any(limit is not None for limit in limits)

    def check_ends(self, scheduler: Scheduler, searcher: Searcher) -> None:
        """Check that a study with these parts ends.

        Raises
        ------
        ValueError : no limit ends it, or a population has no ``num_trials``.
        """
        if searcher.finite:
            return
        if not self.has_limit:
            raise ValueError(
                "nothing would end this study: give at least one of num_trials, time_budget and "
                "target"
            )
        if not scheduler.is_population:
            return
        if self.num_trials is None:
            raise ValueError(
                "num_trials is required for population-based schedulers: no member continues "
                "before all have started"
            )
        if self.num_trials < 2:
            raise ValueError(
                f"num_trials={self.num_trials} is the size of the population: a member takes over "
                "from another one, so give at least 2"
            )

    def warn_if_too_few(self, scheduler: Scheduler) -> None:
        """Log a warning if so few trials as ``num_trials`` may leave none fully trained."""
        n = self.num_trials
        if n is not None and not scheduler.is_enough(n):
            logger.warning(
                "num_trials=%s may be too few for %r: perhaps no trial reaches max_t=%s. Give more "
                "trials, a larger grace_period, or variant='stopping'",
                n,
                scheduler,
                scheduler.max_t,
            )

    def to_json(self) -> dict[str, Any]:
        """Return the options as data that JSON can hold; limits and policy are nested."""
        data = asdict(self)
        limits = {name: data.pop(name) for name in asdict(self.limits)}
        if self.max_failed_trials == RunOptions.max_failed_trials:  # as before there was one
            del limits["max_failed_trials"]
        if self.on_oom == "infeasible":
            del limits["on_oom"]
        for name in ("trial_time_limit", "step_timeout", "memory_limit"):  # as before, too
            for part in (limits, data):
                if part.get(name, 0) is None:
                    del part[name]
        return {"limits": limits, "policy": data.pop("checkpoint")} | data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> RunOptions:
        """Return the options of such data; an option that it lacks has its default."""
        others = {name: value for name, value in data.items() if name not in ("limits", "policy")}
        policy = CheckpointPolicy(**data["policy"])
        return RunOptions(**data["limits"], checkpoint=policy, **others)


def merge_options(
    method: str, options: RunOptions | None, keywords: Mapping[str, Any]
) -> RunOptions:
    """Return the options of a call from its ``options=`` and its other keywords.

    Parameters
    ----------
    method : name of the called method, for messages.
    keywords : values by name; None: not given.

    Raises
    ------
    TypeError : there is no such option, or one is given in both ways.
    """
    for name in keywords:
        if name not in OptionKeywords.__annotations__:
            raise TypeError(
                f"{method}() has no {name}=;{_meant(name)} besides its own parameters it takes "
                f"{', '.join(OptionKeywords.__annotations__)}"
            )
    base, defaults = RunOptions() if options is None else options, RunOptions()
    check_kind("options", base, RunOptions, "a daskhpo.RunOptions")
    given = {name: value for name, value in keywords.items() if value is not None}
    for name in given:
        if (set_already := getattr(base, name)) != getattr(defaults, name):
            raise TypeError(
                f"{name}={given[name]!r} and options=RunOptions({name}={set_already!r}) are both "
                f"given: give {name} once"
            )
    return replace(base, **given)


def _meant(name: str) -> str:
    close = get_close_matches(name, OptionKeywords.__annotations__, 1)
    return f" did you mean {close[0]}=?" if close else ""


def _check_resources(resources: Mapping[str, float] | None) -> dict[str, float]:
    of = "names to amounts, such as {'cpu': 2, 'gpu': 1}"
    given = {} if resources is None else check_mapping("resources", resources, of=of)
    asked = {"cpu": 1.0} | given
    if "GPU" in given:  # with it, a trial would get a worker with a GPU, and no device
        raise ValueError(f"resources={short(dict(given))}: {hint(['GPU'])}")
    for name, amount in given.items():
        asked[name] = check_number(f"resources[{name!r}]", amount, at_least=0)
    if asked["cpu"] != int(asked["cpu"]) or asked["cpu"] < 1:
        raise ValueError(
            f"resources['cpu']={asked['cpu']!r} must be a whole number of at least 1: each trial "
            "has its own process"
        )
    if asked.get("gpu", 0) > 1 and asked["gpu"] != int(asked["gpu"]):
        raise ValueError(f"resources['gpu']={asked['gpu']!r} must be a whole number if above 1")
    return asked
