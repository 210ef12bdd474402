"""Trials that really run out of memory on real worker processes; the others go on."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client, LocalCluster

from daskhpo import Trainable
from daskhpo.cli.app import main
from daskhpo.core.domains import Real
from daskhpo.core.events import Failed, Launched
from daskhpo.core.out_of_memory import MemoryKind
from daskhpo.core.sizes import size_text
from daskhpo.engine.session import study_records
from daskhpo.executors.dask import waiting
from daskhpo.schedulers import FIFO
from daskhpo.searchers import RandomSearch
from daskhpo.study.recorded import verify

pytestmark = pytest.mark.cluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])

MIB = 2**20


class OutOfMemoryError(RuntimeError):
    """As torch's: here is no GPU."""


OutOfMemoryError.__module__ = "torch"


def outcomes(study: Any) -> dict[int, MemoryKind]:
    """The memory that each failed trial lacked, as the journal has it."""
    return {
        record.trial: record.out_of_memory.of
        for record in study_records(study.path)
        if isinstance(record, Failed) and record.out_of_memory is not None
    }


def n_launches(study: Any, trial: int) -> int:
    records = study_records(study.path)
    return sum(isinstance(r, Launched) and r.trial == trial for r in records)


def check_others(study: Any, result: Any, failed: int, n: int) -> None:
    """One trial failed at its first launch, all others were trained."""
    statuses = dict(enumerate(result.trials().status))
    assert statuses == {i: "failed" if i == failed else "completed" for i in range(n)}
    assert n_launches(study, failed) == 1


# -- errors --------------------------------------------------------------------------------------


class OnDevice(Trainable):
    """The second trial fills its device; each tells the process that it ran in."""

    def setup(self, config: Any) -> None:
        Path(self.trial.config["folder"], f"{self.trial.id}-{os.getpid()}").touch()

    def step(self) -> Any:
        if self.trial.id == 1:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return {"loss": 1.0}

    def reset_config(self, config: Any) -> bool:
        Path(config["folder"], f"{self.trial.id}-{os.getpid()}").touch()
        return True


