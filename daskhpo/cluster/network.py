"""Address by which compute nodes reach this machine."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from daskhpo.cluster.commands import ask
from daskhpo.cluster.parsers import parse_addresses
from daskhpo.cluster.shell import CommandError

logger = logging.getLogger("daskhpo")

KINDS = (  # names by preference, if no route to a node is known; others are then not used
    r"ib\w*|hsn\w*|ipogif\w*|opa\w*",  # InfiniBand, Slingshot, Aries, Omni-Path
    r"bond\w*|team\w*",
    r"en\w*|eth\w*|em\w*|p\d+p\d+",
)
N_NODES = 3  # number of a partition's nodes to which a route is looked up


@dataclass(frozen=True)
class Interface:
    """A network interface of this machine, and its IPv4 address."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


def interfaces() -> list[Interface]:
    """Return the interfaces that are up and have an IPv4 address."""
    import psutil

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    return [
        Interface(name, one.address)
        for name, addresses in psutil.net_if_addrs().items()
        for one in addresses
        if one.family == socket.AF_INET and name in up
    ]


def reachable_address(queue: str | None) -> str:
    """Return the address by which a partition's nodes probably reach this machine.

    Parameters
    ----------
    queue : the partition; None: all of them.

    Raises
    ------
    ValueError : no interface is suitable.
    """
    return choose(interfaces(), [way for node in node_addresses(queue) for way in _ways(node)])


def named_address(name: str) -> str:
    """Return the address of a network interface.

    Raises
    ------
    ValueError : no interface has this name; the message lists those of this machine.
    """
    for interface in (found := interfaces()):
        if interface.name == name:
            return interface.address
    raise ValueError(
        f"interface={name!r} is not one of this machine's interfaces: {_listed(found)}"
    )


def choose(found: Sequence[Interface], ways: Sequence[str]) -> str:
    """Choose the address that compute nodes connect to.

    Parameters
    ----------
    found : this machine's interfaces.
    ways : local addresses of its routes to compute nodes.

    Raises
    ------
    ValueError : no interface is suitable.
    """
    addresses = {interface.address for interface in found}
    for way in ways:
        if way in addresses:
            return way
    for kind in KINDS:
        of_kind = [one for one in found if re.fullmatch(kind, one.name)]
        if of_kind:
            return min(of_kind, key=lambda one: (len(one.name), one.name)).address
    raise ValueError(
        f"no network interface was found that compute nodes could reach; this machine has "
        f"{_listed(found)}. Give the name of the right one as interface="
    )


def node_addresses(queue: str | None) -> list[str]:
    """Return addresses or names of a few nodes of a partition; empty: not known."""
    which = [] if queue is None else [f"--partition={queue}"]
    try:
        printed = ask(["sinfo", "--noheader", "--Node", "--format=%o", *which])
    except CommandError as error:
        logger.info("the addresses of nodes could not be read from Slurm: %s", error)
        return []
    return parse_addresses(printed)[:N_NODES]


def way_to(host: str) -> str | None:
    """Return the local address of this machine's route to another one; None: no route.

    Sends nothing.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect((host, 9))
        except OSError:
            return None
        return str(one.getsockname()[0])


def ssh_tunnel(host: str, port: int, login: str) -> str:
    """Return the ``ssh`` command that forwards a dashboard to the user's machine.

    The dashboard listens on the loopback interface of the host.

    Parameters
    ----------
    login : machine through which the host is reached; it may be the host itself.
    """
    jump = "" if host == login else f"-J {login} "
    return f"ssh -N -L 8787:127.0.0.1:{port} {jump}{host}"


def _ways(host: str) -> Iterable[str]:
    way = way_to(host)
    return [] if way is None else [way]


def _listed(found: Sequence[Interface]) -> str:
    return ", ".join(map(str, found)) or "none that is up"
