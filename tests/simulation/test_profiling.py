"""What a trial costs, measured on a real one."""

from __future__ import annotations

import time

import numpy as np
import pytest

from daskhpo import Study, Trainable
from daskhpo.schedulers import ASHA, FIFO
from daskhpo.searchers import RandomSearch
from daskhpo.simulation import Simulation
from daskhpo.simulation.profiling import profile, trial_cost
from daskhpo.space import Integer, Real
from daskhpo.virtual.executor import ClusterModel


class Sleeper(Trainable):
    def setup(self, config):
        self.n = 0

    def step(self):
        time.sleep(0.02)
        self.n += 1
        return {"loss": self.n}

    def save_checkpoint(self):
        return {"w": np.zeros(50_000), "n": self.n}


def broken(config, trial):
    raise RuntimeError("no such data")


def a_study(trainable, tmp_path):
    return Study(
        trainable, {"x": Real(0.0, 1.0)}, "loss", scheduler=ASHA(81), storage=tmp_path, name="mine"
    )


@pytest.mark.cluster
def test_a_few_units_are_really_trained_and_leave_nothing_behind(tmp_path):
    found = profile(a_study(Sleeper, tmp_path), n_configs=2, n_units=3)
    assert len(found.seconds_per_unit) == 2
    # 0.02 s by the worker's clock; a message that comes late shifts the head's view of it.
    assert all(seconds > 0.005 for seconds in found.seconds_per_unit)
    assert 400_000 < found.state_bytes < 420_000
    assert found.device == "cpu"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_what_failed_is_shown(tmp_path):
    with pytest.raises(ValueError, match="no such data"):
        profile(a_study(broken, tmp_path), n_configs=1)


def test_a_study_without_a_trainable_cannot_be_measured(tmp_path):
    with pytest.raises(ValueError, match="no trainable to measure: give the seconds per unit"):
        profile(a_study(None, tmp_path))


class Paced:
    def __init__(self, config):
        self.step = config["step"]

    def metric(self, resource):
        return 1.0

    def seconds(self, resource):
        return float(self.step * resource)


def played(max_t, **cluster):
    space, cluster = {"step": Integer(3, 9)}, ClusterModel(**cluster)
    simulation = Simulation(
        Paced, space, "loss", "min", FIFO(max_t), RandomSearch(), num_workers=1, cluster=cluster
    )
    return simulation.run(num_trials=4, checkpoint="end")


def test_the_first_unit_tells_what_a_launch_takes_and_the_others_what_a_unit_takes():
    result = played(3, launch_seconds=100.0, state_bytes=77)
    found = trial_cost(result)
    steps = [float(result.trial(i).config["step"]) for i in range(4)]
    assert found.seconds_per_unit == pytest.approx(steps)
    assert found.launch_seconds == pytest.approx(100.0)
    assert found.state_bytes == 77


def test_of_a_single_unit_all_counts_as_training():
    result = played(1, launch_seconds=100.0, state_bytes=None)
    found = trial_cost(result)
    steps = [100.0 + result.trial(i).config["step"] for i in range(4)]
    assert found.seconds_per_unit == pytest.approx(steps)
    assert (found.launch_seconds, found.state_bytes) == (0.0, None)
