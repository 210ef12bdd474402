"""Objectives of Optuna as trials: the space is found by running them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from daskhpo.core.arguments import check_callable, check_choice, check_mapping, check_number
from daskhpo.core.domains import (
    MOST_STEPS,
    Categorical,
    Domain,
    Integer,
    Ordinal,
    Real,
    n_steps,
)
from daskhpo.core.errors import InvalidArgument, MetricError
from daskhpo.core.objective import single_number
from daskhpo.core.plain import short
from daskhpo.core.random import rng
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.study.study import Study
from daskhpo.trainable import TrialContext

logger = logging.getLogger("daskhpo")

PROBES = 20  # runs of an objective that look for its space
VALUE = "value"  # name of the metric


def from_optuna(
    objective: Callable[[Any], Any],
    space: Mapping[str, Any] | None = None,
    *,
    direction: str = "minimize",
    probe_seconds: float = 10.0,
    scheduler: Scheduler | None = None,
    searcher: Searcher | None = None,
    storage: str | Path = "runs",
    name: str | None = None,
    seed: int = 0,
    max_t: int | None = None,
) -> Study:
    """Return a study of an objective that was written for Optuna.

    The metric is named ``value``; a unit is one ``trial.report``. An objective without reports has
    one unit, and its value is what it returns. After a report, a trial that is not to continue ends
    there: ``trial.should_prune()`` never returns True.

    Without ``space``, the objective runs here first, until its first report or its end: once with
    the largest ints and the first categories, so that loops are long, and then with others, while
    `probe_seconds` last. What it suggests is the study's space. What it suggests only later, in
    a branch that was not seen, is drawn at random in the trial, by the trial's seed and the name,
    and recorded as the metric ``suggested/NAME`` (of a category: its index). Either way a trial
    that continues elsewhere gets the same values.

    Parameters
    ----------
    objective : ``def objective(trial)``.
    space : domains by name; ``{}``: none, so that all values are drawn in the trials.
    direction : ``"minimize"`` or ``"maximize"``.
    probe_seconds : time after which no further run looks for the space; the first one is
        completed. It is not used with ``space``.
    scheduler, searcher, storage, name, seed, max_t : as for :class:`daskhpo.Study`.

    Raises
    ------
    TypeError, ValueError : an argument is not valid, or the objective raises while it is probed.

    Examples
    --------
    >>> def objective(trial):
    ...     x = trial.suggest_float("x", -1, 1)
    ...     if trial.suggest_categorical("kind", ["square", "shifted"]) == "shifted":
    ...         return (x - trial.suggest_float("shift", 0, 1)) ** 2
    ...     return x**2
    >>> study = from_optuna(objective)
    >>> [*study.problem.space]
    ['x', 'kind', 'shift']
    """
    check_callable("objective", objective, "a function: objective(trial)")
    direction = check_choice("direction", direction, ("minimize", "maximize"))
    check_number("probe_seconds", probe_seconds, at_least=0)
    reports = True
    if space is None:
        space, reports = found_space(objective, probe_seconds)
    else:
        space = check_mapping("space", space, of="names to domains, such as {'x': Real(0, 1)}")
    if not reports and scheduler is None and max_t is None:
        max_t = 1
    return Study(
        ObjectiveOfOptuna(objective),
        space or {"objective": getattr(objective, "__name__", "objective")},
        VALUE,
        "min" if direction == "minimize" else "max",
        scheduler=scheduler,
        searcher=searcher,
        storage=storage,
        name=name,
        seed=seed,
        max_t=max_t,
    )


class Suggestions:
    """Base class of Optuna's trial here: all names that give an objective a value.

    Attributes
    ----------
    params : values by name, so far.
    user_attrs : what `set_user_attr` has set.
    """

    number = 0

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.user_attrs: dict[str, Any] = {}

    def value_of(self, name: str, domain: Any) -> Any:
        """Return the value of a name for the first time; ``domain`` may be a plain value."""
        raise NotImplementedError

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a float between two bounds, perhaps a multiple of ``step`` above ``low``."""
        low, high = float(low), float(high)
        return float(self._suggest(name, _range(Real, low, high, step, log), low, step))

    def suggest_int(self, name: str, low: int, high: int, step: int = 1, log: bool = False) -> int:
        """Return an int between two bounds, perhaps a multiple of ``step`` above ``low``."""
        stride = None if step == 1 else step
        return int(self._suggest(name, _range(Integer, low, high, stride, log), low, stride))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of several values."""
        values = list(choices)
        return self._suggest(name, values[0] if len(values) == 1 else Categorical(values))

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """Return a float between two bounds."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """Return a float between two bounds, uniform in its logarithm."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """Return a float between two bounds, a multiple of ``q`` above ``low``."""
        return self.suggest_float(name, low, high, step=q)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep a value; a number is recorded with the next report."""
        self.user_attrs[key] = value

    def should_prune(self) -> bool:
        """Return False: a trial that is pruned does not return from its report."""
        return False

    def _suggest(self, name: str, domain: Any, low: Any = 0, step: Any = None) -> Any:
        if name not in self.params:
            value = self.value_of(name, domain)
            if step is not None and isinstance(domain, Real | Integer):
                value = low + round((value - low) / step) * step
                value = float(f"{value:.12g}") if isinstance(domain, Real) else value
            self.params[name] = value
        return self.params[name]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"trial.{name} of Optuna is not available in daskhpo: a trial has suggest_float, "
            "suggest_int, suggest_categorical, report, should_prune, set_user_attr, user_attrs, "
            "params, number and context"
        )


