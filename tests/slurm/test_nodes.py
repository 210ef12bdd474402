"""Trials whose ranks run on two nodes of a real Slurm."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from daskhpo import Study
from daskhpo.cluster import autoscaler, slurm_cluster
from daskhpo.core.events import AttemptLost, Failed, Reported
from daskhpo.core.random import trial_seed
from daskhpo.distributed import launch
from daskhpo.engine.session import study_records
from daskhpo.schedulers import FIFO
from daskhpo.searchers import RandomSearch
from daskhpo.space import Ordinal, Real
from tests.distributed import ddp
from tests.distributed.kills import MAX_T, Alone, is_alive
from tests.executors.dask import loader_kills
from tests.pause_all import PauseAll
from tests.slurm.slurm import Slurm, until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

cloudpickle.register_pickle_by_value(sys.modules[__name__])
cloudpickle.register_pickle_by_value(ddp)

SPACE = {"lr": Real(0.003, 0.03), "batches": 4}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaler, "WORKER_CHECK_SECONDS", 0.5)
    monkeypatch.setattr(autoscaler, "SQUEUE_SECONDS", 1.0)


@pytest.fixture
def cluster_of(slurm: Slurm, tmp_path: Path) -> Iterator[Any]:
    """Makes clusters whose jobs have two nodes; at the end no rank is left."""

    def make(**words: Any) -> Any:
        return slurm_cluster(
            1,
            **{
                "cores": 2,
                "memory": "2GB",
                "walltime": "10m",
                "gpus_per_trial": 2,
                "nodes_per_trial": 2,
                "log_directory": str(tmp_path / "logs"),
                "shared_temp_directory": str(tmp_path),
            }
            | words,
        )

    yield make
    until(lambda: not step_ranks(), "the end of all ranks")


def step_ranks() -> list[psutil.Process]:
    """All living ranks that are tasks of steps."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[:1] != ["srun"] and any("main_of_step()" in word for word in words):
            found.append(process)
    return [process for process in found if is_alive(process)]


def make_study(folder: Path, trainable: Any, scheduler: Any, space: Any = SPACE) -> Study:
    return Study(trainable, space, "loss", scheduler=scheduler, storage=folder, name="s")


def records(study: Study, kind: type) -> list[Any]:
    return [record for record in study_records(study.path) if isinstance(record, kind)]


def check_losses(study: Study) -> None:
    """The losses are those of one process with the same global batch."""
    result = study.result()
    for trial in result.trials().trial:
        history = result.history().query(f"trial == {trial}").sort_values("resource")
        alone = Alone(dict(result.trial(trial).config), trial_seed(0, trial), len(history))
        ddp.train(alone.config, alone)
        assert list(history.resource) == list(range(1, len(history) + 1))
        for found, expected in zip(history.loss, alone.losses, strict=True):
            assert abs(found - expected) <= 1e-6 * expected


