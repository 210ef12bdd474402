"""The worker processes of a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskhpo.cluster.gpus import Gpus
from daskhpo.executors.dask.slurm_worker import WorkerSlot, main, scratch_directory, worker_slots


def test_each_worker_of_a_node_sees_a_device_of_its_own() -> None:
    assert worker_slots("w", 2, 1, 1, Gpus(("3", "GPU-8a"))) == [
        WorkerSlot("w-0", ("3",), 1.0),
        WorkerSlot("w-1", ("GPU-8a",), 1.0),
    ]


def test_trials_that_share_a_gpu_have_a_part_of_it_each() -> None:
    assert worker_slots("w", 2, 2, 1, Gpus(("0", "1"))) == [
        WorkerSlot("w-0", ("0",), 0.5),
        WorkerSlot("w-1", ("0",), 0.5),
        WorkerSlot("w-2", ("1",), 0.5),
        WorkerSlot("w-3", ("1",), 0.5),
    ]


def test_a_job_without_gpus_has_workers_without_devices() -> None:
    assert worker_slots("w", 0, 1, 2, Gpus(("0",))) == [WorkerSlot("w-0"), WorkerSlot("w-1")]


def test_trials_with_several_gpus_see_as_many() -> None:
    found = Gpus(("4", "5", "6", "7"))
    assert worker_slots("w", 4, 1, 2, found, gpus_per_trial=2) == [
        WorkerSlot("w-0", ("4", "5"), 2.0),
        WorkerSlot("w-1", ("6", "7"), 2.0),
    ]


def test_a_trial_on_two_nodes_has_one_worker_that_offers_the_gpus_of_both() -> None:
    found = Gpus(("0", "1"))
    assert worker_slots("w", 2, 1, 1, found, gpus_per_trial=4, nodes=2) == [
        WorkerSlot("w-0", ("0", "1"), 4.0)
    ]
    assert worker_slots("w", 0, 1, 1, Gpus(), nodes=2) == [WorkerSlot("w-0")]


def test_a_job_that_sees_too_few_gpus_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"2 GPUs .* sees 1 \(5\).*--gres=gpu:2"):
        worker_slots("w", 2, 1, 1, Gpus(("5",)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "NoDevFiles")
    assert main(["tcp://127.0.0.1:1", "--gpus", "1"]) == 2
    assert "sees 0 (none), by CUDA_VISIBLE_DEVICES=NoDevFiles" in caplog.text


def test_scratch_is_on_the_node_if_the_environment_tells_of_it(tmp_path: Path) -> None:
    assert scratch_directory({"TMPDIR": str(tmp_path), "SLURM_TMPDIR": "/no/such"}) == str(tmp_path)
    assert scratch_directory({}) == "/tmp"
