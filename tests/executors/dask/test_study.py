"""Whole studies on real worker processes, when nothing goes wrong."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client, LocalCluster, get_client

from daskhpo import Study, Trainable, load_study
from daskhpo.schedulers import ASHA, FIFO, PBT, AsyncHyperband, Hyperband, MedianStopping
from daskhpo.space import Categorical, Real

pytestmark = pytest.mark.cluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Decay(Trainable):
    """Learns as x + 1/n, and can be saved."""

    def setup(self, config: Any) -> None:
        self.x, self.n = config["x"], 0

    def step(self) -> dict[str, Any]:
        self.n += 1
        return {"loss": self.x + 1 / self.n, "n": self.n}

    def save_checkpoint(self) -> Any:
        return {"n": self.n}

    def load_checkpoint(self, state: Any) -> None:
        self.n = state["n"]


def decay(config: Any, trial: Any) -> None:
    n = trial.checkpoint["n"] if trial.checkpoint else 0
    for _ in range(trial.resource, trial.max_t):
        n += 1
        trial.report({"loss": config["x"] + 1 / n, "n": n}, state=lambda n=n: {"n": n})


@pytest.mark.parametrize("trainable", [Decay, decay], ids=["class", "function"])
@pytest.mark.parametrize(
    "scheduler",
    [
        FIFO(3),
        ASHA(9, variant="stopping"),
        ASHA(9, variant="promotion"),
        AsyncHyperband(9),
        Hyperband(9),
        MedianStopping(FIFO(9)),
    ],
    ids=lambda scheduler: repr(scheduler).split("(")[0] + scheduler.__class__.__name__,
)
def test_every_scheduler_runs_both_forms(
    trainable: Any, scheduler: Any, client: Client, make_study: Any
) -> None:
    result = make_study(trainable, scheduler).run(num_trials=20, client=client, progress=False)
    frame, history = result.trials(), result.history()
    assert len(frame) == 20
    assert not set(frame.status) - {"completed", "stopped", "paused"}
    # No unit is skipped or told twice, and each is what its state says: nothing was lost.
    assert (history.resource == history.n).all()
    for _, of_trial in history.groupby("trial"):
        assert sorted(of_trial.resource) == list(range(1, len(of_trial) + 1))
    best = frame.loc[frame["best/loss"].idxmin()]
    assert result.best_trial.id == best.trial
    assert result.best_value == best["best/loss"]


def test_an_embedded_cluster_serves_a_study_without_a_client(make_study: Any) -> None:
    result = make_study(Decay).run(num_trials=4, progress=False)
    assert (result.trials().status == "completed").all()


def test_a_cluster_object_serves_as_client(cluster: Any, make_study: Any) -> None:
    result = make_study(Decay).run(num_trials=4, client=cluster, progress=False)
    assert (result.trials().status == "completed").all()


def test_a_scheduler_in_another_process_runs_the_coordinator(
    foreign_scheduler: str, make_study: Any
) -> None:
    study = make_study(Decay, ASHA(9, variant="promotion"))
    with Client(foreign_scheduler, set_as_default=False) as client:
        result = study.run(num_trials=12, client=client, progress=False)
        assert len(result.trials()) == 12
        assert result.checkpoint()["n"] == result.best_trial.resource
        with pytest.raises(FileExistsError, match=r"resume"):
            study.run(num_trials=12, client=client, progress=False)
        assert len(study.extend(15, client=client, progress=False).trials()) == 15
        for _ in range(5):  # such a session ends before the client has connected to it
            assert len(study.resume(num_trials=15, client=client, progress=False).trials()) == 15


def test_trials_go_on_from_their_states_to_a_larger_max_t(client: Client, make_study: Any) -> None:
    study = make_study(Decay, FIFO(4))
    study.run(num_trials=3, client=client, progress=False, checkpoint="end")
    result = study.extend(max_t=6, client=client, progress=False, checkpoint="end")
    assert result.trials()["resource"].tolist() == [6] * 3
    assert result.checkpoint()["n"] == 6
    history = result.history()
    assert history["resource"].tolist().count(5) == len(history) // 6 == 3  # none was trained again
    assert history.loc[history["resource"] > 4, "attempt"].tolist() == [2] * 6


def test_same_seed_gives_the_same_configurations(client: Client, make_study: Any) -> None:
    runs = [
        make_study(Decay, name=name, seed=seed).run(num_trials=5, client=client, progress=False)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    first, second, other = (list(run.trials()["config/x"]) for run in runs)
    assert first == second != other


def test_tuples_and_constants_reach_the_trial_as_they_are(client: Client, make_study: Any) -> None:
    def check(config: Any, trial: Any) -> None:
        assert type(config["sizes"]) is tuple, config
        assert config["data"] == "here"
        trial.report({"loss": float(sum(config["sizes"]))})

    space = {"sizes": Categorical([(1, 2), (3,)]), "data": "here", "x": Real(0, 1)}
    result = make_study(check, FIFO(1), space=space).run(
        num_trials=4, client=client, progress=False
    )
    assert (result.trials().status == "completed").all()
    assert isinstance(result.best_config["sizes"], tuple)


def test_a_trial_knows_itself(client: Client, make_study: Any) -> None:
    def look(config: Any, trial: Any) -> None:
        assert (trial.resource, trial.max_t, trial.device) == (0, 2, "cpu")
        assert trial.config == config
        assert trial.checkpoint is None
        assert trial.remaining_walltime() is None
        assert not trial.should_stop()
        trial.report({"loss": 0.0, "seed": trial.seed, "id": trial.id})
        assert trial.resource == 1
        trial.report({"loss": 0.0, "seed": trial.seed, "id": trial.id})

    result = make_study(look, FIFO(2)).run(num_trials=4, client=client, progress=False)
    frame = result.trials()
    assert (frame.status == "completed").all(), frame.reason.tolist()
    assert (frame.id == frame.trial).all()
    assert frame.seed.nunique() == 4


def test_a_function_that_returns_early_is_complete(client: Client, make_study: Any) -> None:
    def short(config: Any, trial: Any) -> None:
        trial.report({"loss": config["x"]})
        trial.report({"loss": config["x"]})

    frame = make_study(short, ASHA(9)).run(num_trials=3, client=client, progress=False).trials()
    ended = frame[frame.resource == 2]
    assert len(ended) > 0
    assert (ended.status == "completed").all()
    assert (ended.reason == "its code returned").all()


def test_a_fully_trained_function_runs_to_its_end_and_a_stopped_one_is_unwound(
    client: Client, make_study: Any, tmp_path: Path
) -> None:
    def leave_a_mark(config: Any, trial: Any) -> None:
        try:
            for _ in range(trial.max_t):
                trial.report({"loss": float(trial.id)})
            (tmp_path / f"end-{trial.id}").touch()
        finally:
            (tmp_path / f"left-{trial.id}").touch()

    result = make_study(leave_a_mark, ASHA(3)).run(num_trials=6, client=client, progress=False)
    for row in result.trials().itertuples():
        assert (tmp_path / f"left-{row.trial}").exists()
        assert (tmp_path / f"end-{row.trial}").exists() == (row.status == "completed")


def test_metrics_of_a_running_segment_are_seen_before_it_ends(
    client: Client, make_study: Any, wait_for: Any, tmp_path: Path
) -> None:
    def slow(config: Any, trial: Any) -> None:
        for n in range(trial.max_t):
            trial.report({"loss": 1 / (n + 1)})
            while n == 10 and not (tmp_path / "go on").exists():
                time.sleep(0.01)

    study = make_study(slow, FIFO(20))
    handle = study.start(num_trials=1, client=client, progress=False)
    wait_for(lambda: len(study.result().history()) >= 1, "a live report")
    assert handle.status() == {"running": 1}
    (tmp_path / "go on").touch()
    assert len(handle.wait().history()) == 20


def test_a_study_leaves_nothing_behind_in_the_cluster(
    client: Client, make_study: Any, wait_for: Any
) -> None:
    scheduler = client.cluster.scheduler
    before = set(scheduler.handlers), set(scheduler.plugins)
    make_study(Decay).run(num_trials=3, client=client, progress=False)
    assert (set(scheduler.handlers), set(scheduler.plugins)) == before
    wait_for(lambda: not scheduler.tasks, "the end of all tasks")


def test_code_that_does_not_return_keeps_its_worker_from_the_next_study(
    client: Client, make_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(config: Any, trial: Any) -> None:
        trial.report({"loss": 0.0})
        while not (tmp_path / "return").exists():
            time.sleep(0.01)

    monkeypatch.setattr("daskhpo.executors.dask.lease_manager.LEASE_END_SECONDS", 0.1)
    make_study(hang, FIFO(1)).run(num_trials=1, client=client, progress=False)
    result = make_study(Decay, name="next").run(num_trials=4, client=client, progress=False)
    assert (result.trials().status == "completed").all()
    (tmp_path / "return").touch()


def test_the_best_trial_can_be_restored_from_a_directory_alone(
    client: Client, make_study: Any
) -> None:
    study = make_study(Decay, ASHA(9))
    study.run(num_trials=9, client=client, progress=False)
    result = load_study(study.path)
    assert result.checkpoint() == {"n": result.best_trial.resource}
    assert result.cost()["checkpoint_files"] >= 1


def test_objects_are_reused_when_they_say_so(client: Client, make_study: Any) -> None:
    class Counting(Decay):
        made = 0

        def setup(self, config: Any) -> None:
            super().setup(config)
            type(self).made += 1

        def reset_config(self, config: Any) -> bool:
            super().setup(config)
            return True

        def step(self) -> dict[str, Any]:
            return super().step() | {"made": type(self).made}

    study = make_study(Counting)
    result = study.run(num_trials=10, client=client, progress=False, verify_reuse=False)
    assert result.trials().made.max() == 1
    result = make_study(Counting, name="fresh").run(
        num_trials=10, client=client, progress=False, reuse_actors=False
    )
    assert result.trials().made.max() > 1


def test_a_target_ends_a_study(client: Client, make_study: Any) -> None:
    result = make_study(Decay, FIFO(50)).run(
        num_trials=10_000, target=0.25, client=client, progress=False
    )
    assert result.best_value <= 0.25
    assert len(result.trials()) < 10_000
    assert result.stop_reason is not None
    assert "target" in result.stop_reason
    assert result.time_to_solution(0.25) is not None


def test_a_time_budget_ends_a_study_and_it_goes_on_where_it_was(
    client: Client, make_study: Any, tmp_path: Path
) -> None:
    def train(config: Any, trial: Any) -> None:
        n = trial.checkpoint["n"] if trial.checkpoint else 0
        assert n == trial.resource
        while n < trial.max_t:
            n += 1
            while n == 10 and not (trial.should_stop() or (tmp_path / "go on").exists()):
                time.sleep(0.01)
            trial.report({"loss": 1 / n, "n": n}, state=lambda n=n: {"n": n})

    study = make_study(train, FIFO(100))
    first = study.run(num_trials=2, time_budget=3, client=client, progress=False)
    assert first.stop_reason == "the time budget is spent"
    assert set(first.trials().status) == {"queued"}
    before = first.trials().resource
    (tmp_path / "go on").touch()
    second = study.resume(num_trials=2, client=client, progress=False)
    assert (second.trials().status == "completed").all()
    history = second.history()
    assert (history.attempt == 2).sum() == (100 - before).sum()  # no unit was trained twice
    assert (history.n == history.resource).all()


def test_max_concurrent_bounds_the_slots(client: Client, make_study: Any) -> None:
    study = make_study(Decay)
    study.run(num_trials=6, max_concurrent=1, client=client, progress=False)
    lines = (study.path / "journal.jsonl").read_text().splitlines()
    slots = [line for line in lines if '"slots"' in line]
    assert len(slots) == 1
    assert '"n_slots":1' in slots[0]


def test_the_trainable_can_use_the_cluster_it_runs_on(client: Client, make_study: Any) -> None:
    def nested(config: Any, trial: Any) -> None:
        assert get_client() is not None
        trial.report({"loss": 0.0})

    result = make_study(nested, FIFO(1)).run(num_trials=2, client=client, progress=False)
    assert (result.trials().status == "completed").all(), result.trials().reason.tolist()


def test_making_a_study_checks_what_it_is_given(tmp_path: Path) -> None:
    good = {"space": {"x": Real(0, 1)}, "metric": "loss", "scheduler": FIFO(1)}
    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"trainable": 3}, TypeError, "subclass, or a function"),
        ({"trainable": lambda: 0}, TypeError, "must take"),
        ({"trainable": lambda trial, config: 0}, TypeError, "swap them"),
        ({"trainable": dict}, TypeError, "subclass of daskhpo.Trainable"),
        ({"mode": "lower"}, ValueError, "'min' or 'max'"),
        ({"scheduler": "asha"}, TypeError, "must be a scheduler"),
        ({"searcher": "random"}, TypeError, "must be a searcher"),
        ({"space": {}}, ValueError, "empty"),
        ({"name": "a/b"}, ValueError, "folder name"),
        ({"seed": 0.5}, TypeError, "must be an int"),
    ]
    for change, error, message in bad:
        with pytest.raises(error, match=message):
            Study(**({"trainable": decay, "storage": tmp_path} | good | change))


def test_starting_a_study_checks_what_it_is_given(make_study: Any) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({}, "nothing would end"),
        ({"num_trials": 0}, "at least 1"),
        ({"num_trials": 1, "time_budget": "soon"}, "not understood"),
        ({"num_trials": 1, "checkpoint": "always"}, "must be one of"),
        ({"num_trials": 1, "resources": {"cpu": 0.5}}, "whole number"),
        ({"num_trials": 1, "resources": {"gpu": -1}}, "at least 0"),
        ({"num_trials": 1, "max_concurrent": 0}, "at least 1"),
    ]
    for options, message in bad:
        with pytest.raises(ValueError, match=message):
            make_study(decay).start(**options)
    with pytest.raises(ValueError, match="num_trials is required"):
        make_study(decay, scheduler=PBT(9, 3, ["x"])).start(time_budget="1h")
    with pytest.raises(TypeError, match="must be a distributed"):
        make_study(decay).start(num_trials=1, client=3, progress=False)


@pytest.mark.parametrize(
    "how",
    [{"protocol": "tls", "security": True}, {"processes": False}],
    ids=["tls", "threads in this process"],
)
def test_leases_talk_over_other_connections_than_plain_tcp(how: Any, make_study: Any) -> None:
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options, **how) as cluster:
        study = make_study(decay, ASHA(9, variant="promotion"))
        result = study.run(num_trials=12, client=cluster, progress=False)
    assert len(result.trials()) == 12
    assert result.trials().resource.max() == 9


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_a_trial_may_start_processes(how: str, client: Client, make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        import multiprocessing
        from math import sqrt

        with multiprocessing.get_context(how).Pool(2) as pool:
            trial.report(sum(pool.map(sqrt, [1.0, 4.0])))

    result = make_study(train, FIFO(1)).run(num_trials=2, client=client, progress=False)
    assert result.trials().loss.tolist() == [3.0, 3.0], result.trials().reason.tolist()
