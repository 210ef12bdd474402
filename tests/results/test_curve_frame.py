"""The learning curves of a study: what went in comes out, whatever happened on the way."""

from __future__ import annotations

import math

import pytest

from daskhpo.core.events import SessionStarted
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA, FIFO, PBT, Hyperband
from daskhpo.searchers import RandomSearch
from daskhpo.simulation import Simulation
from daskhpo.space import Categorical, Integer, Real
from daskhpo.virtual.executor import ClusterModel

SPACE = {"x": Real(0.0, 1.0), "step": Integer(3, 9), "kind": Categorical(["a", ("b", 1)])}


class Known:
    """A curve of three numbers; above ``x = 0.8`` it breaks after its second unit."""

    def __init__(self, config):
        self.x, self.step = config["x"], config["step"]

    def metric(self, resource):
        return math.nan if self.x > 0.8 and resource > 2 else self.x + 1 / resource

    def seconds(self, resource):
        return float(self.step * resource)


def played(scheduler, num_workers=3, num_trials=40, **options):
    simulation = Simulation(
        Known, SPACE, "loss", "min", scheduler, RandomSearch(), num_workers, **options
    )
    return simulation.run(num_trials)


STORIES = {
    "to the end": (FIFO(9), {}),
    "stopped": (ASHA(9), {}),
    "paused and resumed": (ASHA(9, variant="promotion"), {}),
    "waiting for a rung": (Hyperband(9), {}),
    "workers lost": (FIFO(9), {"resizes": [(30.0, 1), (50.0, 4), (100.0, 2), (101.0, 3)]}),
    "jobs that end": (
        ASHA(9, variant="promotion"),
        {"cluster": ClusterModel(walltime=40.0, requeue_seconds=7.0)},
    ),
}


@pytest.mark.parametrize(("scheduler", "options"), STORIES.values(), ids=STORIES)
def test_each_trials_curve_has_its_metrics_and_the_times_of_its_own_training(scheduler, options):
    result = played(scheduler, **options)
    frame = result.curves()
    reached = result.trials().set_index("trial")
    for trial, part in frame.groupby("trial"):
        config = {name: part[f"config/{name}"].iloc[0] for name in SPACE}
        assert config == dict(result.trial(trial).config)
        curve = Known(config)
        n_units = reached.loc[trial, "resource"] + (reached.loc[trial, "status"] == "failed")
        assert part["resource"].tolist() == list(range(1, n_units + 1))
        for resource, seconds, loss in part[["resource", "seconds", "loss"]].values.tolist():
            assert seconds == pytest.approx(curve.seconds(resource))
            assert loss == pytest.approx(curve.metric(resource), nan_ok=True)
    assert set(frame["trial"]) == set(range(result.num_trials))


def test_a_launch_counts_as_training_and_is_in_the_unit_after_it():
    result = played(
        FIFO(3), num_workers=1, num_trials=2, cluster=ClusterModel(launch_seconds=100.0)
    )
    for _, part in result.curves().groupby("trial"):
        step = part["config/step"].iloc[0]
        assert part["seconds"].diff().dropna().tolist() == [step] * (len(part) - 1)
        assert part["seconds"].iloc[0] == 100.0 + step


def test_a_trial_that_failed_has_a_unit_without_a_metric():
    result = played(FIFO(9))
    failed = result.trials().query("status == 'failed'")["trial"]
    assert len(failed) > 0
    last = result.curves().groupby("trial").tail(1).set_index("trial")["loss"]
    assert sorted(last.index[last.isna()]) == sorted(failed)


def test_a_study_without_reports_has_an_empty_table():
    began = SessionStarted(Limits(), CheckpointPolicy(), 0.0)
    frame = Result([began], Objective("loss")).curves()
    assert list(frame.columns) == ["trial", "resource", "seconds"]
    assert len(frame) == 0


def test_a_population_has_no_curves_of_single_configurations():
    scheduler = PBT(max_t=9, perturbation_interval=3, mutations=["x"])
    result = played(scheduler, num_trials=6)
    assert (result.lineage()["start"] > 0).any()
    with pytest.raises(ValueError, match="no learning curves of single configurations"):
        result.curves()
