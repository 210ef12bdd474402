"""What stats of a simulation say is what a result reads from the same records."""

from __future__ import annotations

import math

import pytest

from daskhpo.core.domains import Integer, Real
from daskhpo.core.events import Deleted, Reported, Saved, SlotsChanged
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointRef, Limits, Status
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.engine.coordinator import Problem
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA, FIFO, PBT, Hyperband, MedianStopping
from daskhpo.searchers import RandomSearch
from daskhpo.simulation.curves import RecordedCurve
from daskhpo.simulation.stats import SimulationStats
from daskhpo.testing.journal import MemoryJournal
from daskhpo.virtual.executor import IDEAL_CLUSTER, ClusterModel, SimulatedExecutor
from daskhpo.virtual.replay import simulate

SPACE = Space({"x": Real(0.0, 1.0), "step": Integer(3, 9)})
OBJECTIVE = Objective("loss")


class Known:
    def __init__(self, config):
        self.x, self.step = config["x"], config["step"]

    def metric(self, resource):
        return math.nan if self.x > 0.9 and resource > 2 else self.x + 1 / resource

    def seconds(self, resource):
        return float(self.step * resource)


def both(
    scheduler, limits, *, n_slots=4, resizes=(), cluster=IDEAL_CLUSTER, policy="auto", **options
):
    """Stats and a result of the same study, and its records."""
    journal, stats = MemoryJournal(), SimulationStats(OBJECTIVE, **options)
    executor = SimulatedExecutor(Known, OBJECTIVE, n_slots, resizes, cluster)
    problem = Problem(SPACE, OBJECTIVE, scheduler, RandomSearch(), 0)
    simulate(problem, executor, limits, check_policy(policy), journal)
    for record in journal.records:
        stats.append(record)
    return stats, Result(journal.records, OBJECTIVE), journal.records


CASES = {
    "to the end": (FIFO(9), Limits(40), {}),
    "stopped": (ASHA(9), Limits(60), {"policy": "end"}),
    "paused": (ASHA(9, variant="promotion"), Limits(60), {"policy": "end"}),
    "out of time": (Hyperband(9), Limits(time_budget=500.0), {}),
    "medians": (MedianStopping(FIFO(9)), Limits(40), {"policy": "every:2"}),
    "workers lost": (FIFO(9), Limits(30), {"resizes": [(30.0, 1), (99.0, 6)], "policy": "every:3"}),
    "jobs that end": (
        FIFO(9),
        Limits(30),
        {"cluster": ClusterModel(40.0, requeue_seconds=9.0, state_bytes=7)},
    ),
    "nothing kept": (ASHA(9), Limits(30), {"cluster": ClusterModel(90.0), "policy": "never"}),
    "a population": (PBT(9, 3, ["x"]), Limits(8), {}),
}


@pytest.mark.parametrize(("scheduler", "limits", "options"), CASES.values(), ids=CASES)
def test_it_agrees_with_the_result(scheduler, limits, options):
    stats, result, records = both(scheduler, limits, target=0.3, **options)
    progress, trials, cost = stats.progress, result.trials(), result.cost()
    assert progress.n_trials == result.num_trials
    counts = trials["status"].value_counts()
    assert progress.counts == {s: counts.get(s.value, 0) for s in Status}
    assert progress.n_ended == sum(progress.counts[s] for s in Status if s.ended)
    assert progress.n_units == sum(len(r.steps) for r in records if isinstance(r, Reported))
    assert progress.seconds == cost["seconds"]
    assert progress.slot_time.total == pytest.approx(cost["device_seconds"])
    assert stats.busy_seconds == pytest.approx(trials["seconds"].sum())
    stored = progress.checkpoints
    assert (stored.n_written, stored.n_bytes_written) == (
        cost["checkpoint_files"],
        cost["checkpoint_bytes"],
    )
    assert stored.max_files >= cost["stored_files"]
    reached = result.time_to_solution(0.3)
    assert stats.reached == (math.inf if reached is None else reached)
    assert progress.stop_reason == result.stop_reason


def test_slots_are_counted_for_as_long_as_they_are_there():
    stats, _, records = both(FIFO(9), Limits(12), n_slots=2, resizes=[(10.0, 0), (50.0, 3)])
    assert isinstance(records[1], SlotsChanged)
    progress = stats.progress
    assert progress.slot_time.total == 2 * 10.0 + 3 * (progress.seconds - 50.0)


def test_the_most_that_is_stored_at_one_time_is_remembered():
    stats = SimulationStats(OBJECTIVE)
    for row, n_bytes in ((0, 10), (1, 30)):
        stats.append(Saved(0, 1, CheckpointRef(row, 0, 1, "a", n_bytes), 1.0))
    stats.append(Deleted(1, "", 2.0))
    stats.append(Saved(0, 1, CheckpointRef(2, 0, 1, "a", 5), 3.0))
    stored = stats.progress.checkpoints
    assert (stored.n_written, stored.n_bytes_written) == (3, 45)
    assert (stored.max_files, stored.max_bytes) == (2, 40)


def test_units_beyond_the_record_are_counted():
    def short(config):
        return RecordedCurve([1.0] * 4, [1.0, 2.0, 3.0, 4.0])

    stats, _, _ = both(FIFO(9), Limits(10), curve=short)
    n_failed = stats.progress.counts[Status.FAILED]
    assert 0 < n_failed < 10
    assert stats.n_extrapolated == (10 - n_failed) * 5
