"""Population based training on real workers: states and configurations move among members."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pytest
from distributed import Client

from daskhpo import Study, Trainable
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import Exploited
from daskhpo.core.types import ScheduleSegment
from daskhpo.engine.session import study_records
from daskhpo.schedulers import PBT, MedianStopping, PBTReplay
from daskhpo.searchers import RandomSearch
from daskhpo.space import Ordinal, Real

pytestmark = pytest.mark.cluster


class Descent(Trainable):
    """Gradient descent on x² / 2 from 1; its state remembers who took each step, and at what rate.

    A rate above 2 diverges, to infinity in the end.
    """

    def setup(self, config: Any) -> None:
        self.lr, self.x, self.path = config["lr"], 1.0, []

    def step(self) -> dict[str, Any]:
        self.x *= 1 - self.lr
        self.path.append(self.trial.id)
        first = self.path[0]
        return {"loss": abs(self.x), "n_steps": len(self.path), "first": first, "lr": self.lr}

    def save_checkpoint(self) -> Any:
        return {"x": self.x, "path": self.path}

    def load_checkpoint(self, state: Any) -> None:
        self.x, self.path = state["x"], state["path"]


@pytest.mark.parametrize("synchronous", [False, True])
def test_the_worst_go_on_from_the_best(client: Client, tmp_path: Any, synchronous: bool) -> None:
    study = Study(
        Descent,
        {"lr": Real(0.001, 0.5, log=True)},
        "loss",
        scheduler=PBT(12, 3, ["lr"], synchronous=synchronous),
        storage=tmp_path,
        name="study",
    )
    result = study.run(num_trials=8, client=client, progress=False)
    assert (result.trials().status == "completed").all()
    history = result.history()
    assert (history.n_steps == history.resource).all()  # nobody has a state of another resource
    exploited = [record for record in study_records(study.path) if isinstance(record, Exploited)]
    assert exploited
    assert set(history[history["first"] != history.trial].trial) <= {e.trial for e in exploited}
    assert (history["first"] != history.trial).any()
    rates = history.groupby("trial").lr.nunique()
    assert all(rates[e.trial] > 1 for e in exploited)
    assert history.lr.between(0.001, 0.5).all()
    # all that was written is the state of the best at its end, and perhaps of the best before it
    assert result.cost()["checkpoint_files"] <= 8
    assert result.cost()["retrained_units"] == 0


class Momentum(Trainable):
    """Descent with noise and momentum: its state is more than where it stands."""

    def setup(self, config: Any) -> None:
        self.lr, self.x, self.v = config["lr"], 1.0, 0.0
        self.random = np.random.default_rng(self.trial.seed)

    def step(self) -> dict[str, Any]:
        self.v = 0.9 * self.v + self.x + self.random.normal()
        self.x -= self.lr * self.v
        return {"loss": abs(self.x), "seed": self.trial.seed}

    def save_checkpoint(self) -> Any:
        return {"x": self.x, "v": self.v, "random": self.random.bit_generator.state}

    def load_checkpoint(self, state: Any) -> None:
        self.x, self.v = state["x"], state["v"]
        self.random.bit_generator.state = state["random"]


def test_optimiser_and_random_state_travel_with_an_exploit(client: Client, tmp_path: Any) -> None:
    study = Study(
        Momentum,
        {"lr": Real(0.001, 0.1, log=True)},
        "loss",
        scheduler=PBT(12, 3, ["lr"]),
        storage=tmp_path,
        name="study",
    )
    result = study.run(num_trials=6, client=client, progress=False)
    exploiters = set(result.lineage().dropna(subset="parent").trial)
    assert exploiters
    for member in exploiters:
        training = result.training(member)
        random = np.random.default_rng(int(training.seed.iloc[0]))  # of the first on its way
        x, v, losses = 1.0, 0.0, []
        for rate in result.schedule(member).values("lr"):
            v = 0.9 * v + x + random.normal()
            x -= rate * v
            losses.append(abs(x))
        assert training.loss.tolist() == losses


def test_members_that_diverge_are_not_lost(client: Client, tmp_path: Any) -> None:
    rates = [0.5, 1e200, 0.3, 1e250, 0.1, 1e150]
    study = Study(
        Descent,
        {"lr": Real(0.1, 1e250, log=True)},
        "loss",
        scheduler=PBT(12, 3, {"lr": Real(0.1, 1.0)}),
        searcher=RandomSearch(points_to_evaluate=[{"lr": rate} for rate in rates]),
        storage=tmp_path,
        name="study",
    )
    result = study.run(num_trials=6, client=client, progress=False)
    assert (result.trials().status == "completed").all()
    for number in (1, 3, 5):
        assert "not finite" in result.trial(number).error
        assert result.trial(number).config["lr"] <= 1.0


class Slow(Descent):
    """Each unit takes a moment."""

    def step(self) -> dict[str, Any]:
        time.sleep(0.03)
        return super().step() | {"pid": os.getpid()}


def test_a_population_whose_workers_die_comes_to_its_end_in_order(
    own_cluster: Any, tmp_path: Any, wait_for: Any
) -> None:
    """With a worker die members that train, and states that others would have taken over."""
    space = {"lr": Real(0.001, 0.5, log=True)}
    study = Study(Slow, space, "loss", scheduler=PBT(15, 3, ["lr"]), storage=tmp_path, name="study")
    handle = study.start(num_trials=8, client=own_cluster, progress=False)
    for n in (20, 60):
        wait_for(lambda n=n: len(study.result().history()) > n, f"{n} reports")
        os.kill(int(study.result().history().pid.iloc[-1]), signal.SIGKILL)
    result = handle.wait()
    assert (result.trials().status == "completed").all()
    history = result.history()
    assert (history.n_steps == history.resource).all()  # nobody has a state of another resource
    assert result.cost()["retrained_units"] > 0
    schedule = result.schedule()
    assert result.training().lr.tolist() == schedule.values("lr")
    exact = 1.0
    for rate in schedule.values("lr"):
        exact *= 1 - rate
    assert result.training().loss.iloc[-1] == pytest.approx(exact, rel=1e-9)


def test_a_schedule_that_was_found_is_trained_once_more(client: Client, tmp_path: Any) -> None:
    options: dict[str, Any] = {"storage": tmp_path, "metric": "loss"}
    space = {"lr": Real(0.001, 0.5, log=True)}
    found = Study(Descent, space, scheduler=PBT(12, 3, ["lr"]), name="pbt", **options)
    result = found.run(num_trials=8, client=client, progress=False)
    member = next(iter(result.lineage().dropna(subset="parent").trial))  # one that exploited
    schedule = result.schedule(member)
    assert schedule.names == ("lr",)
    assert schedule.max_t == 12
    again = Study(
        Descent, schedule.initial, scheduler=PBTReplay(schedule), name="replay", **options
    )
    history = again.run(num_trials=2, client=client, progress=False).history()
    for _, of_one in history.groupby("trial"):
        assert of_one.lr.tolist() == schedule.values("lr")
        assert (of_one["first"] == of_one.trial).all()  # each with its own state throughout
        assert (of_one.n_steps == of_one.resource).all()
    # Descent has no chance in it, so the same rates lead to the same loss.
    final = result.history().query("trial == @member").loss.iloc[-1]
    assert history.loss.iloc[-1] == pytest.approx(final, rel=1e-12)


def test_a_replay_whose_workers_die_trains_each_unit_at_its_rate(
    own_cluster: Any, tmp_path: Any, wait_for: Any
) -> None:
    rates = [0.1, 0.2, 0.3, 0.4]
    pieces = [ScheduleSegment(i * 10, i * 10 + 10, {"lr": rate}) for i, rate in enumerate(rates)]
    study = Study(
        Descent, {"lr": 0.1}, "loss", scheduler=PBTReplay(pieces), storage=tmp_path, name="study"
    )
    handle = study.start(num_trials=6, client=own_cluster, progress=False)
    wait_for(lambda: (study.result().trials().get("resource", 0) >= 15).any(), "a second piece")
    victim = next(iter(own_cluster.workers.values()))
    os.kill(victim.process.pid, signal.SIGKILL)
    result = handle.wait()
    assert (result.trials().status == "completed").all()
    exact = 1.0
    for rate in rates:
        exact *= (1 - rate) ** 10
    final = result.history().groupby("trial").last()
    assert final.loss.tolist() == pytest.approx([exact] * 6, rel=1e-9)


class Wide(Trainable):
    """Has as many weights as its configuration says, and takes over no others."""

    def setup(self, config: Any) -> None:
        self.lr, self.w = config["lr"], np.ones(config["width"])

    def step(self) -> dict[str, Any]:
        self.w = self.w * (1 - self.lr)
        return {"loss": float(self.w.sum())}

    def save_checkpoint(self) -> Any:
        return {"layers": [{"w": self.w}]}

    def load_checkpoint(self, state: Any) -> None:
        w = state["layers"][0]["w"]
        if w.shape != self.w.shape:
            raise RuntimeError("size mismatch")
        self.w = w


class Declared(Wide):
    shape_hyperparameters = ("width",)


class Adapting(Declared):
    adapts_checkpoints = True

    def load_checkpoint(self, state: Any) -> None:
        w = state["layers"][0]["w"]
        n = min(len(w), len(self.w))
        self.w[:n] = w[:n]


def shaped_study(trainable: Any, tmp_path: Any, scheduler: Any = None) -> Study:
    space = {"lr": Real(0.01, 0.5), "width": Ordinal([2, 4, 8, 16])}
    scheduler = scheduler or PBT(12, 3, ["lr", "width"], resample_probability=0.0)
    return Study(trainable, space, "loss", scheduler=scheduler, storage=tmp_path, name="study")


def test_mutations_that_would_change_shapes_are_refused_before_anything_starts(
    tmp_path: Any,
) -> None:
    message = r"mutations: width would change the shape of Declared's.*only lr,"
    with pytest.raises(ValueError, match=message):
        shaped_study(Declared, tmp_path)
    with pytest.raises(ValueError, match=message):
        shaped_study(Declared, tmp_path, MedianStopping(PBT(12, 3, ["lr", "width"])))
    assert not list(tmp_path.iterdir())
    shaped_study(Declared, tmp_path, PBT(12, 3, ["lr"]))


def test_a_trainable_that_adapts_may_change_its_shape(client: Client, tmp_path: Any) -> None:
    result = shaped_study(Adapting, tmp_path).run(num_trials=8, client=client, progress=False)
    assert (result.trials().status == "completed").all()
    assert len(result.lineage()) > 8


def test_a_shape_that_changes_though_nobody_said_so_stops_the_study_and_is_named(
    client: Client, tmp_path: Any
) -> None:
    with pytest.raises(StudyFailed) as raised:
        shaped_study(Wide, tmp_path).run(num_trials=8, client=client, progress=False)
    text = str(raised.value)
    assert "cannot take over the state of another one: layers.0.w is (" in text
    assert "Wide.shape_hyperparameters" in text
    assert "RuntimeError: size mismatch" in text
