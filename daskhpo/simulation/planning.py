"""A forecast: a study played through in virtual time before its first GPU-hour."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from daskhpo.core.parsing import parse_call
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import CheckpointPolicy, Limits, Status
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.options import check_limits
from daskhpo.engine.policy import check_policy
from daskhpo.schedulers import ASHA, FIFO, AsyncHyperband
from daskhpo.searchers import RandomSearch
from daskhpo.simulation.curves import CurveTable, SyntheticCurves
from daskhpo.simulation.executor import IDEAL_CLUSTER, ClusterModel, SimulatedExecutor
from daskhpo.simulation.simulation import simulate
from daskhpo.simulation.stats import SimulationStats

if TYPE_CHECKING:
    import pandas as pd

    from daskhpo.study.study import Study

__all__ = ["ClusterModel", "plan"]

OWN = "this study"
FALLS = (1.0, 3.0, 10.0)  # of made-up losses; only a scheduler that compares them across units,
# as median stopping does, can tell
MOST_TRIALS = 150_000  # played without being asked to: 10 to 20 seconds
MOST_JOBS = 100  # one after another, before a study that makes no way is given up


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
    """What a study will do, and what it would with random search, ASHA or asynchronous Hyperband.

    Each is played through in virtual time by the coordinator and the schedulers of a real study.
    Configurations come from the study's searcher if that is quick, else from random search.

    Parameters
    ----------
    study : as it is defined; it need not have a trainable.
    num_workers : slots.
    seconds_per_unit : one number, or several of which each configuration draws one. The losses are
        then made up (:class:`daskhpo.simulation.curves.SyntheticCurves`), differently for each
        seed: early and late ones have nothing in common in the first, and agree fully in the last.
    curves : recorded ones, instead.
    num_trials, time_budget : where the study ends; without both it lasts for one walltime.
    cluster : walltime of its jobs, time to launch a trial, size of a state.
    checkpoint : as for :meth:`daskhpo.Study.start`.
    seeds : how often each is played, with other configurations each time. None: ten times, or
        fewer if they are large (:data:`MOST_TRIALS` in all), but three times at least.

    Returns
    -------
    DataFrame : one row for each method and seed. Columns: ``method``, ``scheduler``, ``seed``;
        ``trials`` (started), ``ended``, ``fully_trained``, ``failed``, ``units``; ``hours`` until
        the study ends; ``slot_hours`` (all slots, from the beginning of a job to its end or the
        study's), of which ``busy_hours`` were held by trials and ``lost_hours`` fell to the ends
        of jobs; ``handovers``; ``checkpoint_files`` and ``checkpoint_bytes`` (written in all),
        ``stored_files`` and ``stored_bytes`` (most at one time); ``beyond`` (share of units that
        no recorded curve has); ``complete`` (False: it made no way, and was given up).

    Raises
    ------
    ValueError : arguments that do not fit together; the message says how.
    StudyFailed : a unit takes longer than the walltime.
    """
    import pandas as pd

    if (seconds_per_unit is None) == (curves is None):
        raise ValueError("give seconds_per_unit or curves (recorded ones), and not both")
    if seeds is not None and (not isinstance(seeds, int) or seeds < 1):
        raise ValueError(f"seeds={seeds!r} must be an int of at least 1, or None")
    if num_workers < 1:
        raise ValueError(f"num_workers={num_workers!r} must be at least 1")
    problem = study.problem
    if problem.scheduler.mutates and num_trials is None:
        raise ValueError("give num_trials: a population is all trials of its study")
    if problem.searcher.slow:
        problem = replace(problem, searcher=RandomSearch())
    policy = check_policy(checkpoint)
    cluster = replace(cluster, durability=policy.durability)
    limits, may_give_up = _limits(problem, num_trials, time_budget, cluster)
    source = None if curves is None else curves.nearest(problem.space)
    rows: list[dict[str, Any]] = []
    n_seeds, seed = 10 if seeds is None else seeds, 0
    while seed < n_seeds:
        curve = source or _made_up(seconds_per_unit, problem, seed, n_seeds)
        for method, scheduler in schedulers_to_compare(problem.scheduler).items():
            tally = SimulationStats(problem.objective, curve=source)
            executor = SimulatedExecutor(curve, problem.objective, num_workers, (), cluster)
            played = replace(problem, scheduler=scheduler, seed=seed)
            simulate(played, executor, limits, policy, tally)
            row: dict[str, Any] = {"method": method, "scheduler": repr(scheduler), "seed": seed}
            row |= _counts(tally, num_workers, cluster)
            row["complete"] = not (may_give_up and tally.stopped)
            rows.append(row)
        if seed == 0 and seeds is None:  # the larger they are, the less they differ
            n_seeds = min(n_seeds, max(3, MOST_TRIALS // sum(row["trials"] for row in rows)))
        seed += 1
    return pd.DataFrame(rows)


def schedulers_to_compare(own: Scheduler) -> dict[str, Scheduler]:
    """The study's scheduler and those it is compared with, which have its ladder if it has one."""
    ladder: Callable[..., dict[str, Any]] = lambda max_t, **others: others  # noqa: E731
    names = ("ASHA", "SuccessiveHalving", "Hyperband")
    try:
        given = parse_call(repr(own), dict.fromkeys(names, ladder))
    except ValueError:
        given = {}
    steps = {n: given[n] for n in ("grace_period", "reduction_factor") if n in given}
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
    """The limits of a played study; and whether reaching the last of them means to give it up."""
    if num_trials is None and time_budget is None and site.walltime < math.inf:
        time_budget = site.walltime
    limits = check_limits(Limits(num_trials), time_budget, problem)
    if limits.time_budget is None and site.walltime < math.inf:
        return replace(limits, time_budget=MOST_JOBS * (site.walltime + site.requeue_seconds)), True
    return limits, False


def _made_up(seconds: Any, problem: Problem, seed: int, seeds: int) -> SyntheticCurves:
    return SyntheticCurves(
        (seconds,) if isinstance(seconds, int | float) else tuple(seconds),
        problem.scheduler.max_t,
        problem.objective.mode,
        rank_correlation=seed / (seeds - 1) if seeds > 1 else 0.5,
        trend=FALLS[seed % len(FALLS)],
        seed=seed,
    )


def _counts(tally: SimulationStats, num_workers: int, site: ClusterModel) -> dict[str, float]:
    slot_seconds = num_workers * job_seconds(tally.seconds, site)
    return {
        "trials": tally.n_trials,
        "ended": tally.n_ended,
        "fully_trained": tally.ended[Status.COMPLETED],
        "failed": tally.ended[Status.FAILED],
        "units": tally.n_units,
        "hours": tally.seconds / 3600,
        "slot_hours": slot_seconds / 3600,
        "busy_hours": tally.busy_seconds / 3600,
        "lost_hours": max(0.0, slot_seconds - tally.slot_seconds) / 3600,
        "handovers": tally.n_preemptions,
        "checkpoint_files": tally.n_files,
        "checkpoint_bytes": tally.n_bytes,
        "stored_files": tally.most_files,
        "stored_bytes": tally.most_bytes,
        "beyond": tally.n_extrapolated / max(tally.n_units, 1),
    }


def job_seconds(seconds: float, site: ClusterModel) -> float:
    """For how long there was a job in each slot, up to some time."""
    if site.walltime == math.inf:
        return seconds
    n, rest = divmod(seconds, site.walltime + site.requeue_seconds)
    return n * site.walltime + min(rest, site.walltime)
