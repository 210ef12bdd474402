"""Schedulers by Ray Tune's names; a study makes daskhpo's of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from daskhpo import schedulers
from daskhpo.core.arguments import shown
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import is_number
from daskhpo.core.scheduler import Scheduler
from daskhpo.results.schedule import Schedule
from daskhpo.tune.drawn import FromFunction
from daskhpo.tune.messages import cannot, no_effect, say
from daskhpo.tune.names import ITERATION
from daskhpo.tune.space import Function, Parameter

ENDLESS = 2**31 - 1  # units of trials that end by themselves
Make = Callable[[int], Scheduler]


HOOKS = (  # of a scheduler of one's own
    *("choose_trial_to_run", "on_trial_add", "on_trial_complete", "on_trial_error"),
    *("on_trial_remove", "on_trial_result"),
)


class TrialScheduler:
    """Base class of schedulers.

    Parameters
    ----------
    time_attr : reported number that counts the reports; None: ``training_iteration``.
    metric, mode : what it compares; None: what the study gives.
    *args, **kwargs : of :meth:`describe`.
    reward_attr : of 2018: a metric to be maximised.

    Attributes
    ----------
    space : domains and values that it adds to the study's space.
    """

    def __init__(
        self,
        time_attr: str | None = None,
        metric: str | None = None,
        mode: str | None = None,
        *args: Any,
        reward_attr: str | None = None,
        **kwargs: Any,
    ) -> None:
        if own := [name for name in HOOKS if hasattr(self, name)]:
            cannot(
                f"{', '.join(own)} of {type(self).__name__}, a scheduler of your own",
                "derive it from daskhpo.schedulers.Scheduler; see docs/how-to/write-a-scheduler.md",
            )
        self.metric, self.mode = metric, mode
        if reward_attr is not None:
            self.metric, self.mode = reward_attr, "max"
        if time_attr is not None and time_attr.endswith(("_s", "_seconds")):
            cannot(
                f"{type(self).__name__}(time_attr={time_attr!r})",
                "a trial's resource is the number of its reports: use "
                "time_attr='training_iteration', and time_budget_s for time",
            )
        self._is_in_seconds = time_attr is None  # in Ray, what is counted here in reports
        self.time_attr = time_attr or ITERATION
        self.space: dict[str, Any] = {}
        self._make = self.describe(*args, **kwargs)

    def describe(self) -> Make:
        """Return what makes daskhpo's scheduler; the parameters are Ray's, after ``mode``."""
        return schedulers.FIFO

    def made(self, longest: int) -> Scheduler:
        """Return daskhpo's scheduler.

        Parameters
        ----------
        longest : reports after which a trial ends anyway.
        """
        return self._make(longest)

    def _reports(self, name: str, value: Any) -> int:
        """Return an option that counts reports; say so if Ray would count seconds."""
        number = whole(name, value)
        if self._is_in_seconds:
            say(
                f"{type(self).__name__}({name}={number})",
                "counts reports; in Ray it would be seconds, because time_attr is not given",
            )
        return number


class FIFOScheduler(TrialScheduler):
    """Every trial trains to its end: `daskhpo.schedulers.FIFO`."""


class AsyncHyperBandScheduler(TrialScheduler):
    """Asynchronous successive halving: `daskhpo.schedulers.ASHA`."""

    def describe(
        self,
        max_t: int = 100,
        grace_period: int = 1,
        reduction_factor: float = 4,
        brackets: int = 1,
        stop_last_trials: bool = True,
    ) -> Make:
        if not stop_last_trials:
            cannot("stop_last_trials=False", "ASHA ends a trial at max_t; give a larger max_t")
        factor = whole("reduction_factor", reduction_factor)
        made = schedulers.ASHA(
            whole("max_t", max_t), whole("grace_period", grace_period), factor, brackets
        )
        return lambda longest: made


ASHAScheduler = AsyncHyperBandScheduler


class HyperBandScheduler(TrialScheduler):
    """Hyperband: `daskhpo.schedulers.Hyperband`."""

    def describe(
        self, max_t: int = 81, reduction_factor: float = 3, stop_last_trials: bool = True
    ) -> Make:
        if not stop_last_trials:
            cannot("stop_last_trials=False", "Hyperband ends a trial at max_t")
        factor = whole("reduction_factor", reduction_factor)
        made = schedulers.Hyperband(whole("max_t", max_t), reduction_factor=factor)
        return lambda longest: made


class MedianStoppingRule(TrialScheduler):
    """The median stopping rule: `daskhpo.schedulers.MedianStopping`."""

    def describe(
        self,
        grace_period: float | None = None,
        min_samples_required: int = 3,
        min_time_slice: int = 0,
        hard_stop: bool = True,
    ) -> Make:
        if not hard_stop:
            cannot("hard_stop=False", "a trial below the median ends; use ASHA to pause trials")
        no_effect({"min_time_slice": min_time_slice}, "trials are not paused for others")
        grace = 1 if grace_period is None else self._reports("grace_period", grace_period)
        return lambda longest: schedulers.MedianStopping(
            schedulers.FIFO(longest), grace, min_samples=min_samples_required
        )


class PopulationBasedTraining(TrialScheduler):
    """Population based training: `daskhpo.schedulers.PBT`."""

    def describe(
        self,
        perturbation_interval: float = 60,
        burn_in_period: float = 0,
        hyperparam_mutations: Mapping[str, Any] | None = None,
        quantile_fraction: float = 0.25,
        resample_probability: float = 0.25,
        perturbation_factors: tuple[float, float] = (1.2, 0.8),
        custom_explore_fn: Callable[..., Any] | None = None,
        log_config: bool = True,
        require_attrs: bool = True,
        synch: bool = False,
    ) -> Make:
        interval = self._reports("perturbation_interval", perturbation_interval)
        if custom_explore_fn is not None:
            cannot("custom_explore_fn", "daskhpo.schedulers.PBT perturbs within mutations=")
        if burn_in_period:
            cannot("burn_in_period", "use a larger perturbation_interval")
        if tuple(perturbation_factors) != (1.2, 0.8):
            cannot("perturbation_factors", "daskhpo.schedulers.PBT multiplies by 1.2 or 0.8")
        if not hyperparam_mutations:
            raise InvalidArgument("hyperparam_mutations is empty: name what may change")
        self.space = dict(_mutations(hyperparam_mutations))
        return lambda longest: schedulers.PBT(
            longest, interval, self.space, quantile_fraction, resample_probability, synch
        )


class PB2(TrialScheduler):
    """Population based bandits: `daskhpo.schedulers.PB2`."""

    def describe(
        self,
        perturbation_interval: float = 60,
        hyperparam_bounds: Mapping[str, Sequence[float]] | None = None,
        quantile_fraction: float = 0.25,
        log_config: bool = True,
        require_attrs: bool = True,
        synch: bool = False,
        custom_explore_fn: Callable[..., Any] | None = None,
    ) -> Make:
        interval = self._reports("perturbation_interval", perturbation_interval)
        if custom_explore_fn is not None:
            cannot("custom_explore_fn", "daskhpo.schedulers.PB2 explores within mutations=")
        if not hyperparam_bounds:
            raise InvalidArgument("hyperparam_bounds is empty: name what may change")
        for name, (low, high) in hyperparam_bounds.items():
            is_int = isinstance(low, int) and isinstance(high, int)
            self.space[name] = Integer(int(low), int(high)) if is_int else Real(low, high)
        return lambda longest: schedulers.PB2(
            longest, interval, self.space, quantile_fraction, synch
        )


class PopulationBasedTrainingReplay(TrialScheduler):
    """Training by a recorded schedule: `daskhpo.schedulers.PBTReplay`."""

    def __init__(self, policy_file: str) -> None:
        super().__init__()
        if Path(policy_file).suffix != ".json":
            cannot(
                f"PopulationBasedTrainingReplay({policy_file!r}), a policy that Ray has written",
                "give a file that daskhpo's Result.schedule().save(path) has written",
            )
        schedule = Schedule.load(Path(policy_file))
        self.space = dict(schedule.initial)
        self._make = lambda longest: schedulers.PBTReplay(schedule)


SCHEDULERS = {
    "fifo": "FIFOScheduler",
    "async_hyperband": "AsyncHyperBandScheduler",
    "asynchyperband": "AsyncHyperBandScheduler",
    "asha": "AsyncHyperBandScheduler",
    "hyperband": "HyperBandScheduler",
    "median_stopping_rule": "MedianStoppingRule",
    "medianstopping": "MedianStoppingRule",
    "pbt": "PopulationBasedTraining",
    "pb2": "PB2",
    "pbt_replay": "PopulationBasedTrainingReplay",
    "hb_bohb": "HyperBandForBOHB",
    "resource_changing": "ResourceChangingScheduler",
}


def create_scheduler(scheduler: str, **kwargs: Any) -> TrialScheduler:
    """Return the scheduler of a name, such as ``"asha"``."""
    if (name := scheduler.lower()) not in SCHEDULERS:
        raise InvalidArgument(f"scheduler={scheduler!r} must be one of {sorted(SCHEDULERS)}")
    made: TrialScheduler = globals()[SCHEDULERS[name]](**kwargs)
    return made


def whole(name: str, value: Any) -> int:
    """Return a whole number."""
    if not is_number(value) or value != int(value):
        raise InvalidArgument(f"{name}={shown(value)} must be a whole number: of reports")
    return int(value)


def _mutations(given: Mapping[str, Any], prefix: str = "") -> Any:
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _mutations(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", _mutation(f"{prefix}{name}", value)


def _mutation(name: str, value: Any) -> Domain:
    match value:
        case Parameter(domain=Domain() as domain, read=None):
            return domain
        case Domain():
            return value
        case list() | tuple():
            values = list(value)
            if all(map(is_number, values)) and sorted(set(values)) == sorted(values):
                return Ordinal(sorted(values))
            return Categorical(values)
        case _ if callable(value) and not isinstance(value, (Parameter, Function)):
            return FromFunction(value)
    raise InvalidArgument(
        f"hyperparam_mutations[{name!r}]={shown(value)} must be a list, a function without "
        "arguments, or one of tune.uniform, loguniform, quniform, randint, choice"
    )
