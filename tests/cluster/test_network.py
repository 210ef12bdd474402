"""By which address this machine is reached."""

from __future__ import annotations

import pytest

from daskhpo.cluster.network import Interface, choose, interfaces, named_address, way_to

LO, ETH = Interface("lo", "127.0.0.1"), Interface("eth0", "10.0.0.5")
IB, DOCKER = Interface("ib0", "192.168.7.5"), Interface("docker0", "172.17.0.1")


@pytest.mark.parametrize(
    ("found", "ways", "address"),
    [
        ([LO, ETH, IB], ["10.0.0.5"], "10.0.0.5"),  # the way there is known
        ([LO, ETH, IB], ["10.9.9.9", "192.168.7.5"], "192.168.7.5"),
        ([LO, ETH, IB], [], "192.168.7.5"),  # it is not: the fast network
        ([LO, DOCKER, ETH], [], "10.0.0.5"),
        ([LO, ETH], ["127.0.0.1"], "127.0.0.1"),  # the nodes are this machine
        ([Interface("ib1", "192.168.8.5"), IB], [], "192.168.7.5"),
        ([LO, Interface("enp3s0f1", "10.0.0.7"), DOCKER], [], "10.0.0.7"),
        ([LO, Interface("hsn0", "10.1.0.7"), ETH], [], "10.1.0.7"),
    ],
)
def test_the_address_that_is_chosen(found: list[Interface], ways: list[str], address: str) -> None:
    assert choose(found, ways) == address


def test_if_none_fits_those_that_are_there_are_listed() -> None:
    with pytest.raises(
        ValueError, match=r"lo \(127.0.0.1\), docker0 \(172.17.0.1\)\. Give .* as interface="
    ):
        choose([LO, DOCKER], [])
    with pytest.raises(ValueError, match="none that is up"):
        choose([], [])


def test_this_machines_interfaces_are_found_by_name() -> None:
    assert LO in interfaces()
    assert named_address("lo") == "127.0.0.1"
    with pytest.raises(ValueError, match=r"interface='ib7' is not .* lo \(127\.0\.0\.1\)"):
        named_address("ib7")


def test_the_way_to_this_machine_is_itself() -> None:
    assert way_to("127.0.0.1") == "127.0.0.1"
    assert way_to("no-such-host.invalid") is None
