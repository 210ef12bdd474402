"""GPUs of workers that have no Dask resource ``GPU``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client, Nanny, Scheduler, SpecCluster

from daskhpo.core.errors import NoSuitableWorkers
from daskhpo.executors.dask.devices import UNKNOWN, SeenGpus
from daskhpo.executors.dask.implied_gpus import Sight, implied_gpus
from daskhpo.schedulers import FIFO

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def see(*ids: str, host: str = "host", job: str = "") -> Sight:
    return Sight(host, SeenGpus(ids, tuple(f"cuda:{n}" for n in range(len(ids))), job))


def shares(*sights: Sight) -> list[float]:
    return list(implied_gpus({str(n): sight for n, sight in enumerate(sights)}).values())


def test_workers_of_dask_cuda_have_one_gpu_each() -> None:
    assert shares(*(see(*"0123"[n:], *"0123"[:n]) for n in range(4))) == [1.0] * 4


def test_a_worker_alone_has_all_it_sees_and_several_share_them() -> None:
    assert shares(see("0", "1", "2", "3")) == [4.0]
    assert shares(*[see("0", "1", "2", "3")] * 2) == [2.0, 2.0]
    assert shares(*[see("0", "1", "2")] * 2) == [1.0, 1.0]
    assert shares(*[see("0", "1")] * 4) == [0.5] * 4


def test_workers_with_own_gpus_on_other_hosts_or_in_other_jobs_are_no_neighbours() -> None:
    assert shares(see("0"), see("GPU-8a")) == [1.0, 1.0]
    assert shares(see("0", "1"), see("0", "1", host="other")) == [2.0, 2.0]
    assert shares(see("0", "1", job="7"), see("0", "1", job="8")) == [2.0, 2.0]


def test_what_no_variable_and_no_tool_tells_of_implies_nothing() -> None:
    assert shares(Sight("host", SeenGpus(UNKNOWN, UNKNOWN)), see()) == []


def cluster(*lists: str, **resources: float) -> SpecCluster:
    """Workers of one machine that see these GPUs, each in its own order."""
    workers = {
        n: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "env": {"CUDA_VISIBLE_DEVICES": listed},
                "resources": resources or None,
                "dashboard": False,
            },
        }
        for n, listed in enumerate(lists)
    }
    scheduler = {"dashboard_address": "127.0.0.1:0", "port": 0}
    return SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": scheduler})


def where(config: Any, trial: Any) -> None:
    names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    own = [int(names[int(device.partition(":")[2])]) for device in trial.devices]
    seen = Path(trial.config["folder"])
    (seen / str(trial.id)).touch()
    while len(list(seen.iterdir())) < trial.config["n"]:
        time.sleep(0.01)  # all workers train at a time
    trial.report({"loss": 1.0, "first": own[0], "n": len(own), "sum": sum(own)})


@pytest.mark.cluster
def test_four_workers_with_rotated_lists_train_on_four_gpus(make_study: Any, tmp_path: Any) -> None:
    """As those of ``LocalCUDACluster``, which sets the variable and no resource."""
    (tmp_path / "seen").mkdir()
    study = make_study(where, FIFO(1), space={"folder": str(tmp_path / "seen"), "n": 4})
    with cluster("0,1,2,3", "1,2,3,0", "2,3,0,1", "3,0,1,2") as own:
        result = study.run(4, client=own, resources={"gpu": 1}, progress=False)
    assert sorted(result.trials()["first"]) == [0, 1, 2, 3]


@pytest.mark.cluster
def test_two_workers_share_four_gpus_by_twos(make_study: Any, tmp_path: Any) -> None:
    (tmp_path / "seen").mkdir()
    study = make_study(where, FIFO(1), space={"folder": str(tmp_path / "seen"), "n": 2})
    with cluster("0,1,2,3", "0,1,2,3") as own:
        result = study.run(2, client=own, resources={"gpu": 2}, progress=False)
    assert sorted(result.trials()["sum"]) == [0 + 1, 2 + 3]


@pytest.mark.cluster
def test_a_worker_that_offers_four_gpus_gives_a_trial_all_of_them(
    make_study: Any, tmp_path: Any
) -> None:
    (tmp_path / "seen").mkdir()
    study = make_study(where, FIFO(1), space={"folder": str(tmp_path / "seen"), "n": 1})
    with cluster("4,5,6,7", GPU=4) as own:
        result = study.run(1, client=own, resources={"gpu": 4}, progress=False)
    assert result.trials()[["first", "n", "sum"]].values.tolist() == [[4, 4, 4 + 5 + 6 + 7]]


@pytest.mark.cluster
def test_a_study_without_suitable_workers_hears_how_to_make_them(
    client: Client, make_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(where, FIFO(1))
    with cluster("0", GPU=1) as own, pytest.raises(NoSuitableWorkers) as told:
        study.run(1, client=own, resources={"gpu": 4}, worker_timeout="1s", progress=False)
    assert "resources {'GPU': 1" in str(told.value)
    assert "a trial's 4 GPUs must be those of one worker: start workers with" in str(told.value)
    assert "slurm_cluster(gpus_per_trial=4)" in str(told.value)