def test_a_full_device_fails_the_trial_at_once_and_its_process_is_not_used_again(
    own_cluster: Any, make_study: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "ran"
    folder.mkdir()
    study = make_study(OnDevice, FIFO(2), space={"folder": str(folder), "x": 1.0})
    result = study.run(num_trials=6, client=own_cluster, max_failures=3, progress=False)
    check_others(study, result, 1, 6)
    assert outcomes(study) == {1: MemoryKind.DEVICE}
    assert result.trial(1).reason.startswith("out of device memory: torch.OutOfMemoryError: CUDA")
    ran = dict(path.name.split("-") for path in folder.iterdir())
    later = [pid for trial, pid in ran.items() if int(trial) > 1]
    assert ran["1"] not in later


def test_what_the_kernel_refuses_is_out_of_host_memory(client: Client, make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        if trial.id == 1:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (2000 * MIB, resource.RLIM_INFINITY))
            bytearray(4000 * MIB)
        trial.report({"loss": 1.0})

    study = make_study(train, FIFO(1))
    result = study.run(num_trials=4, client=client, progress=False)
    check_others(study, result, 1, 4)
    assert outcomes(study) == {1: MemoryKind.HOST}
    assert result.trial(1).reason == "out of host memory: MemoryError"


def test_a_limit_of_ours_is_an_outcome_of_its_own(client: Client, make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        import time

        if trial.id == 1:
            kept = bytearray(os.urandom(MIB)) * 700
            time.sleep(600)
            assert kept
        trial.report({"loss": 1.0})

    study = make_study(train, FIFO(1))
    result = study.run(
        num_trials=4, client=client, memory_limit="600 MB", on_oom="retry_alone", progress=False
    )
    check_others(study, result, 1, 4)
    assert outcomes(study) == {1: MemoryKind.LIMIT}
    assert "over its memory limit: MemoryLimit: the trial's" in result.trial(1).reason


# -- workers that are killed ---------------------------------------------------------------------


def fill(trial: Any) -> None:
    kept = []
    for _ in range(100):
        kept.append(bytearray(os.urandom(MIB)) * 50)
        import time

        time.sleep(0.05)


def test_what_a_nanny_ends_fails_at_once(make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        if trial.id == 1:
            fill(trial)
        trial.report({"loss": 1.0})

    study = make_study(train, FIFO(1))
    with LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit="700 MB", dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = study.run(num_trials=5, client=cluster, progress=False)
    check_others(study, result, 1, 5)
    assert outcomes(study) == {1: MemoryKind.LIMIT}
    assert "killed by Dask, over its limit, for want of memory" in result.trial(1).reason


@pytest.fixture
def small_group(wait_for: Any) -> Iterator[str]:
    """A cgroup of 700 MB that processes may join by writing to its ``cgroup.procs``."""
    name = f"daskhpo-test-{uuid.uuid4().hex[:8]}"
    for mount, limit in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        group = Path(mount, name)
        try:
            group.mkdir()
            (group / limit).write_text(str(700 * 10**6))
            break
        except OSError:
            if group.is_dir():
                group.rmdir()
    else:
        pytest.skip("no cgroup with a memory limit can be made here")
    yield str(group)
    wait_for(lambda: not (group / "cgroup.procs").read_text(), "an empty group")
    group.rmdir()


def run_in_group(study: Any, group: str, enter: Any) -> Any:
    """Run five trials on two workers that have entered a cgroup, and return the result."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=None, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.run(enter, group)
        return study.run(num_trials=5, client=client, progress=False)


def test_what_the_kernel_kills_fails_at_once(small_group: str, make_study: Any) -> None:
    def enter(group: str) -> None:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
        from daskhpo.executors.dask import killed_workers

        killed_workers._counter.cache_clear()

    def train(config: Any, trial: Any) -> None:
        if trial.id == 1:
            fill(trial)
        trial.report({"loss": 1.0})

    study = make_study(train, FIFO(1))
    result = run_in_group(study, small_group, enter)
    check_others(study, result, 1, 5)
    assert outcomes(study) == {1: MemoryKind.HOST}
    assert "killed by the kernel, for want of memory" in result.trial(1).reason


def test_a_process_of_a_trial_that_the_kernel_kills_fails_it_at_once(
    small_group: str, make_study: Any
) -> None:
    def enter(group: str) -> None:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))

    def train(config: Any, trial: Any) -> None:
        import subprocess

        if trial.id == 1:
            code = "import os; x = bytearray(os.urandom(2**20)) * 900"
            status = subprocess.run([sys.executable, "-c", code]).returncode
            raise RuntimeError(f"the loader has exit code {status}")
        trial.report({"loss": 1.0})

    study = make_study(train, FIFO(1))
    result = run_in_group(study, small_group, enter)
    check_others(study, result, 1, 5)
    assert outcomes(study) == {1: MemoryKind.HOST}
    assert result.trial(1).reason == "out of host memory: RuntimeError: the loader has exit code -9"


def test_a_worker_that_a_person_kills_is_no_such_outcome(
    own_cluster: Any, make_study: Any, tmp_path: Path
) -> None:
    def train(config: Any, trial: Any) -> None:
        import signal

        folder = Path(config["folder"])
        if trial.id == 1 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        trial.report({"loss": 1.0})

    study = make_study(train, FIFO(1), space={"folder": str(tmp_path), "x": 1.0})
    result = study.run(num_trials=4, client=own_cluster, progress=False)
    assert set(result.trials().status) == {"completed"}
    assert n_launches(study, 1) == 2


# -- once more -----------------------------------------------------------------------------------


def test_a_trial_runs_once_more_while_no_other_one_does(own_cluster: Any, make_study: Any) -> None:
    def train(config: Any, trial: Any) -> None:
        import time

        here = Path(config["folder"], f"here-{trial.id}")
        if trial.id == 1:
            once = Path(config["folder"], "once")
            if not once.exists():
                once.touch()
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            assert [*here.parent.glob("here-*")] == [], "another trial runs"
        else:
            here.touch()
            time.sleep(0.1)
            here.unlink()
        trial.report({"loss": 1.0})

    folder = Path(make_study(train).path).parent / "trials"
    folder.mkdir()
    study = make_study(train, FIFO(1), space={"folder": str(folder), "x": 1.0})
    result = study.run(num_trials=8, client=own_cluster, on_oom="retry_alone", progress=False)
    assert set(result.trials().status) == {"completed"}
    assert n_launches(study, 1) == 2


class Notes(RandomSearch):
    """A searcher that writes down how trials end."""

    def on_end(self, trial: Any) -> None:
        Path(trial.config["folder"], f"{trial.id}-{trial.status}").touch()


def test_a_trial_runs_once_more_on_a_larger_worker(
    make_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Nanny, Scheduler, SpecCluster

    def train(config: Any, trial: Any) -> None:
        from distributed import get_worker

        limit = get_worker().memory_manager.memory_limit
        if trial.id in (0, 1) and limit < 10**9:
            raise MemoryError
        if trial.id == 2:
            raise MemoryError
        trial.report({"loss": float(limit)})

    study = make_study(train, FIFO(1), searcher=Notes(), space={"folder": str(tmp_path), "x": 1.0})
    workers = {
        name: {"cls": Nanny, "options": {"nthreads": 1, "memory_limit": limit, "port": 0}}
        for name, limit in (("small", 700 * 10**6), ("large", 1400 * 10**6))
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0", "port": 0}}
    # In this time both workers come, also after their processes were replaced.
    monkeypatch.setattr(waiting, "LARGER_SECONDS", 20.0)
    with SpecCluster(workers=workers, scheduler=scheduler) as cluster:
        result = study.run(num_trials=6, client=cluster, on_oom="larger", progress=False)
    statuses = result.trials().status.tolist()
    assert statuses == ["completed"] * 2 + ["failed"] + ["completed"] * 3
    assert result.trial(0).metrics["loss"] == result.trial(1).metrics["loss"] == 1400 * 10**6
    assert result.trial(2).reason in (  # by the worker that it had first
        "out of host memory, also on a worker with more of it: MemoryError",
        "out of host memory: no worker with more than 1.4 GB serves the study",
    )
    assert (tmp_path / "2-failed").exists(), "the searcher has learned it"


# -- what trials have used -----------------------------------------------------------------------


def test_each_trial_has_its_own_peak(
    own_cluster: Any, make_study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(config: Any, trial: Any) -> None:
        kept = bytearray(os.urandom(MIB)) * (400 if trial.id == 2 else 1)
        del kept
        trial.report({"loss": 1.0})

    study = make_study(train, FIFO(1))
    result = study.run(num_trials=6, client=own_cluster, progress=False)
    peaks = result.trials()["peak_memory/host"]
    others = peaks.drop(2)
    assert (others > 50 * MIB).all()
    assert peaks[2] > others.max() + 300 * MIB, "also of those that follow in its process"
    assert "peak_memory/device" not in result.trials()
    assert result.trial(2).memory.host == peaks[2]
    shown = f"memory    at most {size_text(peaks[2])} of its machine's memory\n"
    for arguments in ([str(study.path)], [str(study.path), "2"]):
        main(["status", *arguments])
        assert shown in capsys.readouterr().out


# -- what is never run ---------------------------------------------------------------------------


def test_what_no_worker_has_the_memory_for_is_never_run(
    make_study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(config: Any, trial: Any) -> None:
        assert config["x"] < 0.5
        trial.report({"loss": 1.0})

    def needed(config: Any) -> float:
        return 10**6 if config["x"] < 0.5 else 10**9

    space = {"x": Real(0.0, 1.0)}
    study = make_study(train, FIFO(1), space=space, memory=needed)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, memory_limit="900 MB", dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = study.run(num_trials=12, client=cluster, progress=False)
    frame = result.trials()
    aside = frame["config/x"] >= 0.5
    assert 0 < result.num_set_aside == aside.sum() < 12
    assert set(frame.status[aside]) == {"failed"}
    assert set(frame.status[~aside]) == {"completed"}
    reason = "set aside: needs about 1.0 GB of host memory, and no worker has over 900.0 MB"
    assert set(frame.reason[aside]) == {reason}
    main(["status", str(study.path)])
    assert f"set aside {result.num_set_aside}, for which" in capsys.readouterr().out
    assert verify(Path(study.path), study.problem).n_trials == 12
