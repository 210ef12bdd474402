"""Rules that end trials, or the study: Ray Tune's stoppers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import pstdev
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudySummary
from daskhpo.core.errors import InvalidArgument, MetricError
from daskhpo.core.objective import RESERVED, single_number
from daskhpo.tune.messages import say
from daskhpo.tune.names import ITERATION, flat, trial_name
from daskhpo.tune.result import SHOULD_CHECKPOINT


class Stopper(ABC):
    """A rule: it is called with each result, and says if the trial is to stop.

    Each trial has a copy, so a rule for one trial may keep what it saw. Another copy sees the
    results of all trials; its :meth:`stop_all` ends the study.
    """

    @abstractmethod
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return True if the trial is to stop."""

    @abstractmethod
    def stop_all(self) -> bool:
        """Return True if the study is to stop."""


class NoopStopper(Stopper):
    """A rule that stops nothing."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return False


class FunctionStopper(NoopStopper):
    """A rule for one trial: a function of its id and its result."""

    def __init__(self, function: Callable[[str, dict[str, Any]], bool]) -> None:
        self._function = function

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(self._function(trial_id, result))


class MaximumIterationStopper(NoopStopper):
    """A rule for one trial: it stops after so many reports."""

    def __init__(self, max_iter: int) -> None:
        self.max_iter = max_iter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(result[ITERATION] >= self.max_iter)


class TimeoutStopper(NoopStopper):
    """A rule for the study: it ends after so many seconds."""

    def __init__(self, timeout: float | timedelta) -> None:
        self.seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


class TrialPlateauStopper(NoopStopper):
    """A rule for one trial: it stops when its last values differ no more.

    Parameters
    ----------
    std : standard deviation of the last ``num_results`` values at which it stops.
    grace_period : reports before which it does not.
    metric_threshold, mode : it stops only if the value is no better than this.
    """

    def __init__(
        self,
        metric: str,
        std: float = 0.01,
        num_results: int = 4,
        grace_period: int = 4,
        metric_threshold: float | None = None,
        mode: str | None = None,
    ) -> None:
        if metric_threshold is not None and mode not in ("min", "max"):
            raise InvalidArgument(f"mode={mode!r} must be 'min' or 'max' with metric_threshold")
        self._metric, self._std, self._grace = metric, std, grace_period
        self._threshold, self._mode = metric_threshold, mode
        self._last: deque[float] = deque(maxlen=num_results)
        self._n = 0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        value = result[self._metric]
        self._last.append(value)
        self._n += 1
        if self._n < self._grace or len(self._last) < (self._last.maxlen or 0):
            return False
        if self._threshold is not None:
            is_better = value > self._threshold if self._mode == "max" else value < self._threshold
            if is_better:
                return False
        return pstdev(self._last) <= self._std


class ExperimentPlateauStopper(NoopStopper):
    """A rule for the study: it ends when the best values of all trials differ no more.

    Parameters
    ----------
    std, top : standard deviation of the ``top`` best values at which it ends.
    patience : further results in a row for which that must hold.
    """

    def __init__(
        self, metric: str, std: float = 0.001, top: int = 10, mode: str = "min", patience: int = 0
    ) -> None:
        self._metric, self._std, self._top, self._patience = metric, std, top, patience
        self._sign = 1 if mode == "min" else -1
        self._best: list[float] = []
        self._n_still = 0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        value = self._sign * result[self._metric]
        self._best = sorted([*self._best, value])[: self._top]
        is_still = len(self._best) == self._top and pstdev(self._best) <= self._std
        self._n_still = self._n_still + 1 if is_still else 0
        return False  # `stop_all` ends all trials

    def stop_all(self) -> bool:
        return self._n_still > self._patience


class CombinedStopper(Stopper):
    """Several rules: one of them is enough."""

    def __init__(self, *stoppers: Stopper) -> None:
        self.stoppers = stoppers

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        said = [stopper(trial_id, result) for stopper in self.stoppers]  # all of them see it
        return any(said)

    def stop_all(self) -> bool:
        return any(stopper.stop_all() for stopper in self.stoppers)


class StopStudy(Callback):
    """Ends a study when a stopper's `stop_all` says so.

    It reads the journal a few times a second, so that very short trials may start meanwhile.

    Attributes
    ----------
    stop : ends the study, with a reason; set when it has begun.
    """

    def __init__(self, stopper: Stopper) -> None:
        self._stopper = stopper
        self.stop: Callable[[str], None] | None = None

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        own = {ITERATION: report.resource, "time_total_s": trial.seconds, "done": False}
        self._stopper(trial_name(trial.id), {**report.metrics, **own})

    def on_tick(self, study: StudySummary) -> None:
        if self.stop is not None and self._stopper.stop_all():
            self.stop(f"{type(self._stopper).__name__}.stop_all()")


@dataclass(frozen=True)
class Rules:
    """Rules for the reports of a trial.

    Attributes
    ----------
    metric : of the study.
    reached : values by name at which a trial stops.
    stopper : a further rule.
    time_attr : reported number that counts the reports; "": none.
    experiment : name of the study, or of the trained function.
    """

    metric: str
    reached: dict[str, float] = field(default_factory=dict)
    stopper: Stopper | None = None
    time_attr: str = ""
    experiment: str = "study"

    def new_stopper(self) -> Stopper | None:
        """Return a stopper for one trial."""
        return copy.deepcopy(self.stopper)

    def is_reached(self, result: Mapping[str, Any]) -> bool:
        """Return True if a result has reached a value at which its trial stops."""
        for name, limit in self.reached.items():
            if name not in result:
                raise MetricError(f"stop={{{name!r}: ...}}: a report lacks it; it has {[*result]}")
            if result[name] >= limit:
                return True
        return False

    def numbers(self, metrics: Mapping[Any, Any], iteration: int) -> dict[str, float]:
        """Return the numbers of a report, by flat names; others are left out."""
        found: dict[str, float] = {}
        for name, value in flat(metrics):
            number = single_number(value)
            if name == SHOULD_CHECKPOINT and value:
                say(SHOULD_CHECKPOINT, "has no effect: a study saves what it needs")
            if name.startswith("config/"):
                continue  # what Ray adds
            if name in RESERVED and name != self.metric:
                say(f"the metric {name!r}", "is not recorded: the name is daskhpo's own; rename it")
            elif number is None:
                say(f"the metric {name!r}", "is not recorded: it is no number")
            elif name not in OWN:
                found[name] = number
        if self.time_attr and self.time_attr != ITERATION:
            counted = found.get(self.time_attr)
            if counted not in (iteration, iteration - 1):
                raise MetricError(
                    f"time_attr={self.time_attr!r} must count the reports, from 0 or 1, but report "
                    f"{iteration} has {counted!r}; use time_attr='training_iteration'"
                )
        if self.metric == ITERATION:
            found[ITERATION] = iteration
        return found


# What Ray adds to each result; it is made again when results are read.
OWN = frozenset(
    {
        *(ITERATION, "time_total_s", "time_this_iter_s", "timestamp", "date", "done", "trial_id"),
        *("trial_name", "hostname", "node_ip", "pid", "experiment_id", "should_checkpoint"),
        *("iterations_since_restore", "time_since_restore", "checkpoint_dir_name"),
    }
)


def stop_rules(stop: Any) -> tuple[dict[str, float], Stopper | None, float | None]:
    """Return the values to reach, a further rule, and the seconds of the study.

    Parameters
    ----------
    stop : a dict, a function, a stopper, or a list of stoppers.
    """
    match stop:
        case None:
            return {}, None, None
        case Mapping():
            return _checked(stop), None, None
        case TimeoutStopper():
            return {}, None, stop.seconds
        case MaximumIterationStopper():
            return {ITERATION: stop.max_iter}, None, None
        case CombinedStopper():
            return stop_rules(stop.stoppers)
        case Stopper():
            return {}, stop, None
        case list() | tuple():
            return _merged([stop_rules(each) for each in stop])
        case _ if callable(stop):
            return {}, FunctionStopper(stop), None
    raise InvalidArgument(f"stop={stop!r} must be a dict, a function or a Stopper")


def _checked(stop: Mapping[str, Any]) -> dict[str, float]:
    for name, value in stop.items():
        if single_number(value) is None:
            raise InvalidArgument(f"stop={{{name!r}: {value!r}}} must be a number to reach")
    return {name: float(value) for name, value in stop.items()}


def _merged(
    rules: Sequence[tuple[dict[str, float], Stopper | None, float | None]],
) -> tuple[dict[str, float], Stopper | None, float | None]:
    reached: dict[str, float] = {}
    for values, _, _ in rules:
        for name, value in values.items():
            reached[name] = min(value, reached.get(name, value))
    stoppers = [stopper for _, stopper, _ in rules if stopper is not None]
    times = [seconds for _, _, seconds in rules if seconds is not None]
    stopper = CombinedStopper(*stoppers) if len(stoppers) > 1 else stoppers[0] if stoppers else None
    return reached, stopper, min(times, default=None)


EarlyStopping = ExperimentPlateauStopper  # its name in 2020
