"""Whole studies in virtual time."""

from __future__ import annotations

import gc

import pytest

from daskhpo.core.domains import Integer, Real
from daskhpo.core.events import AttemptLost, Dropped, Failed, SessionStarted
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.core.types import Limits, Status, Trial
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.engine.journal import encode_record
from daskhpo.engine.replay import replay
from daskhpo.results.result import Result
from daskhpo.schedulers import (
    ASHA,
    FIFO,
    PASHA,
    PBT,
    AsyncHyperband,
    Hyperband,
    MedianStopping,
    SuccessiveHalving,
)
from daskhpo.searchers import GridSearch, RandomSearch
from daskhpo.simulation import Simulation
from daskhpo.testing.journal import MemoryJournal
from daskhpo.virtual.executor import IDEAL_CLUSTER, ClusterModel, SimulatedExecutor

SPACE = {"floor": Real(0.0, 1.0), "speed": Real(0.1, 2.0), "step": Integer(5, 20)}
SCHEDULERS = [
    FIFO(9),
    ASHA(max_t=27),
    ASHA(max_t=27, variant="promotion"),
    ASHA(max_t=16, reduction_factor=2, brackets=3, compare="best"),
    AsyncHyperband(max_t=27, variant="promotion"),
    SuccessiveHalving(max_t=9),
    Hyperband(max_t=9),
    PASHA(max_t=27),
    MedianStopping(FIFO(9)),
    MedianStopping(ASHA(max_t=27, variant="promotion"), grace_period=2, interval=2),
]


class Decay:
    """Falls to its floor; faster or slower, in steps of so many seconds."""

    def __init__(self, config):
        self.config = config

    def metric(self, resource):
        return self.config["floor"] + self.config["speed"] / resource

    def seconds(self, resource):
        return float(self.config["step"] * resource)


def simulation(scheduler, num_workers=1, **options):
    options = {"seed": 0, "searcher": RandomSearch(), **options}
    return Simulation(
        Decay, SPACE, "loss", "min", scheduler=scheduler, num_workers=num_workers, **options
    )


def constant(step=10, **options):
    """All trials alike, so that times can be told by heart."""
    space = {"floor": Real(0.0, 1.0), "speed": 1.0, "step": step}
    settings = {"scheduler": FIFO(3), "searcher": RandomSearch(), "num_workers": 1, **options}
    return Simulation(Decay, space, "loss", "min", **settings)


# -- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_workers", "seconds"), [(1, 120.0), (2, 60.0), (3, 60.0), (4, 30.0)])
def test_trials_share_the_workers_to_the_second(num_workers, seconds):
    result = constant(num_workers=num_workers).run(num_trials=4)
    cost = result.cost()
    assert cost["seconds"] == seconds
    assert cost["useful_seconds"] == 120.0
    assert cost["device_seconds"] == num_workers * seconds == 120.0 + cost["idle_seconds"]


def test_each_report_has_its_own_time():
    history = constant().run(num_trials=2).history()
    assert list(history["seconds"]) == [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]


def test_a_time_budget_ends_the_study_at_the_end_of_the_unit_then_trained():
    result = constant().run(time_budget="45s")
    assert result.stop_reason == "the time budget is spent"
    assert result.cost()["seconds"] == 50.0
    assert list(result.trials()["status"]) == ["completed", "queued"]
    assert list(result.trials()["resource"]) == [3, 2]


def test_a_target_ends_the_study():
    result = constant().run(target=0.5)
    assert result.best_value <= 0.5
    assert result.time_to_solution(0.5) == result.history()["seconds"].max()
    assert result.stop_reason == "the target of 0.5 was reached"


def test_workers_that_come_and_go_cost_what_they_cost():
    result = constant(num_workers=2, resizes=[(15.0, 1), (45.0, 2)]).run(num_trials=2)
    # Trial 1 is lost at 15 s and runs again from its start when trial 0 ends at 30 s.
    trials = result.trials()
    assert list(trials["seconds"]) == [30.0, 45.0]
    assert list(trials["seconds/useful"]) == [30.0, 30.0]
    assert list(trials["seconds/lost"]) == [0.0, 15.0]
    assert list(trials["seconds/queued"]) == [0.0, 15.0]
    cost = result.cost()
    assert cost["seconds"] == 60.0
    assert cost["device_seconds"] == 2 * 15 + 1 * 30 + 2 * 15
    assert (cost["useful_seconds"], cost["lost_seconds"], cost["idle_seconds"]) == (60, 15, 15)
    assert len(result.history()) == 6


def test_a_grid_needs_no_limit():
    result = constant(searcher=GridSearch(num_points=5)).run()
    assert result.num_trials == 5


def test_a_study_without_an_end_is_refused():
    with pytest.raises(ValueError, match="nothing would end this study"):
        constant().run()


@pytest.mark.parametrize("around", [lambda pbt: pbt, MedianStopping])
def test_a_population_without_a_number_of_members_is_refused(around):
    """New ones would begin for ever, and nobody would ever go on."""
    study = constant(scheduler=around(PBT(9, 3, ["floor"])))
    with pytest.raises(ValueError, match="num_trials is required"):
        study.run(time_budget=100)
    assert study.run(num_trials=4).num_trials == 4
    grid = constant(scheduler=around(PBT(9, 3, ["floor"])), searcher=GridSearch(num_points=5))
    assert grid.run().num_trials == 5


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="num_workers=0"):
        constant(num_workers=0)


# -- whole studies -------------------------------------------------------------------------------


def all_ended(result):
    return set(result.trials()["status"]) <= {"completed", "stopped", "paused"}


