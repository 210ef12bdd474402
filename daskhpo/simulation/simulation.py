"""Simulated studies: a real coordinator in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from daskhpo.core.arguments import (
    check_callable,
    check_int,
    check_kind,
    check_list,
    check_number,
    shown,
)
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.objective import Mode, Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Config, Limits
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.options import RunOptions
from daskhpo.engine.protocols import Journal
from daskhpo.engine.session import manifest_of
from daskhpo.results.result import Result
from daskhpo.study.definition import check_parts, check_seed
from daskhpo.virtual.executor import IDEAL_CLUSTER, ClusterModel, Curve, SimulatedExecutor
from daskhpo.virtual.replay import simulate

__all__ = ["ClusterModel", "Curve", "Simulation"]

J = TypeVar("J", bound=Journal)


class Simulation:
    """A study that reads learning curves instead of training.

    Coordinator, schedulers and searchers are those of a real study.

    Parameters
    ----------
    curve : ``curve(config)`` returns an object with ``metric(resource)`` and ``seconds(resource)``,
        both cumulative in ``resource``; seconds count from the start of the trial's first unit.
    space, metric, mode, scheduler, searcher, seed : as for :class:`daskhpo.Study`.
    num_workers : number of slots.
    resizes : ``(seconds, num_workers)`` pairs: new numbers of slots, with their times.
    cluster : costs of the cluster: walltime, launch time of a trial, size of states.

    Examples
    --------
    >>> from daskhpo.schedulers import ASHA
    >>> from daskhpo.searchers import RandomSearch
    >>> from daskhpo.space import Real
    >>> class Decay:
    ...     def __init__(self, config):
    ...         self.floor = config["x"]
    ...
    ...     def metric(self, resource):
    ...         return self.floor + 1 / resource
    ...
    ...     def seconds(self, resource):
    ...         return 60.0 * resource
    >>> simulation = Simulation(
    ...     Decay, {"x": Real(0, 1)}, "loss", "min", ASHA(max_t=9), RandomSearch(), num_workers=4
    ... )
    >>> result = simulation.run(num_trials=30)
    >>> result.best_value < 0.3
    True
    """

    def __init__(
        self,
        curve: Callable[[Config], Curve],
        space: Mapping[str, Any],
        metric: str,
        mode: Mode,
        scheduler: Scheduler,
        searcher: Searcher,
        num_workers: int,
        seed: int = 0,
        resizes: Sequence[tuple[float, int]] = (),
        cluster: ClusterModel = IDEAL_CLUSTER,
    ) -> None:
        check_callable("curve", curve, "a function or class: curve(config)")
        num_workers = check_int("num_workers", num_workers, at_least=1)
        self._problem = Problem(
            space if isinstance(space, Space) else Space(space),
            Objective(metric, mode),
            scheduler,
            searcher,
            check_seed(seed),
        )
        check_parts(self._problem, None)
        check_kind("cluster", cluster, ClusterModel, "a ClusterModel")
        self._executor = partial(
            SimulatedExecutor,
            curve,
            self._problem.objective,
            num_workers,
            _checked_resizes(resizes),
            cluster,
        )

    def run(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        checkpoint: str | CheckpointPolicy = "auto",
    ) -> Result:
        """Run the study until the first of its limits is reached.

        Parameters
        ----------
        num_trials : trials to start; None: no limit.
        time_budget : virtual seconds, or text such as ``"8h"``; None: no limit.
        target : value of the metric at which the study stops; None: no limit.
        checkpoint : which states are written, as for :meth:`daskhpo.Study.start`.

        Raises
        ------
        ValueError : no limit was given, so the study would never end.
        """
        options = RunOptions(
            num_trials=num_trials, time_budget=time_budget, target=target, checkpoint=checkpoint
        )
        problem = self._problem
        options.check_ends(problem.scheduler, problem.searcher)
        result = Result((), problem.objective, manifest=manifest_of(problem, None))
        journal = ResultJournal(result)
        simulate(problem, self._executor(), options.limits, options.policy, journal)
        return result


def _checked_resizes(resizes: Any) -> list[tuple[float, int]]:
    pairs = []
    for number, pair in enumerate(check_list("resizes", resizes, of="(seconds, num_workers)")):
        name = f"resizes[{number}]"
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InvalidArgument(f"{name}={shown(pair)} must be a pair: (seconds, num_workers)")
        seconds, n = pair
        pairs.append((check_number(name, seconds, at_least=0), check_int(name, n, at_least=0)))
    return pairs


def simulate_each(
    problem: Problem,
    schedulers: Mapping[str, Scheduler],
    executor: Callable[[], SimulatedExecutor],
    limits: Limits,
    policy: CheckpointPolicy,
    journal: Callable[[], J],
) -> Iterator[tuple[str, J]]:
    """Run a study under each scheduler; yield their names and journals."""
    for name, scheduler in schedulers.items():
        filled = journal()
        simulate(replace(problem, scheduler=scheduler), executor(), limits, policy, filled)
        yield name, filled


class ResultJournal:
    """A journal that applies records to a result and keeps none, of possibly millions."""

    def __init__(self, result: Result) -> None:
        self.append = result.apply

    def flush(self) -> None:
        pass
