"""Forecasts of a study, from simulations before its first GPU-hour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from daskhpo.core.arguments import (
    check_each,
    check_int,
    check_kind,
    check_list,
    check_number,
    optional,
    plain_number,
)
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import CheckpointPolicy, Limits, Status
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.options import RunOptions
from daskhpo.schedulers import (
    ASHA,
    FIFO,
    AsyncHyperband,
    GuardedASHA,
    Hyperband,
    SuccessiveHalving,
)
from daskhpo.searchers import ForestSearch, RandomSearch
from daskhpo.simulation.curves import CurveTable, SyntheticCurves
from daskhpo.simulation.simulation import simulate_each
from daskhpo.simulation.stats import SimulationStats
from daskhpo.virtual.executor import IDEAL_CLUSTER, ClusterModel, SimulatedExecutor

if TYPE_CHECKING:
    import pandas as pd

    from daskhpo.study.study import Study

__all__ = ["ClusterModel", "plan"]

OWN = "this study"
# Trends of synthetic losses. They affect only schedulers that compare losses across units, such as
# median stopping.
FALLS = (1.0, 3.0, 10.0)
MOST_TRIALS = 150_000  # simulated if ``seeds`` is None: 10 to 20 seconds
MOST_JOBS = 100  # in a row, before a study that makes no progress is abandoned


def plan(
    study: Study,
    num_workers: int,
    *,
    seconds_per_unit: float | Sequence[float] | None = None,
    curves: CurveTable | None = None,
    num_trials: int | None = None,
    time_budget: float | str | None = None,
    cluster: ClusterModel = IDEAL_CLUSTER,
    checkpoint: str | CheckpointPolicy = "auto",
    seeds: int | None = None,
) -> pd.DataFrame:
    """Forecast a study, and what random search, ASHA and AsyncHyperband would do.

    Each method runs in virtual time, with the coordinator and schedulers of a real study.
    Configurations come from the study's searcher; if that has a model, from random search.

    Parameters
    ----------
    study : the study to forecast; a trainable is not needed.
    num_workers : number of slots.
    seconds_per_unit : seconds of a unit; of several numbers each configuration draws one. Losses
        are synthetic (:class:`daskhpo.simulation.curves.SyntheticCurves`) and differ between seeds.
        The correlation of early and late losses rises from 0 (first seed) to 1 (last seed).
    curves : recorded curves to use instead of ``seconds_per_unit``.
    num_trials, time_budget : limits of the study; both None: one walltime.
    cluster : walltime of its jobs, launch time of a trial, size of a state.
    checkpoint : as for :meth:`daskhpo.Study.start`.
    seeds : number of runs of each method, each with other configurations. None: 10, or fewer for
        large studies (about :data:`MOST_TRIALS` trials in all), but at least 3.

    Returns
    -------
    DataFrame : one row for each method and seed. Columns: ``method``, ``scheduler``, ``seed``;
        ``trials`` (started), ``ended``, ``fully_trained``, ``failed``, ``units``; ``hours`` until
        the study ends; ``slot_hours`` (all slots, from the start of a job to its end or the
        study's), of which ``busy_hours`` were held by trials and ``lost_hours`` were lost at the
        ends of jobs; ``handovers`` (preemptions); ``checkpoint_files`` and ``checkpoint_bytes``
        (written in all), ``stored_files`` and ``stored_bytes`` (maximum at one time); ``beyond``
        (share of units after the end of a recorded curve); ``complete`` (False: the study made no
        progress and was abandoned).

    Raises
    ------
    ValueError : arguments that contradict each other; the message says what to change.
    StudyFailed : a unit takes longer than the walltime.
    """
    import pandas as pd

    if (seconds_per_unit is None) == (curves is None):
        raise ValueError("give seconds_per_unit or curves (recorded ones), not both")
    seeds = optional(check_int, "seeds", seeds, at_least=1)
    num_workers = check_int("num_workers", num_workers, at_least=1)
    num_trials = optional(check_int, "num_trials", num_trials, at_least=1)
    optional(check_kind, "curves", curves, kind=CurveTable, such_as="a CurveTable")
    check_kind("cluster", cluster, ClusterModel, "a ClusterModel")
    if seconds_per_unit is not None and plain_number(seconds_per_unit) is None:
        paces = check_list("seconds_per_unit", seconds_per_unit, of="numbers above 0")
        check_each("seconds_per_unit", paces, check_number, above=0)
    elif seconds_per_unit is not None:
        check_number("seconds_per_unit", seconds_per_unit, above=0)
    problem = study.problem
    if problem.scheduler.mutates and num_trials is None:
        raise ValueError(
            "num_trials is required for population-based schedulers: all trials of the study are "
            "the population"
        )
    if problem.searcher.slow or isinstance(problem.searcher, ForestSearch):
        problem = replace(problem, searcher=RandomSearch())
    policy = check_policy(checkpoint)
    cluster = replace(cluster, durability=policy.durability)
    limits, may_give_up = _limits(problem, num_trials, time_budget, cluster)
    source = None if curves is None else curves.nearest(problem.space)
    new_stats = partial(SimulationStats, problem.objective, curve=source)
    schedulers = schedulers_to_compare(problem.scheduler)
    rows: list[dict[str, Any]] = []
    n_seeds, seed = 10 if seeds is None else seeds, 0
    while seed < n_seeds:
        curve = source or _synthetic(seconds_per_unit, problem, seed, n_seeds)
        executor = partial(SimulatedExecutor, curve, problem.objective, num_workers, (), cluster)
        seeded = replace(problem, seed=seed)
        for method, stats in simulate_each(seeded, schedulers, executor, limits, policy, new_stats):
            named = {"method": method, "scheduler": repr(schedulers[method]), "seed": seed}
            complete = not (may_give_up and stats.progress.stop_reason)
            rows.append(named | _counts(stats, num_workers, cluster) | {"complete": complete})
        if seed == 0 and seeds is None:  # large studies differ less between seeds
            n_seeds = min(n_seeds, max(3, MOST_TRIALS // sum(row["trials"] for row in rows)))
        seed += 1
    return pd.DataFrame(rows)


def schedulers_to_compare(own: Scheduler) -> dict[str, Scheduler]:
    """Return the study's scheduler and those to compare it with, by method.

    They get its ``grace_period`` and ``reduction_factor``, if it has them.
    """
    steps: dict[str, Any] = {}
    if isinstance(own, ASHA | GuardedASHA | SuccessiveHalving | Hyperband):
        steps = {"grace_period": own.grace_period, "reduction_factor": own.reduction_factor}
    others = {
        "RS": FIFO(own.max_t),
        "ASHA": ASHA(own.max_t, **steps),
        "AHB": AsyncHyperband(own.max_t, **steps),
    }
    others = {name: other for name, other in others.items() if repr(other) != repr(own)}
    return {OWN: own, **others}


def _limits(
    problem: Problem, num_trials: int | None, time_budget: float | str | None, site: ClusterModel
) -> tuple[Limits, bool]:
    """Return the limits of a simulated study.

    Also return True if its time budget is only meant to abandon it when it makes no progress.
    """
    if num_trials is None and time_budget is None and site.walltime < math.inf:
        time_budget = site.walltime
    options = RunOptions(num_trials=num_trials, time_budget=time_budget)
    options.check_ends(problem.scheduler, problem.searcher)
    limits = options.limits
    if limits.time_budget is None and site.walltime < math.inf:
        return replace(limits, time_budget=MOST_JOBS * (site.walltime + site.requeue_seconds)), True
    return limits, False


def _synthetic(seconds: Any, problem: Problem, seed: int, seeds: int) -> SyntheticCurves:
    return SyntheticCurves(
        (seconds,) if plain_number(seconds) is not None else tuple(seconds),
        problem.scheduler.max_t,
        problem.objective.mode,
        rank_correlation=seed / (seeds - 1) if seeds > 1 else 0.5,
        trend=FALLS[seed % len(FALLS)],
        seed=seed,
    )


def _counts(stats: SimulationStats, num_workers: int, site: ClusterModel) -> dict[str, float]:
    progress, checkpoints = stats.progress, stats.progress.checkpoints
    slot_seconds = num_workers * job_seconds(progress.seconds, site)
    return {
        "trials": progress.n_trials,
        "ended": progress.n_ended,
        "fully_trained": progress.counts[Status.COMPLETED],
        "failed": progress.counts[Status.FAILED],
        "units": progress.n_units,
        "hours": progress.seconds / 3600,
        "slot_hours": slot_seconds / 3600,
        "busy_hours": stats.busy_seconds / 3600,
        "lost_hours": max(0.0, slot_seconds - progress.slot_time.total) / 3600,
        "handovers": progress.n_preemptions,
        "checkpoint_files": checkpoints.n_written,
        "checkpoint_bytes": checkpoints.n_bytes_written,
        "stored_files": checkpoints.max_files,
        "stored_bytes": checkpoints.max_bytes,
        "beyond": stats.extrapolated,
    }


def job_seconds(seconds: float, site: ClusterModel) -> float:
    """Return for how many seconds each slot had a job, up to ``seconds``."""
    if site.walltime == math.inf:
        return seconds
    n, rest = divmod(seconds, site.walltime + site.requeue_seconds)
    return n * site.walltime + min(rest, site.walltime)