@pytest.mark.parametrize("num_workers", [1, 4, 64])
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=repr)
def test_every_scheduler_comes_to_its_end_on_any_number_of_workers(scheduler, num_workers):
    result = simulation(scheduler, num_workers).run(num_trials=100)
    frame = result.trials()
    assert result.num_trials == 100
    assert all_ended(result)
    assert (frame["resource"] <= scheduler.max_t).all()
    assert (frame["resource"] == scheduler.max_t).any()
    assert len(result.history()) == frame["resource"].sum()


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=repr)
def test_the_same_seed_gives_the_same_study(scheduler):
    first, second = (simulation(scheduler, 8).run(num_trials=60) for _ in range(2))
    assert first.history().equals(second.history())
    assert first.trials().equals(second.trials())
    other = simulation(scheduler, 8, seed=1).run(num_trials=60)
    assert not first.history().equals(other.history())


@pytest.mark.parametrize("num_workers", [4, 64])
@pytest.mark.parametrize(
    ("scheduler", "num_trials"),
    [(FIFO(9), 10), (SuccessiveHalving(max_t=9), 18), (Hyperband(max_t=9), 15)],  # whole brackets
    ids=repr,
)
def test_synchronous_studies_have_the_same_survivors_on_any_number_of_workers(
    scheduler, num_trials, num_workers
):
    def survivors(num_workers):
        frame = simulation(scheduler, num_workers).run(num_trials).trials()
        return sorted(frame["config/floor"][frame["status"] == "completed"])

    alone = survivors(1)
    assert 0 < len(alone) < 15
    assert survivors(num_workers) == alone


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=repr)
def test_a_study_replays_to_itself_though_workers_came_and_went(scheduler):
    problem, coordinator, journal = run(scheduler, resizes=[(40.0, 0), (60.0, 9), (300.0, 3)])
    tail = MemoryJournal()
    again = replay(problem, journal.records, tail)
    assert tail.records == []
    assert again.ledger.trials == coordinator.ledger.trials
    assert again.ledger.n_ended == coordinator.ledger.n_ended
    coordinator.ledger.validate()


class Batching(SimulatedExecutor):
    """Brings all that is ready at once, and hears all commands at the end."""

    def poll(self, deadline):
        events = [*super().poll(deadline)]
        while self._ready:
            events.append(self._ready.popleft())
        return events


def run(
    scheduler,
    executor_type=SimulatedExecutor,
    num_trials=60,
    n_slots=6,
    resizes=(),
    cluster=IDEAL_CLUSTER,
    policy="auto",
):
    problem = Problem(Space(SPACE), Objective("loss"), scheduler, RandomSearch(), 0)
    journal = MemoryJournal()
    executor = executor_type(Decay, problem.objective, n_slots, resizes, cluster)
    coordinator = Coordinator(problem, journal)
    began = SessionStarted(Limits(num_trials), check_policy(policy), 0.0)
    executor.perform(coordinator.handle(began))
    drive(coordinator, executor, journal)
    return problem, coordinator, journal


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=repr)
def test_decisions_do_not_depend_on_how_events_are_batched(scheduler):
    resizes = [(100.0, 2), (200.0, 6)]
    _, _, one_by_one = run(scheduler, SimulatedExecutor, resizes=resizes)
    _, _, batched = run(scheduler, Batching, resizes=resizes)
    told, expected = ([*map(encode_record, journal.records)] for journal in (batched, one_by_one))
    n = len(expected)
    assert told[:n] == expected
    # What comes in one batch with the last event is still heard: states that are let go of.
    assert {type(record) for record in batched.records[n:]} <= {Dropped}


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=repr)
def test_a_study_goes_on_through_the_ends_of_its_jobs_and_no_unit_is_lost(scheduler):
    cluster = ClusterModel(
        walltime=70.0, requeue_seconds=30.0, launch_seconds=3.0, durability=100.0
    )
    problem, coordinator, journal = run(scheduler, cluster=cluster, policy="end")
    assert replay(problem, journal.records, MemoryJournal()).ledger.trials == (
        coordinator.ledger.trials
    )
    coordinator.ledger.validate()
    result = Result(journal.records, problem.objective)
    assert all_ended(result)
    assert not any(isinstance(record, AttemptLost | Failed) for record in journal.records)
    assert result.cost()["retrained_units"] == 0
    handed_over = [record for record in journal.records if getattr(record, "preempted", False)]
    assert handed_over
    assert not [t for t in result.history()["seconds"] if t % 100.0 > 70.0], "nobody was there"


def test_without_checkpoints_the_end_of_a_job_costs_what_it_trained():
    cluster = ClusterModel(walltime=70.0)
    result = constant(cluster=cluster).run(num_trials=3, checkpoint="never")
    # 70 s are two trials of 30 s and a third's first unit, which it trains again.
    assert result.cost()["retrained_units"] == 1
    assert result.cost()["seconds"] == 100.0
    assert constant(cluster=cluster).run(num_trials=3).cost()["seconds"] == 90.0


@pytest.mark.slow
def test_a_long_study_remembers_living_trials_and_the_best_only():
    before = [found for found in gc.get_objects() if type(found) is Trial]  # alive: an id is one's
    _, coordinator, journal = run(ASHA(max_t=9), num_trials=20_000, n_slots=50)
    ledger = coordinator.ledger
    assert ledger.n_trials == ledger.n_ended.total() == 20_000
    assert ledger.trials == {}
    assert not ledger.queue
    gc.collect()
    alive = [found for found in gc.get_objects() if type(found) is Trial]
    (best,) = [found for found in alive if not any(found is old for old in before)]
    assert ledger.retained == {ledger.best_trial: best}
    assert ledger.refs.ids == [best.checkpoint.id]
    assert sum(r.status is Status.COMPLETED for r in journal.records if hasattr(r, "status")) > 0