def places(config: Any, trial: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    mine = {
        "node": int(os.environ["SLURMD_NODENAME"][1:]),
        "local": int(os.environ["LOCAL_RANK"]),
        "same": trial.local_rank == int(os.environ["LOCAL_RANK"]),
        "rank": (trial.rank, dist.get_rank(), trial.world_size),
        "group": int(os.environ["GROUP_RANK"]),
        "device": trial.device,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "secret": [name for name in os.environ if name.startswith("DASKHPO_RANKS")],
    }
    every: list[Any] = [None] * trial.world_size
    dist.all_gather_object(every, mine)
    if trial.rank == 0:
        assert [one["local"] for one in every] == [0, 1, 0, 1]
        assert [one["group"] for one in every] == [0, 0, 1, 1]
        assert [one["rank"] for one in every] == [(n, n, 4) for n in range(4)]
        assert [one["device"] for one in every] == ["cuda:0", "cuda:1"] * 2
        assert all(one["same"] and one["visible"] == "0,1" for one in every), every
        assert not any(one["secret"] for one in every)
        assert every[0]["node"] == every[1]["node"] != every[2]["node"] == every[3]["node"]
    trial.report({"loss": 1.0})
    dist.destroy_process_group()


def test_four_ranks_on_two_nodes_have_their_places_and_gpus(
    cluster_of: Any, tmp_path: Path
) -> None:
    def in_ranks(config: Any, trial: Any) -> None:
        assert trial.devices == ("cuda:0", "cuda:1")  # of this node
        launch(places, trial)

    study = make_study(tmp_path, in_ranks, FIFO(1))
    with cluster_of(gpus_per_trial=4) as cluster:
        result = study.run(1, client=cluster, resources={"gpu": 4}, progress=False)
    assert result.trial(0).reason != "", result.trial(0).error
    assert result.trials().status.tolist() == ["completed"], result.trial(0).error


@pytest.mark.long
def test_ddp_on_two_nodes_pauses_and_goes_on_with_other_numbers_of_ranks(
    cluster_of: Any, tmp_path: Path
) -> None:
    def in_ranks(config: Any, trial: Any) -> None:
        launch(ddp.train, trial, config["first"] if trial.resource == 0 else config["then"])

    space = SPACE | {"first": Ordinal([1, 2]), "then": Ordinal([1, 2])}
    ranks = [(2, 1), (1, 2)]  # before the pause, and after
    points = [{"lr": 0.01, "first": first, "then": then} for first, then in ranks]
    study = Study(
        in_ranks,
        space,
        "loss",
        scheduler=PauseAll(),
        searcher=RandomSearch(points_to_evaluate=points),
        storage=tmp_path,
        name="s",
    )
    with cluster_of() as cluster:
        result = study.run(len(ranks), client=cluster, resources={"gpu": 2}, progress=False)
    assert (result.trials().status == "completed").all(), result.trials().reason.tolist()
    used = result.history().sort_values("resource").groupby("trial").ranks.unique()
    assert [tuple(of_trial) for of_trial in used] == ranks
    check_losses(study)


@pytest.mark.long
def test_ranks_on_two_nodes_hand_over_before_their_job_ends(
    slurm: Slurm, cluster_of: Any, tmp_path: Path
) -> None:
    def slowly(config: Any, trial: Any) -> None:
        assert 0 < trial.remaining_walltime() <= 120  # as Slurm told the worker
        report = trial.report

        def later(*args: Any, **options: Any) -> None:
            time.sleep(0.5)
            report(*args, **options)

        trial.report = later
        ddp.train(config, trial)

    def in_ranks(config: Any, trial: Any) -> None:
        launch(slowly, trial, 2)

    study = make_study(tmp_path, in_ranks, FIFO(200))  # 100 s and more, in jobs of two minutes
    with cluster_of(walltime="2m") as cluster:
        study.run(1, client=cluster, resources={"gpu": 2}, progress=False)
    assert study.result().trials().status.tolist() == ["completed"]
    assert records(study, AttemptLost) == []
    assert records(study, Failed) == []
    told = [step.resource for r in records(study, Reported) for step in r.steps]
    assert len(told) == len(set(told)), "no unit was trained again"
    assert len(study.result().jobs) >= 2
    check_losses(study)
    ends = {job: slurm.command("scontrol", "show", "job", job) for job in study.result().jobs}
    assert all("JobState=TIMEOUT" not in end for end in ends.values()), ends


@pytest.mark.long
def test_a_killed_rank_on_another_node_ends_the_attempt_and_no_unit_is_lost(
    cluster_of: Any, tmp_path: Path
) -> None:
    def in_ranks(config: Any, trial: Any) -> None:
        launch(ddp.train, trial, 2)

    n_kills = int(os.environ.get("DASKHPO_KILLS", "3"))
    numbers, hit = random.Random(0), 0
    space = SPACE | {"batches": 150}
    study = make_study(tmp_path, in_ranks, FIFO(MAX_T), space)
    with cluster_of() as cluster:
        handle = study.start(
            n_kills,
            client=cluster,
            resources={"gpu": 2},
            max_failures=9,
            checkpoint="every:1",
            progress=False,
        )
        while hit < n_kills and not handle._remote.is_finished(0.0):
            ranks = until(lambda: step_ranks() if len(step_ranks()) == 2 else None, "two ranks")
            time.sleep(numbers.uniform(0.0, 6.0))  # the moment of the kill
            victim = numbers.choice(ranks)
            if is_alive(victim):
                victim.send_signal(numbers.choice([signal.SIGKILL, signal.SIGABRT]))
                until(lambda ranks=ranks: not any(map(is_alive, ranks)), "the end of both", 20)
                hit += 1
        handle.wait()
    assert hit == n_kills
    assert (study.result().trials().status == "completed").all()
    assert len(records(study, Failed)) == hit
    reasons = {failed.error.splitlines()[0] for failed in records(study, Failed)}
    assert all("of 2 was killed by SIG" in reason for reason in reasons), reasons
    check_losses(study)


@pytest.mark.long
def test_a_node_that_fails_costs_an_attempt_alone(
    slurm: Slurm, cluster_of: Any, tmp_path: Path
) -> None:
    """Its job is cancelled, as by an administrator; the trial goes on in another one."""

    def in_ranks(config: Any, trial: Any) -> None:
        launch(ddp.train, trial, 2)

    study = make_study(tmp_path, in_ranks, FIFO(8), SPACE | {"batches": 150})
    with cluster_of() as cluster:
        handle = study.start(
            1, client=cluster, resources={"gpu": 2}, checkpoint="every:1", progress=False
        )
        until(lambda: study.path.exists() and records(study, Reported), "a report")
        slurm.command("scancel", *slurm.jobs())
        handle.wait()
    assert study.result().trials().status.tolist() == ["completed"]
    assert records(study, Failed) == []
    check_losses(study)


@pytest.mark.long
@pytest.mark.parametrize("form", loader_kills.FORMS)
def test_no_process_is_left_of_loaders_that_are_killed_in_jobs(cluster_of: Any, form: str) -> None:
    n_kills = int(os.environ.get("DASKHPO_KILLS", "3"))
    with cluster_of(gpus_per_trial=1, nodes_per_trial=1) as cluster:
        campaign = loader_kills.run(
            cluster, form, n_kills, seed=1, window=1.0, resources={"gpu": 1}
        )
    assert len(campaign.hits) == n_kills
