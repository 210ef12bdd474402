"""What a rank's process gets: environment, port."""

from __future__ import annotations

import socket
import sys

import pytest

from daskhpo.cluster.gpus import VISIBLE, Gpus
from daskhpo.distributed.processes import RankGpus, rank_environment, rank_gpus, reserved_port

CPU = ("cpu",)


def environment(environ: dict[str, str], **given: object) -> dict[str, str]:
    usual: dict[str, object] = {"rank": 1, "n": 2, "port": 4000, "gpus": RankGpus(), "n_cpus": 9}
    return rank_environment(environ, **(usual | given))  # type: ignore[arg-type]


def test_a_rank_gets_torchruns_variables_and_those_of_its_trial() -> None:
    given = environment({"HOME": "/home", "RANK": "7", "SLURM_PROCID": "0"})
    assert (
        given.items()
        >= {
            **{"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "4000", "GROUP_RANK": "0"},
            **{"HOME": "/home", "SLURM_PROCID": "0"},
        }.items()
    )


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"OMP_NUM_THREADS": "4"}),  # of the CPUs
        ({"OMP_NUM_THREADS": "8"}, {"OMP_NUM_THREADS": "4"}),
        ({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "1"}),
        ({"MKL_NUM_THREADS": "4"}, {"MKL_NUM_THREADS": "2", "OMP_NUM_THREADS": "4"}),
        ({"OMP_NUM_THREADS": "4,2"}, {"OMP_NUM_THREADS": "4"}),
    ],
)
def test_ranks_share_the_threads_of_their_trial(
    environ: dict[str, str], expected: dict[str, str]
) -> None:
    given = environment(environ)
    assert {k: v for k, v in given.items() if k.endswith("_NUM_THREADS")} == expected


CUDA, ROCR, HIP = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
LEVEL_ZERO = "ZE_AFFINITY_MASK"


@pytest.mark.parametrize(
    ("environ", "devices", "expected"),
    [
        ({CUDA: "2,3"}, CPU, {CUDA: "2,3"}),
        ({CUDA: "4,5,6,7"}, ("cuda:2", "cuda:3"), {CUDA: "6,7"}),
        ({CUDA: "GPU-a, GPU-b"}, ("cuda:0", "cuda:1"), {CUDA: "GPU-a,GPU-b"}),
        ({CUDA: "2,3,0,1"}, ("cuda:0", "cuda:1"), {CUDA: "2,3"}),  # dask-cuda's second worker
        ({ROCR: "4,5,6,7"}, ("cuda:1", "cuda:2"), {ROCR: "5,6"}),
        ({HIP: "4,5,6"}, ("cuda:1", "cuda:2"), {HIP: "5,6"}),
        ({ROCR: "4,5,6", HIP: "1,2"}, ("cuda:0", "cuda:1"), {ROCR: "5,6", HIP: "0,1"}),
        ({LEVEL_ZERO: "0.0,0.1,1.0"}, ("xpu:1", "xpu:2"), {LEVEL_ZERO: "0.1,1.0"}),
    ],
)
def test_ranks_see_the_gpus_of_their_trial_in_order_and_no_other_ones(
    environ: dict[str, str], devices: tuple[str, ...], expected: dict[str, str]
) -> None:
    gpus = rank_gpus(environ, devices)
    given = environment(environ, gpus=gpus)
    assert {name: given[name] for name in VISIBLE if name in given} == expected
    if devices != CPU:
        kind = devices[0].partition(":")[0]
        assert [gpus.device(rank) for rank in range(2)] == [f"{kind}:0", f"{kind}:1"]


def test_each_rank_sees_its_own_part_of_a_divided_gpu() -> None:
    gpus = rank_gpus({CUDA: "MIG-a,MIG-b,MIG-c"}, ("cuda:0", "cuda:1", "cuda:2"))
    assert [gpus.environment(rank) for rank in range(3)] == [
        {CUDA: "MIG-a"},
        {CUDA: "MIG-b"},
        {CUDA: "MIG-c"},
    ]
    assert [gpus.device(rank) for rank in range(3)] == ["cuda:0"] * 3


def test_gpus_that_nothing_tells_of_are_numbered() -> None:
    assert RankGpus(Gpus(), ("2", "3")).environment(1) == {CUDA: "2,3"}
    assert RankGpus().environment(1) == {}
    assert [RankGpus().device(rank) for rank in range(2)] == ["cpu", "cpu"]


@pytest.mark.skipif(sys.platform != "linux", reason="how ports are given is Linux's")
def test_a_reserved_port_is_for_a_rendezvous_alone() -> None:
    with reserved_port() as port, reserved_port() as other:
        assert port != other
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")):
            with socket.socket(family) as store:  # as torch's does
                store.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                store.bind((host, port))
                store.listen()
                with socket.create_connection(("127.0.0.1", port), timeout=5):
                    accepted, _ = store.accept()
                    accepted.close()
