"""Studies on real worker processes when things go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client, LocalCluster, Nanny, SpecCluster

from daskhpo import Study, Trainable, load_study
from daskhpo.core.errors import NoSuitableWorkers, StudyFailed, StudyLocked, StudyMismatch
from daskhpo.core.types import Stop
from daskhpo.engine.coordinator import OUT_OF_TIME
from daskhpo.executors.dask import channel, executor, lease_manager, runners
from daskhpo.schedulers import ASHA, FIFO, MedianStopping
from daskhpo.searchers import GPSearch, RandomSearch
from daskhpo.space import Real

pytestmark = pytest.mark.cluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def once(path: Path) -> bool:
    """True the first time, over all processes."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


# -- user code that raises -----------------------------------------------------------------------


def test_a_misspelt_metric_ends_the_study_at_the_first_report(
    client: Client, make_study: Any
) -> None:
    def report(config: Any, trial: Any) -> None:
        trial.report({"val_los": 1.0})

    with pytest.raises(StudyFailed, match=r"'loss' is missing from a report, which has \['val_los"):
        make_study(report).run(num_trials=50, client=client, progress=False)


def test_a_trial_that_raises_keeps_its_traceback_and_the_study_goes_on(
    client: Client, make_study: Any
) -> None:
    class Raises(Trainable):
        def setup(self, config: Any) -> None:
            pass

        def step(self) -> dict[str, Any]:
            if self.trial.id == 1:
                raise RuntimeError("the third layer is missing")
            return {"loss": 1.0}

    result = make_study(Raises).run(num_trials=4, client=client, progress=False)
    statuses = dict(result.trials()[["trial", "status"]].to_numpy())
    assert statuses == {0: "completed", 1: "failed", 2: "completed", 3: "completed"}
    failed = result.trials().set_index("trial").loc[1]
    assert failed.reason == "RuntimeError: the third layer is missing"
    error = result.trial(1).error
    assert "in step" in error
    assert "runners.py" not in error  # the user's own frames only
    assert "lease.py" not in error


def test_fail_fast_ends_the_study_at_the_first_failure(client: Client, make_study: Any) -> None:
    def fail(config: Any, trial: Any) -> None:
        raise ValueError("no")

    study = make_study(fail)
    result = study.run(num_trials=50, fail_fast=True, client=client, progress=False)
    assert (result.trials().status == "failed").any()
    assert len(result.trials()) <= 2
    with pytest.raises(ValueError, match=r"none of \d trials has reported(?s:.*)ValueError: no"):
        _ = result.best_value


def test_max_failures_tries_a_failing_trial_again_from_its_checkpoint(
    client: Client, make_study: Any, tmp_path: Path
) -> None:
    def fails_once(config: Any, trial: Any) -> None:
        start = trial.checkpoint["n"] if trial.checkpoint else 0
        for n in range(start + 1, trial.max_t + 1):
            if n == 5 and once(tmp_path / f"failed-{trial.id}"):
                raise OSError("a file server was away")
            trial.report({"loss": 1 / n, "n": n}, state=lambda n=n: {"n": n})

    study = make_study(fails_once, ASHA(9, reduction_factor=3))
    result = study.run(
        num_trials=1, max_failures=1, checkpoint="rung", client=client, progress=False
    )
    assert result.trials().status.tolist() == ["completed"]
    history = result.history()
    assert history.n.tolist() == list(range(1, 10))
    assert history.attempt.tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]  # 4 was trained again unseen


def test_system_exit_fails_the_trial_and_not_the_worker(client: Client, make_study: Any) -> None:
    def leave(config: Any, trial: Any) -> None:
        if trial.id == 0:
            sys.exit("bye")
        trial.report({"loss": 1.0})

    workers = set(client.scheduler_info(-1)["workers"])
    frame = make_study(leave, FIFO(1)).run(num_trials=3, client=client, progress=False).trials()
    assert frame.status.tolist() == ["failed", "completed", "completed"]
    assert set(client.scheduler_info(-1)["workers"]) == workers


def test_a_trial_that_kills_its_workers_is_given_up(own_cluster: Any, make_study: Any) -> None:
    def kill(config: Any, trial: Any) -> None:
        if trial.id == 0:
            os._exit(1)
        trial.report({"loss": 1.0})

    frame = make_study(kill, FIFO(1)).run(num_trials=3, client=own_cluster, progress=False).trials()
    assert frame.status.tolist() == ["failed", "completed", "completed"]
    assert "lost 3 times in a row" in frame.reason[0]


