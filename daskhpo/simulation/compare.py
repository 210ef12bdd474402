"""Comparison of schedulers on recorded learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from daskhpo.core.arguments import (
    check_each,
    check_int,
    check_kind,
    check_list,
    check_mapping,
    check_number,
    optional,
)
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import CheckpointPolicy, Limits, Status
from daskhpo.schedulers.parsing import parse_scheduler, standard_schedulers
from daskhpo.simulation.curves import CurveTable
from daskhpo.simulation.simulation import simulate_each
from daskhpo.simulation.stats import SimulationStats
from daskhpo.virtual.executor import SimulatedExecutor
from daskhpo.virtual.replay import problem_in_order

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare_schedulers", "parse_scheduler", "standard_schedulers"]


def compare_schedulers(
    table: CurveTable,
    schedulers: Mapping[str, Scheduler] | None = None,
    workers: Sequence[int] = (1, 4, 16),
    seeds: int = 20,
    target: float | None = None,
) -> pd.DataFrame:
    """Replay recorded learning curves under several schedulers.

    Each curve is one trial and is started once. A seed selects the order of the trials, which is
    the same for all schedulers. After the end of its recorded curve a trial keeps its last value
    and its mean time per unit. It can therefore never reach the target there: the times of a
    scheduler with a large ``beyond`` are too long rather than too short.

    Parameters
    ----------
    schedulers : schedulers by name; None: :func:`standard_schedulers`.
    workers : numbers of slots to simulate.
    seeds : number of orders of the trials.
    target : value of the metric to reach; None: the best recorded value.

    Returns
    -------
    DataFrame : one row for each scheduler, number of workers and seed. Columns: ``scheduler``,
        ``workers``, ``seed``; ``seconds_to_target`` (inf: not reached), ``seconds`` (until the
        study ended), ``device_seconds`` (slots held by trials), ``trials``, ``fully_trained``,
        ``units``, ``beyond`` (share of units after the end of a recorded curve).

    Raises
    ------
    ValueError : ``workers`` or ``seeds`` below 1, or no curve with a finite value.
    """
    import pandas as pd

    check_kind("table", table, CurveTable, "a CurveTable")
    seeds = check_int("seeds", seeds, at_least=1)
    given = check_list("workers", workers, of="numbers of slots, such as (1, 4, 16)")
    workers = check_each("workers", given, check_int, at_least=1)
    target = optional(check_number, "target", target)
    if schedulers is not None:
        schedulers = check_mapping("schedulers", schedulers, of="names to schedulers")
        for name, scheduler in schedulers.items():
            check_kind(f"schedulers[{name!r}]", scheduler, Scheduler, "a scheduler")
    schedulers = standard_schedulers(table.max_t) if schedulers is None else schedulers
    target = table.best if target is None else target
    limits = Limits(num_trials=len(table))
    new_stats = partial(SimulationStats, table.objective, target, table.numbered)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        problem = problem_in_order(len(table), table.objective, seed)
        for n in workers:
            executor = partial(SimulatedExecutor, table.numbered, table.objective, n)
            runs = simulate_each(
                problem, schedulers, executor, limits, CheckpointPolicy(), new_stats
            )
            for name, stats in runs:
                rows.append({"scheduler": name, "workers": n, "seed": seed} | _counts(stats))
    return pd.DataFrame(rows)


def _counts(stats: SimulationStats) -> dict[str, float]:
    progress = stats.progress
    return {
        "seconds_to_target": stats.reached,
        "seconds": progress.seconds,
        "device_seconds": stats.busy_seconds,
        "trials": progress.n_trials,
        "fully_trained": progress.counts[Status.COMPLETED],
        "units": progress.n_units,
        "beyond": stats.extrapolated,
    }
