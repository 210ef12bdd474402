"""Studies whose workers are jobs of a real Slurm."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from daskhpo import Study
from daskhpo.cluster import minder, slurm_cluster
from daskhpo.core.types import SlotsChanged
from daskhpo.schedulers import FIFO
from daskhpo.space import Real
from daskhpo.study.session import study_records
from tests.slurm.slurm import Slurm

cloudpickle.register_pickle_by_value(sys.modules[__name__])

JOB = {"cores": 1, "memory": "900MB", "walltime": "10m"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minder, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(minder, "ASK_SECONDS", 1.0)


@pytest.fixture
def cluster_of(slurm: Slurm, tmp_path: Path) -> Any:
    """Makes clusters; what they write goes to the test's folder."""

    def make(jobs: int, **words: Any) -> Any:
        places = {"log_directory": str(tmp_path / "logs"), "shared_temp_directory": str(tmp_path)}
        return slurm_cluster(jobs, **places | JOB | words)

    return make


@pytest.fixture
def make_study(tmp_path: Path) -> Any:
    def make(trainable: Any, scheduler: Any) -> Study:
        return Study(
            trainable, {"x": Real(0, 1)}, "loss", scheduler=scheduler, storage=tmp_path, name="s"
        )

    return make


def whereabouts(config: Any, trial: Any) -> None:
    """Says where it runs; units of 0.1 s, from its state if there is one."""
    assert trial.device == "cuda:0"
    start = trial.checkpoint["n"] if trial.checkpoint else 0
    place = {
        "node": int(os.environ["SLURMD_NODENAME"][1:]),
        "device": int(os.environ["CUDA_VISIBLE_DEVICES"]),
        "pid": os.getpid(),
        "job": int(os.environ["SLURM_JOB_ID"]),
    }
    for n in range(start + 1, trial.max_t + 1):
        time.sleep(0.1)
        trial.report({"loss": 1 / n, **place}, state=lambda n=n: {"n": n})


def records(study: Study, kind: type) -> list[Any]:
    return [record for record in study_records(study.path) if isinstance(record, kind)]


def n_slots(study: Study) -> int:
    counts = [record.n_slots for record in records(study, SlotsChanged)]
    return counts[-1] if counts else 0


def test_four_jobs_of_one_gpu_train_on_four_devices(cluster_of: Any, make_study: Any) -> None:
    study = make_study(whereabouts, FIFO(20))
    with cluster_of(4) as cluster:
        assert cluster.scheduler_address.startswith("tls://127.0.0.1")
        frame = study.run(
            num_trials=8, client=cluster, resources={"gpu": 1}, progress=False
        ).trials()
    assert (frame.status == "completed").all()
    assert len(set(zip(frame.node, frame.device, strict=True))) == 4
    assert frame.groupby("pid")[["node", "device"]].nunique().max().max() == 1
