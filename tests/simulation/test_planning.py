"""A forecast: what can be told by heart, and what a study of the same curves really does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from daskhpo import Study
from daskhpo.core.errors import StudyFailed
from daskhpo.core.objective import Objective
from daskhpo.core.searcher import Searcher
from daskhpo.schedulers import ASHA, FIFO, PBT, AsyncHyperband, Hyperband, MedianStopping
from daskhpo.searchers import GridSearch, RandomSearch
from daskhpo.simulation import Simulation
from daskhpo.simulation.curves import CurveTable, RecordedCurve, SyntheticCurves
from daskhpo.simulation.planning import FALLS, job_seconds, plan, schedulers_to_compare
from daskhpo.space import Integer, Real
from daskhpo.virtual.executor import ClusterModel

SPACE = {"x": Real(0.0, 1.0), "n": Integer(1, 9)}


def a_study(scheduler=None, **options):
    return Study(None, SPACE, "loss", scheduler=scheduler or ASHA(9), **options)


def of(frame, method, column):
    return frame.loc[frame["method"] == method, column].tolist()


def middle(frame, method, column):
    return float(frame.loc[frame["method"] == method, column].median())


# -- told by heart -------------------------------------------------------------------------------


def test_random_search_takes_what_arithmetic_says():
    frame = plan(a_study(), 4, seconds_per_unit=10, num_trials=20, seeds=2)
    assert of(frame, "RS", "trials") == of(frame, "RS", "fully_trained") == [20, 20]
    assert of(frame, "RS", "units") == [180, 180]
    assert of(frame, "RS", "hours") == pytest.approx([5 * 90 / 3600] * 2)
    assert of(frame, "RS", "slot_hours") == pytest.approx([20 * 90 / 3600] * 2)
    assert of(frame, "RS", "busy_hours") == of(frame, "RS", "slot_hours")
    assert of(frame, "RS", "lost_hours") == [0.0, 0.0]


def test_each_launch_is_paid_for():
    cluster = ClusterModel(launch_seconds=30.0)
    frame = plan(a_study(), 4, seconds_per_unit=10, num_trials=20, seeds=1, cluster=cluster)
    assert of(frame, "RS", "hours") == pytest.approx([5 * 120 / 3600])


def test_what_falls_to_the_ends_of_jobs_is_counted():
    # 25 units of 10 s fit into a job of 255 s: the slot is 5 s without work, each time.
    cluster = ClusterModel(walltime=255.0, requeue_seconds=45.0, state_bytes=1000)
    frame = plan(a_study(), 1, seconds_per_unit=10, num_trials=10, seeds=1, cluster=cluster)
    row = frame[frame["method"] == "RS"].iloc[0]
    assert row["handovers"] == 3  # 90 units: 25 + 25 + 25 + 15
    assert row["lost_hours"] == pytest.approx(3 * 5 / 3600)
    assert row["hours"] == pytest.approx((3 * 300 + 150) / 3600)
    assert row["slot_hours"] == pytest.approx((3 * 255 + 150) / 3600)
    assert row["checkpoint_files"] >= row["handovers"]
    assert row["checkpoint_bytes"] == 1000 * row["checkpoint_files"]


def test_without_trials_or_time_the_study_lasts_for_one_walltime():
    frame = plan(a_study(), 4, seconds_per_unit=10, cluster=ClusterModel(walltime=3600.0), seeds=1)
    assert frame["hours"].tolist() == pytest.approx([1.0] * 3, abs=10 / 3600)
    assert of(frame, "RS", "fully_trained") == [4 * 3600 // 90]


@pytest.mark.parametrize(
    ("seconds", "there"), [(0.0, 0.0), (70.0, 70.0), (105.0, 100.0), (130.0, 120.0), (220.0, 200.0)]
)
def test_a_job_is_there_from_its_beginning_to_its_end(seconds, there):
    assert job_seconds(seconds, ClusterModel(walltime=100.0, requeue_seconds=10.0)) == there
    assert job_seconds(seconds, ClusterModel()) == seconds


# -- what a study does ---------------------------------------------------------------------------


def test_it_is_what_a_simulation_with_the_same_curves_does():
    frame = plan(a_study(seed=5), 4, seconds_per_unit=10, num_trials=60, seeds=3)
    for seed in range(3):
        curves = SyntheticCurves(
            (10.0,), 9, rank_correlation=seed / 2, trend=FALLS[seed], seed=seed
        )
        simulation = Simulation(curves, SPACE, "loss", "min", ASHA(9), RandomSearch(), 4, seed=seed)
        result = simulation.run(num_trials=60)
        row = frame[(frame["method"] == "this study") & (frame["seed"] == seed)].iloc[0]
        assert row["fully_trained"] == (result.trials()["status"] == "completed").sum()
        cost = result.cost()
        assert row["hours"] == pytest.approx(cost["seconds"] / 3600)
        assert row["slot_hours"] == pytest.approx(cost["device_seconds"] / 3600)
        busy = cost["device_seconds"] - cost["idle_seconds"]
        assert row["busy_hours"] == pytest.approx(busy / 3600)


SCHEDULERS = [ASHA(27), ASHA(27, variant="promotion"), AsyncHyperband(27), Hyperband(27)]


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda s: repr(s).split("(max_t")[0])
def test_the_forecast_hardly_depends_on_how_losses_are_made_up(scheduler):
    trials = []
    for rank_correlation, fall in ((0.0, 10.0), (0.5, 0.0), (0.5, 30.0), (1.0, 10.0)):
        curves = SyntheticCurves((10.0,), 27, rank_correlation=rank_correlation, trend=fall)
        simulation = Simulation(curves, SPACE, "loss", "min", scheduler, RandomSearch(), 8)
        trials.append(simulation.run(time_budget=27 * 10.0 * 40).num_trials)
    assert max(trials) < 1.15 * min(trials), trials


def test_recorded_curves_bring_their_times_and_their_failures():
    configs = tuple({"x": (i + 0.5) / 20, "n": 5} for i in range(20))
    values = [[math.nan] if config["x"] < 0.25 else [0.5] * 9 for config in configs]
    curves = tuple(RecordedCurve(v, [2.0 * (i + 1) for i in range(len(v))]) for v in values)
    table = CurveTable(Objective("loss"), configs, curves)
    frame = plan(a_study(FIFO(9)), 1, curves=table, num_trials=200, seeds=2)
    failed, whole = (middle(frame, "this study", c) for c in ("failed", "fully_trained"))
    assert failed + whole == 200
    assert 30 < failed < 70
    seconds = [2.0 * f + 18.0 * (200 - f) for f in of(frame, "this study", "failed")]
    assert of(frame, "this study", "hours") == pytest.approx([s / 3600 for s in seconds])
    assert not frame["beyond"].any()


def test_the_share_of_units_that_no_record_has_is_told():
    configs = tuple({"x": (i + 0.5) / 20, "n": 5} for i in range(20))
    curves = tuple(RecordedCurve([0.5] * 3, [1.0, 2.0, 3.0]) for _ in configs)
    table = CurveTable(Objective("loss"), configs, curves)
    frame = plan(a_study(FIFO(9)), 1, curves=table, num_trials=20, seeds=1)
    assert of(frame, "this study", "beyond") == pytest.approx([6 / 9])


# -- what is compared ----------------------------------------------------------------------------


def test_others_have_the_studys_ladder():
    found = schedulers_to_compare(Hyperband(64, grace_period=4, reduction_factor=4))
    assert repr(found["ASHA"]) == repr(ASHA(64, 4, 4))
    assert repr(found["AHB"]) == repr(AsyncHyperband(64, 4, 4))
    assert repr(found["RS"]) == repr(FIFO(64))


def test_what_the_study_is_itself_is_not_compared_with_it():
    assert list(schedulers_to_compare(ASHA(9))) == ["this study", "RS", "AHB"]
    assert list(schedulers_to_compare(FIFO(9))) == ["this study", "ASHA", "AHB"]
    others = schedulers_to_compare(MedianStopping(FIFO(9), grace_period=2))
    assert list(others) == ["this study", "RS", "ASHA", "AHB"]
    assert repr(others["ASHA"]) == repr(ASHA(9)), "its grace period is another thing"


class Slow(Searcher):
    """A searcher with a model; it must not be asked."""

    slow = True

    def setup(self, space, seed):
        pass

    def suggest(self, trial):
        raise AssertionError("asked")


def test_a_searcher_with_a_model_is_not_asked_and_a_finite_one_ends_the_study():
    slow = plan(a_study(searcher=Slow()), 4, seconds_per_unit=1, num_trials=9, seeds=1)
    assert of(slow, "RS", "trials") == [9]
    grid = plan(a_study(searcher=GridSearch(num_points=3)), 4, seconds_per_unit=1, seeds=1)
    assert of(grid, "RS", "trials") == [9]


def test_a_population_can_be_forecast():
    study = a_study(PBT(9, 3, ["x"]))
    frame = plan(study, 3, seconds_per_unit=10, num_trials=6, seeds=1)
    assert of(frame, "this study", "fully_trained") == [6]


# -- how much is played --------------------------------------------------------------------------


def test_ten_seeds_are_played_or_fewer_if_studies_are_large(monkeypatch):
    small = plan(a_study(), 2, seconds_per_unit=1, num_trials=3)
    assert small["seed"].nunique() == 10
    monkeypatch.setattr("daskhpo.simulation.planning.MOST_TRIALS", 50)
    assert plan(a_study(), 2, seconds_per_unit=1, num_trials=3)["seed"].nunique() == 50 // 9
    assert plan(a_study(), 2, seconds_per_unit=1, num_trials=30)["seed"].nunique() == 3
    assert plan(a_study(), 2, seconds_per_unit=1, num_trials=30, seeds=4)["seed"].nunique() == 4


def test_a_study_that_makes_no_way_is_given_up_and_that_is_told():
    cluster = ClusterModel(walltime=50.0)  # a trial of 90 s, of which nothing is kept
    options = {"seconds_per_unit": 10, "num_trials": 4, "seeds": 1, "cluster": cluster}
    frame = plan(a_study(FIFO(9)), 1, checkpoint="never", **options)
    assert of(frame, "this study", "complete") == [False]
    assert of(frame, "this study", "fully_trained") == [0]
    assert plan(a_study(FIFO(9)), 1, **options)["complete"].all()
    without = {**options, "cluster": replace(cluster, state_bytes=None)}
    assert of(plan(a_study(FIFO(9)), 1, **without), "this study", "complete") == [False]


# -- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give seconds_per_unit or curves"),
        ({"seconds_per_unit": 1, "curves": object()}, "give seconds_per_unit or curves"),
        ({"seconds_per_unit": 0, "num_trials": 3}, "seconds_per_unit=0 must be above 0"),
        ({"seconds_per_unit": 1}, "nothing would end this study"),
        ({"seconds_per_unit": 1, "num_trials": 0}, "num_trials=0"),
        ({"seconds_per_unit": 1, "num_trials": 3, "seeds": 0}, "seeds=0"),
        ({"seconds_per_unit": 1, "num_trials": 3, "num_workers": 0}, "num_workers=0"),
        ({"seconds_per_unit": 1, "num_trials": 3, "checkpoint": "often"}, "checkpoint='often'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        plan(a_study(), **{"num_workers": 2} | given)


def test_a_population_without_a_number_is_refused():
    with pytest.raises(ValueError, match="num_trials is required for population-based"):
        plan(a_study(PBT(9, 3, ["x"])), 3, seconds_per_unit=10, time_budget="1h")


def test_a_unit_that_no_job_can_train_is_refused():
    with pytest.raises(StudyFailed, match="more than the walltime of 60 s"):
        plan(a_study(), 3, seconds_per_unit=100, cluster=ClusterModel(walltime=60.0))


def test_counts_are_of_those_that_ended():
    frame = plan(a_study(), 4, seconds_per_unit=10, time_budget=200, seeds=1)
    assert (frame["ended"] <= frame["trials"]).all()
    assert (frame["fully_trained"] <= frame["ended"]).all()
