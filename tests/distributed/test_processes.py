"""What a rank's process gets: environment, port."""

from __future__ import annotations

import socket
import sys

import pytest

from daskhpo.distributed.processes import rank_environment, reserved_port

CPU = ("cpu",)


def environment(environ: dict[str, str], **given: object) -> dict[str, str]:
    usual: dict[str, object] = {"rank": 1, "n": 2, "port": 4000, "devices": CPU, "n_cpus": 9}
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


@pytest.mark.parametrize(
    ("visible", "devices", "expected"),
    [
        (None, CPU, None),
        ("2,3", CPU, "2,3"),
        (None, ("cuda:2", "cuda:3"), "2,3"),
        ("4,5,6,7", ("cuda:2", "cuda:3"), "6,7"),
        ("GPU-a, GPU-b", ("cuda:0", "cuda:1"), "GPU-a,GPU-b"),
    ],
)
def test_ranks_see_the_devices_of_their_trial_and_no_other_ones(
    visible: str | None, devices: tuple[str, ...], expected: str | None
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert environment(environ, devices=devices).get("CUDA_VISIBLE_DEVICES") == expected


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