def test_a_trial_that_dies_after_the_same_report_each_time_is_given_up(
    own_cluster: Any, make_study: Any
) -> None:
    def outgrow(config: Any, trial: Any) -> None:
        trial.report({"loss": 1.0})
        os.kill(os.getpid(), signal.SIGKILL)  # as Linux does when memory has run out

    study = make_study(outgrow, ASHA(3))  # a segment ends after the first unit
    frame = study.run(num_trials=1, client=own_cluster, progress=False)
    (reason,) = frame.trials().reason
    assert "lost 3 times in a row, without coming further than resource 1" in reason
    assert "killed for want of memory" in reason


# -- state and reuse -----------------------------------------------------------------------------


def test_a_state_that_cannot_be_kept_ends_the_study_and_names_the_place(
    client: Client, make_study: Any
) -> None:
    def report(config: Any, trial: Any) -> None:
        for _ in range(trial.max_t):
            trial.report({"loss": 1.0}, state=lambda: {"opt": {"hook": print}})

    with pytest.raises(StudyFailed, match=r"opt.*hook"):
        make_study(report, ASHA(9)).run(
            num_trials=5, checkpoint="rung", client=client, progress=False
        )


def test_a_damaged_checkpoint_makes_its_trial_start_anew(client: Client, make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        start = trial.checkpoint["n"] if trial.checkpoint else 0
        for n in range(start + 1, trial.max_t + 1):
            trial.report({"loss": config["x"] + 1 / n, "n": n}, state=lambda n=n: {"n": n})

    study = make_study(train, ASHA(9, variant="promotion"))
    study.run(num_trials=2, client=client, progress=False)
    rows = [p for p in (study.path / "checkpoints.zarr").rglob("*.0") if p.is_file()]
    assert rows
    for row in rows:
        row.write_bytes(b"\0" * row.stat().st_size)
    result = study.extend(12, client=client, progress=False)
    history = result.history()
    assert (history.n == history.resource).all()
    assert result.trials().resource.max() == 9


def test_without_a_place_for_checkpoints_trials_go_on_from_memory(
    client: Client, make_study: Any
) -> None:
    def train(config: Any, trial: Any) -> None:
        start = trial.checkpoint["n"] if trial.checkpoint else 0
        for n in range(start + 1, trial.max_t + 1):
            trial.report({"loss": config["x"] + 1 / n, "n": n}, state=lambda n=n: {"n": n})

    study = make_study(train, ASHA(9, variant="promotion"))
    study.path.mkdir(parents=True)
    (study.path / "checkpoints.zarr").write_text("in the way")
    result = study.run(num_trials=12, client=client, progress=False)
    cost = result.cost()
    assert (cost["checkpoint_files"], cost["retrained_units"]) == (0, 0)
    assert result.trials().resource.max() == 9
    assert "CheckpointNotWritten" in result.best_trial.error


# -- workers -------------------------------------------------------------------------------------


def slow(config: Any, trial: Any) -> None:
    """Half a second at least, in units that can be told apart."""
    start = trial.checkpoint["n"] if trial.checkpoint else 0
    for n in range(start + 1, trial.max_t + 1):
        time.sleep(0.02)
        trial.report({"loss": 1 / n, "n": n}, state=lambda n=n: {"n": n})


def test_a_killed_worker_loses_no_trial(own_cluster: Any, make_study: Any, wait_for: Any) -> None:
    study = make_study(slow, ASHA(27, grace_period=9, variant="promotion"))
    handle = study.start(num_trials=6, client=own_cluster, progress=False)
    wait_for(lambda: len(study.result().history()) > 20, "reports")
    victim = next(iter(own_cluster.workers.values()))
    os.kill(victim.process.pid, signal.SIGKILL)
    result = handle.wait()
    frame = result.trials()
    assert len(frame) == 6
    assert not set(frame.status) - {"completed", "paused"}
    for _, of_trial in result.history().groupby("trial"):
        assert sorted(of_trial.resource) == list(range(1, len(of_trial) + 1))
    lines = map(json.loads, (study.path / "journal.jsonl").read_text().splitlines())
    lost = [line for line in lines if line["record"] == "lost"]
    assert [line["blame"] for line in lost].count(True) == 1  # the trial that ran on the victim
    for line in lost:  # others may have wanted a state that it held
        assert line["blame"] or line["reason"].startswith("CheckpointMissing")


def test_a_study_waits_while_all_workers_are_gone_and_uses_those_that_come(
    make_study: Any, wait_for: Any
) -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        study = make_study(slow, FIFO(50))
        handle = study.start(num_trials=4, client=cluster, progress=False)
        wait_for(lambda: len(study.result().history()) > 3, "reports")
        cluster.scale(0)
        wait_for(lambda: '"n_slots":0' in (study.path / "journal.jsonl").read_text(), "no slots")
        cluster.scale(2)
        result = handle.wait()
        assert (result.trials().status == "completed").all()
        assert '"n_slots":2' in (study.path / "journal.jsonl").read_text()


def test_two_studies_share_a_cluster_and_both_come_to_their_end(
    cluster: Any, make_study: Any, wait_for: Any
) -> None:
    first = make_study(slow, FIFO(10), name="first")
    second = make_study(slow, FIFO(10), name="second")
    one = first.start(num_trials=12, client=cluster, progress=False)
    wait_for(lambda: '"n_slots":2' in (first.path / "journal.jsonl").read_text(), "two slots")
    two = second.start(num_trials=6, client=cluster, progress=False)
    wait_for(lambda: '"n_slots":1' in (second.path / "journal.jsonl").read_text(), "its share")
    assert not one.wait().trials().empty
    assert (two.wait().trials().status == "completed").all()
    slots = [
        line
        for line in (first.path / "journal.jsonl").read_text().splitlines()
        if '"slots"' in line
    ]
    assert '"n_slots":2' in "".join(slots)
    assert any('"n_slots":1' in line for line in slots[2:]), "the first study gave no slot back"


def test_a_worker_that_cannot_load_the_trainable_is_reported(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def train(config, trial):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # type: ignore[import-not-found]

    study = Study(
        only_here.train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), storage=tmp_path, name="s"
    )
    with pytest.raises(
        StudyFailed, match=r"worker tcp://.* cannot be loaded there(?s:.*)only_here"
    ):
        study.run(num_trials=2, client=client, progress=False)


def test_a_worker_with_other_software_is_named_and_not_used(
    make_study: Any, caplog: pytest.LogCaptureFixture
) -> None:
    without = "import sys; sys.modules['daskhpo'] = None\n"
    older = "import daskhpo.executors.dask.environment as it; it.__version__ = '0.0.7'\n"
    preloads = {0: [without], 1: [older], 2: []}
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        assert isinstance(cluster, SpecCluster)
        for number, preload in preloads.items():
            options = {"nthreads": 1, "preload": preload}
            cluster.worker_spec[number] = {"cls": Nanny, "options": options}
        cluster.sync(cluster._correct_state)
        address = {w.name: w.address for w in cluster.scheduler.workers.values()}
        frame = make_study(slow, FIFO(1)).run(2, client=cluster, progress=False).trials()
        study = make_study(slow, FIFO(1), name="poor")
        only_bad = {"max_concurrent": 1, "worker_timeout": 0.5}
        cluster.scale(2)
        with pytest.raises(NoSuitableWorkers, match=r"not used: it has daskhpo 0\.0\.7, Python 3"):
            study.run(2, client=cluster, progress=False, **only_bad)
    assert frame.status.tolist() == ["completed"] * 2
    said = [line for line in caplog.messages if "is not used" in line and address[0] in line]
    assert "cannot be loaded there (ModuleNotFoundError" in said[0]


def test_what_cannot_be_pickled_is_refused_before_anything_starts(
    client: Client, make_study: Any
) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to workers"):
        make_study(lambda config, trial: lock.locked()).run(num_trials=1, client=client)


def test_a_resource_that_no_worker_offers_is_named_with_what_they_offer(
    client: Client, make_study: Any
) -> None:
    with pytest.raises(NoSuitableWorkers, match=r"'gpu': 1.*Workers: tcp://.*1 threads"):
        make_study(slow).run(
            num_trials=1, resources={"gpu": 1}, worker_timeout=0.1, client=client, progress=False
        )


def test_a_misspelt_resource_is_not_waited_for(client: Client, make_study: Any) -> None:
    with pytest.raises(NoSuitableWorkers, match="did you mean 'gpu' in the place of 'gpus'"):
        make_study(slow).run(num_trials=1, resources={"gpus": 1}, client=client, progress=False)


def test_an_embedded_cluster_says_at_once_that_a_trial_does_not_fit(
    make_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for resources, said in (
        ({"gpu": 1}, "do not fit this machine"),
        ({"cpu": 10_000}, "do not fit this machine"),
        ({"tpu": 1}, "offer cpu and gpu, and no 'tpu'; pass a Dask cluster"),
        ({"cpus": 1}, "did you mean 'cpu' in the place of 'cpus'"),
        ({"mem": 8}, "a trial has the memory of its worker"),
    ):
        with pytest.raises(NoSuitableWorkers, match=said):
            make_study(slow).run(num_trials=1, resources=resources, progress=False)


def tell_device(config: Any, trial: Any) -> None:
    name = int(os.environ["CUDA_VISIBLE_DEVICES"].split(",")[int(trial.device.split(":")[1])])
    folder = Path(os.environ["TEST_SLOTS"])
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < int(os.environ["TEST_N_SLOTS"]):
        time.sleep(0.01)  # until every slot has a trial
    trial.report({"loss": 0.0, "device": name, "process": os.getpid()})


@pytest.fixture
def wait_for_slots(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """``wait_for_slots(n)``: `tell_device` reports when ``n`` processes have a trial."""

    def wait(n_slots: int) -> None:
        monkeypatch.setenv("TEST_SLOTS", str(tmp_path_factory.mktemp("slots")))
        monkeypatch.setenv("TEST_N_SLOTS", str(n_slots))

    return wait


@pytest.mark.parametrize(("gpu", "n_slots", "devices"), [(1, 2, {4, 7}), (0.5, 4, {4, 7})])
def test_an_embedded_cluster_pins_each_slot_to_a_device(
    gpu: float,
    n_slots: int,
    devices: set[int],
    make_study: Any,
    monkeypatch: pytest.MonkeyPatch,
    wait_for_slots: Any,
) -> None:
    wait_for_slots(n_slots)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8))
    result = make_study(tell_device, FIFO(1)).run(
        num_trials=3 * n_slots, resources={"gpu": gpu}, progress=False
    )
    frame = result.trials()
    assert (frame.status == "completed").all(), frame.reason.tolist()
    assert set(frame.device) == devices
    assert frame.groupby("process").device.nunique().max() == 1


def test_workers_of_one_host_that_see_all_devices_are_told_different_ones(
    make_study: Any,
    wait_for_slots: Any,
) -> None:
    wait_for_slots(2)
    worker = {
        "cls": Nanny,
        "options": {
            "nthreads": 1,
            "resources": {"GPU": 1},
            "env": {"CUDA_VISIBLE_DEVICES": "4,7"},
        },
    }
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        assert isinstance(cluster, SpecCluster)
        cluster.worker_spec.update({0: worker, 1: worker})
        cluster.sync(cluster._correct_state)
        frame = (
            make_study(tell_device, FIFO(1))
            .run(num_trials=6, resources={"gpu": 1}, client=cluster, progress=False)
            .trials()
        )
    assert (frame.status == "completed").all(), frame.reason.tolist()
    assert frame.groupby("device").process.nunique().tolist() == [1, 1]


def test_a_trials_cpus_are_the_threads_of_its_process(make_study: Any) -> None:
    def report(config: Any, trial: Any) -> None:
        trial.report({"loss": 0.0, "threads": int(os.environ["OMP_NUM_THREADS"])})

    run = make_study(report, FIFO(1)).run
    result = run(num_trials=1, resources={"cpu": 2}, progress=False)
    assert result.trials().threads.tolist() == [2]


# -- code that does not come back, and what no message can hold ----------------------------------


class Hangs(Trainable):
    def setup(self, config: Any) -> None:
        self.n = 0

    def step(self) -> float:
        self.n += 1
        while self.n == 3:
            time.sleep(0.01)
        return 1.0

    def save_checkpoint(self) -> Any:
        return self.n

    def load_checkpoint(self, state: Any) -> None:
        self.n = state


@pytest.mark.parametrize("how", ["time_budget", "stop"])
def test_a_study_ends_without_code_that_does_not_return(
    how: str, make_study: Any, monkeypatch: pytest.MonkeyPatch, wait_for: Any
) -> None:
    monkeypatch.setattr(executor, "INTERRUPT_SECONDS", 2.0)
    monkeypatch.setattr(lease_manager, "LEASE_END_SECONDS", 0.3)
    study = make_study(Hangs, FIFO(9))
    options = {"time_budget": 4.0} if how == "time_budget" else {}
    handle = study.start(2, max_concurrent=1, checkpoint="every:1", progress=False, **options)
    if how == "stop":
        wait_for(lambda: 2 in saved(study), "the second unit's state is saved")
        handle.stop("enough")
    result = handle.wait()
    assert result.trials().status.tolist() == ["queued"]
    assert result.trial(0).resource == 2
    assert max(ref.resource for ref in result.checkpoints()) == 2  # it goes on from there


class HangsOnce(Hangs):
    def step(self) -> float:
        if self.n == 2 and not self.trial.config["flag"].exists():
            self.trial.config["flag"].touch()
            while True:
                time.sleep(0.01)
        self.n += 1
        return float(os.getpid())


def test_a_step_that_hangs_fails_with_its_stack_and_its_process_is_replaced(
    make_study: Any,
) -> None:
    result = make_study(Hangs, FIFO(4)).run(
        2, max_concurrent=1, step_timeout="1s", checkpoint="every:1", progress=False
    )
    assert result.trials().status.tolist() == ["failed", "failed"]
    for trial in (0, 1):
        found = result.trial(trial)
        assert found.resource == 2
        assert found.reason.startswith("StepTimeout: "), found.reason
        assert "while self.n == 3" in found.error or "time.sleep(0.01)" in found.error


def test_a_step_that_hung_once_is_tried_again_in_another_process(
    make_study: Any, tmp_path: Path
) -> None:
    flag = tmp_path / "hung"

    class Once(HangsOnce):
        def setup(self, config: Any) -> None:
            super().setup(config)
            self.trial.config = {"flag": flag}

    options = {"max_failures": 1, "checkpoint": "every:1", "progress": False}
    result = make_study(Once, FIFO(4)).run(
        num_trials=1, max_concurrent=1, step_timeout=1, **options
    )
    assert result.trials().status.tolist() == ["completed"]
    assert result.history()["loss"].nunique() == 2, "it went on in another process"


class HangsForSome(Hangs):
    def step(self) -> float:
        if self.n == 2 and self.trial.id < 2:
            while True:
                time.sleep(0.01)
        self.n += 1
        return float(os.getpid())


@pytest.mark.parametrize("form", ["class", "function"])
def test_a_step_that_hangs_beyond_the_time_limit_ends_its_trial_and_process(
    client: Client,
    make_study: Any,
    monkeypatch: pytest.MonkeyPatch,
    wait_for: Callable[..., Any],
    form: str,
) -> None:
    def function(config: Any, trial: Any) -> None:
        for n in range(trial.resource, trial.max_t):
            while n == 2 and trial.id < 2:
                time.sleep(0.01)
            trial.report({"loss": float(os.getpid())}, state=dict)

    monkeypatch.setattr(executor, "INTERRUPT_SECONDS", 0.5)
    study = make_study(HangsForSome if form == "class" else function, FIFO(4))
    result = study.run(4, client=client, trial_time_limit="2s", progress=False)
    assert sorted(result.trials().status) == ["completed"] * 2 + ["stopped"] * 2
    for trial in (0, 1):
        found = result.trial(trial)
        assert found.reason == OUT_OF_TIME
        assert found.resource == 2, "what it reported counts"
    hung = set(result.history().query("trial < 2").loss)
    assert hung.isdisjoint(result.history().query("trial > 1 and resource > 2").loss)
    for pid in hung:
        wait_for(lambda pid=int(pid): not Path(f"/proc/{pid}").exists(), "its process to end")


def test_a_trial_that_takes_long_ends_at_its_next_report(client: Client, make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        while True:
            time.sleep(0.05)
            trial.report({"loss": 1.0}, state=lambda: {"pid": os.getpid()})

    study = make_study(train, FIFO(10**6))
    result = study.run(3, client=client, trial_time_limit=1, progress=False)
    assert result.trials().status.tolist() == ["stopped"] * 3
    assert {result.trial(n).reason for n in range(3)} == {OUT_OF_TIME}
    assert result.checkpoints(), "the best one's state is kept"
    assert load_study(study.path).trials().status.tolist() == ["stopped"] * 3


def test_a_trial_that_takes_too_much_memory_fails_alone(client: Client, make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        if trial.id == 1:
            import subprocess
            import sys

            code = "x = bytearray(400_000_000); import time; time.sleep(600)"
            subprocess.run([sys.executable, "-c", code])
        trial.report({"loss": 1.0})

    result = make_study(train, FIFO(1)).run(
        num_trials=4, client=client, memory_limit="450 MB", progress=False
    )
    assert sorted(result.trials().status) == ["completed"] * 3 + ["failed"]
    assert "MemoryLimit: the trial's processes use" in result.trial(1).reason


def saved(study: Study) -> list[int]:
    return [ref.resource for ref in study.result().checkpoints()]


def handle_history(study: Study) -> Any:
    return load_study(study.path).history() if study.path.exists() else []


def test_what_is_raised_while_replies_are_sent_ends_the_study(
    make_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, command: Any) -> None:
        raise ZeroDivisionError("cannot be sent")

    monkeypatch.setattr(channel.SocketReply, "send", refuse)
    monkeypatch.setattr(lease_manager, "LEASE_END_SECONDS", 0.3)
    with pytest.raises(ZeroDivisionError, match="cannot be sent"):
        make_study(Hangs).run(num_trials=2, max_concurrent=1, progress=False)


def test_a_function_that_catches_its_stop_holds_no_slot(client: Client, make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        for _ in range(trial.max_t):
            try:
                trial.report(config["x"])
            except:  # noqa: E722
                continue

    result = make_study(train, ASHA(9)).run(num_trials=12, client=client, progress=False)
    assert set(result.trials().status) == {"completed", "stopped"}


def test_a_process_whose_code_never_returns_is_replaced(make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        if trial.id == 0:
            runners.STOP_SECONDS = 0.5  # in this worker
            while True:
                with contextlib.suppress(BaseException):
                    trial.report({"loss": 2.0, "process": os.getpid()})
        trial.report({"loss": 1.0, "process": os.getpid()})

    study = make_study(train, Ends(FIFO(9)))
    result = study.run(num_trials=4, max_concurrent=1, progress=False)
    assert result.trials().status.tolist() == ["stopped", "completed", "completed", "completed"]
    first, *others = result.trials().process.tolist()
    assert len(set(others)) == 1
    assert first not in others


class Ends(MedianStopping):
    """A scheduler that stops trial 0 after two units."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner, interval=1)

    def on_report(self, trial: Any, report: Any) -> Any:
        decision = super().on_report(trial, report)
        return Stop("it is trial 0") if (trial.id, trial.resource) == (0, 2) else decision


def test_numbers_of_any_size_and_any_text_arrive(client: Client, make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        if trial.id == 1:
            raise ValueError("cannot read t\udce9l\udce9.csv")
        trial.report({"loss": config["x"], "flops": 3 * 10**20 + 1})

    result = make_study(train, FIFO(1)).run(num_trials=2, client=client, progress=False)
    assert result.trial(0).metrics["flops"] == 3 * 10**20 + 1
    assert result.trial(1).reason == r"ValueError: cannot read t\udce9l\udce9.csv"


def test_one_slot_gives_the_same_study_each_time(tmp_path: Path) -> None:
    def train(config: Any, trial: Any) -> None:
        trial.report((config["x"] - 0.3) ** 2)

    def configs(name: str) -> Any:
        study = Study(
            train,
            {"x": Real(0, 1)},
            "loss",
            scheduler=FIFO(1),
            searcher=GPSearch(n_initial_points=3),
            storage=tmp_path,
            name=name,
        )
        result = study.run(num_trials=12, max_concurrent=1, progress=False)
        assert result.cost()["fallback_trials"] == 0
        return result.trials()["config/x"].tolist()

    assert configs("first") == configs("second")


# -- the parts of a study, and its cluster ---------------------------------------------------------


class Breaks(FIFO):
    """A scheduler that raises in one of its methods."""

    def __init__(self, method: str, error: BaseException) -> None:
        super().__init__(3)
        self.method, self.error = method, error

    def next_action(self, trials: Any, can_start: bool) -> Any:
        if self.method == "next_action" and trials:
            raise self.error
        return super().next_action(trials, can_start)

    def on_report(self, trial: Any, report: Any) -> Any:
        if self.method == "on_report":
            raise self.error
        return super().on_report(trial, report)


class Bad(RandomSearch):
    """A searcher that raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def suggest(self, trial: int) -> Any:
        if trial:
            raise self.error
        return super().suggest(trial)


def good(config: Any, trial: Any) -> None:
    for _ in range(trial.resource, trial.max_t):
        trial.report(config["x"])


@pytest.mark.parametrize("error", [ZeroDivisionError("odd"), SystemExit(3), KeyboardInterrupt("x")])
@pytest.mark.parametrize("part", ["next_action", "on_report", "suggest"])
def test_a_part_that_raises_ends_the_study_with_its_error(
    part: str, error: BaseException, client: Client, tmp_path: Path
) -> None:
    is_search = part == "suggest"
    study = Study(
        good,
        {"x": Real(0, 1)},
        "loss",
        scheduler=FIFO(3) if is_search else Breaks(part, error),
        searcher=Bad(error) if is_search else None,
        storage=tmp_path,
        name="study",
    )
    handle = study.start(8, client=client, progress=False)
    with pytest.raises(type(error), match=str(error)):
        handle.wait()
    assert study.path.exists()


def test_a_cluster_that_is_closed_ends_the_study_with_an_error(
    make_study: Any, wait_for: Any
) -> None:
    study = make_study(slow)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as own:
        handle = study.start(1000, client=own, progress=False)
        wait_for(lambda: len(handle_history(study)) >= 1, "a unit is reported")
    with pytest.raises(StudyFailed, match="the Dask cluster was closed while the study ran"):
        handle.wait()


# -- the coordinator's process -------------------------------------------------------------------

SCRIPT = """
import signal, sys, time
from daskhpo import Study
from daskhpo.schedulers import ASHA
from daskhpo.space import Real

def slow(config, trial):
    n = trial.checkpoint["n"] if trial.checkpoint else 0
    assert n == trial.resource
    for n in range(n + 1, trial.max_t + 1):
        time.sleep(0.1)
        trial.report({"loss": config["x"] + 1 / n, "n": n}, state=lambda: {"n": n})

if __name__ == "__main__":
    # As in a terminal: a shell that runs the tests in the background has this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    study = Study(slow, {"x": Real(0, 1)}, "loss", scheduler=ASHA(27, variant="promotion"),
                  storage=sys.argv[1], name="study")
    result = getattr(study, sys.argv[2])(num_trials=40)
    print("best", result.best_value, "of", len(result.trials()), "trials")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def begin(script: Path, method: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), str(script.parent), method],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def reports(path: Path) -> int:
    journal = path / "journal.jsonl"
    return journal.read_text().count('"record":"reported"') if journal.exists() else 0


def test_a_killed_coordinator_loses_no_reported_result(script: Path, wait_for: Any) -> None:
    path = script.parent / "study"
    process = begin(script, "run")
    wait_for(lambda: reports(path) > 15, "reports")
    with pytest.raises(StudyLocked, match=f"in use by process {process.pid} on"):
        Study(
            slow,
            {"x": Real(0, 1)},
            "loss",
            scheduler=ASHA(27, variant="promotion"),
            storage=script.parent,
            name="study",
        ).resume(num_trials=40, progress=False)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = load_study(path).history()
    process = begin(script, "resume")
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    after = load_study(path)
    assert len(after.trials()) == 40
    assert not set(after.trials().status) - {"completed", "paused"}
    columns = ["trial", "resource", "attempt", "loss"]
    merged = before[columns].merge(after.history()[columns], how="left", indicator=True)
    assert (merged["_merge"] == "both").all()
    for _, of_trial in after.history().groupby("trial"):
        assert sorted(of_trial.resource) == list(range(1, len(of_trial) + 1))


def test_control_c_once_stops_cleanly_and_says_how_to_go_on(script: Path, wait_for: Any) -> None:
    path = script.parent / "study"
    process = begin(script, "run")
    wait_for(lambda: reports(path) > 5, "reports")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to workers, too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "study.resume()" in output
    assert "best" in output
    frame = load_study(path).trials()
    assert "running" not in set(frame.status)
    assert "failed" not in set(frame.status)
    assert "Traceback" not in output, output


def test_a_directory_of_another_study_is_refused(client: Client, make_study: Any) -> None:
    make_study(slow, FIFO(1)).run(num_trials=1, client=client, progress=False)
    for change, name in (
        ({"seed": 1}, "seed"),
        ({"space": {"x": Real(0, 2)}}, "space"),
        ({"mode": "max"}, "mode"),
        ({"scheduler": FIFO(2)}, "scheduler"),
    ):
        study = make_study(slow, **({"scheduler": FIFO(1)} | change))
        with pytest.raises(StudyMismatch, match=f"belongs to a study with {name}="):
            study.resume(num_trials=2, client=client, progress=False)