class RunningTrial(Suggestions):
    """Optuna's trial in a worker.

    Attributes
    ----------
    context : daskhpo's own trial, with ``device``, ``seed``, ``checkpoint``, ...
    """

    def __init__(self, context: TrialContext) -> None:
        super().__init__()
        self.context, self.number = context, context.id
        self._drawn: dict[str, float] = {}
        self._steps: set[int] = set()

    def value_of(self, name: str, domain: Any) -> Any:
        if name in self.context.config:
            value = self.context.config[name]
            if not isinstance(domain, Domain) and value == domain:
                return value
            if isinstance(domain, Domain) and domain.contains(value):
                return value
        if isinstance(domain, Domain):
            value = domain.sample(rng(self.context.seed, f"suggest {name}"))
        else:
            value = domain
        index = domain.values.index(value) if isinstance(domain, Categorical) else value
        if (number := single_number(index)) is not None:
            self._drawn[f"suggested/{name}"] = number
        return value

    def report(self, value: float, step: int, state: Callable[[], Any] | None = None) -> None:
        """Report the value of one unit; a step that was reported already is ignored.

        ``state``: makes the checkpoint from which ``context.checkpoint`` continues.
        """
        if step in self._steps:
            return
        self._steps.add(step)
        self.context.report(self.metrics(value), state)

    def metrics(self, value: Any) -> dict[str, Any]:
        """Return what is reported with a value."""
        if isinstance(value, (tuple, list)):
            raise MetricError(
                f"the objective returned {short(value)}: a study has one value, so return the one "
                "to optimise"
            )
        attributes = {
            f"user_attrs/{name}": number
            for name, attribute in self.user_attrs.items()
            if (number := single_number(attribute)) is not None
        }
        return {VALUE: value} | attributes | self._drawn


class ObjectiveOfOptuna:
    """A trial that runs an objective of Optuna."""

    def __init__(self, objective: Callable[[Any], Any]) -> None:
        self._objective = objective
        self.__name__ = getattr(objective, "__name__", "objective")

    def __call__(self, config: Mapping[str, Any], trial: TrialContext) -> None:
        running = RunningTrial(trial)
        try:
            value = self._objective(running)
        except Exception as error:
            if type(error).__name__ != "TrialPruned":
                raise
            return
        if trial.resource == 0:
            trial.report(running.metrics(value))


class ProbingTrial(Suggestions):
    """A trial that only looks for the space.

    Attributes
    ----------
    found : the domain of each name, as first suggested.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self._n, self.found = n, dict[str, Any]()

    def value_of(self, name: str, domain: Any) -> Any:
        self.found[name] = domain
        if not isinstance(domain, Domain):
            return domain
        if isinstance(domain, Categorical) and self._n < len(domain.values):
            return domain.values[self._n]
        if self._n == 0:
            return domain.from_unit(0.5 if isinstance(domain, Real) else 1.0)
        return domain.sample(rng(self._n, f"probe {name}"))

    def report(self, value: float, step: int, state: Any = None) -> None:
        """End the probe."""
        raise _Probed

    def should_prune(self) -> bool:
        raise _Probed

    @property
    def context(self) -> Any:
        """End the probe: what follows is training."""
        raise _Probed


class _Probed(BaseException):  # not an Exception, which an objective may catch
    """The probe has reached the objective's first report."""


def found_space(objective: Callable[[Any], Any], seconds: float) -> tuple[dict[str, Any], bool]:
    """Return the space of an objective, which runs for it, and whether it reports."""
    began, found, reports = time.monotonic(), dict[str, Any](), False
    for n in range(PROBES):
        probe = ProbingTrial(n)
        try:
            objective(probe)
        except _Probed:
            reports = True
        except Exception as error:
            if type(error).__name__ != "TrialPruned" and n == 0:
                raise InvalidArgument(
                    f"the objective raised {type(error).__name__}: {error}, with {probe.params}, "
                    "while it was run to find its space; give space= if it cannot run here"
                ) from error
        for name, domain in probe.found.items():
            found[name] = _joined(found[name], domain) if name in found else domain
        if time.monotonic() - began > seconds:
            break
    logger.info("%d runs of the objective found the space %s", n + 1, found)
    return found, reports


def _joined(one: Any, other: Any) -> Any:
    """Return a domain with the values of two ranges of one kind; else the first."""
    if type(one) is type(other) and isinstance(one, Real | Integer) and one.log == other.log:
        return type(one)(min(one.low, other.low), max(one.high, other.high), one.log)
    return one


def _range(kind: type[Real | Integer], low: Any, high: Any, step: Any, log: bool) -> Any:
    """Return the domain of a suggestion, or its only value.

    One with more steps than an ordinal domain may have is a range, whose values are rounded.
    """
    if step is None:
        return low if low == high else kind(low, high, log)
    if log:
        raise InvalidArgument(f"step={step!r} with log=True: Optuna has no such range either")
    n = n_steps(low, high, step)
    if n == 1:
        return low
    return Ordinal.steps(low, high, step) if n <= MOST_STEPS else kind(low, low + (n - 1) * step)
