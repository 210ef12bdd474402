"""Program of the doctor's job: makes the checks that are possible only there.

The job runs it as it would run a worker, with a :class:`Probe` as JSON in its standard input. It
prints each finding at once, as one line of JSON.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from daskhpo.cluster.doctor.finding import Finding, ok, problem
from daskhpo.cluster.doctor.gpu_checks import check_gpus
from daskhpo.cluster.doctor.machine_checks import check_limits, check_python, check_scratch
from daskhpo.cluster.network import interfaces, way_to

CONNECT_SECONDS = 10.0
CHECK_SECONDS = 120.0  # an import or a driver may hang
LINGER_SECONDS = 30.0  # for the doctor to connect: it may see the address late
FIREWALL = (
    "choose another --interface, or run the study inside a job with daskhpo submit: between jobs "
    "there is no firewall"
)


@dataclass(frozen=True)
class Probe:
    """Data that the job receives.

    Attributes
    ----------
    addresses : names and addresses of the doctor's interfaces, the preferred one first.
    port : on which the doctor listens.
    interface : network interface of the workers; None: that of their route to the doctor.
    versions, digest : versions of packages, and hash of daskhpo, where the doctor runs.
    n_gpus : number of GPUs that the job requested.
    """

    addresses: Sequence[tuple[str, str]]
    port: int
    interface: str | None
    versions: Mapping[str, str]
    digest: str
    n_gpus: int


def main() -> None:
    """Make all checks, and print what they find."""
    probe = Probe(**json.load(sys.stdin))
    with socket.create_server(("", 0)) as server:  # the kernel completes connections from now on
        _print(
            {
                "host": socket.gethostname(),
                "interfaces": ", ".join(map(str, interfaces())),
                "address": own_address(probe),
                "port": server.getsockname()[1],
            }
        )
        checks: dict[str, Callable[[], Iterable[Finding]]] = {
            "worker to here": lambda: check_connection(probe),
            "limits": check_limits,
            "scratch": check_scratch,
            "python": lambda: check_python(probe.versions, probe.digest),
            "gpu computing": lambda: check_gpus(probe.n_gpus),
        }
        for name, check in checks.items():
            for finding in within(CHECK_SECONDS, name, check):
                _print(finding.to_json())
        _print({"end": True})
        server.settimeout(LINGER_SECONDS)
        with suppress(OSError):
            server.accept()
    os._exit(0)  # a thread may hang in a driver


def within(seconds: float, name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return the findings of a check; a problem of this name if it fails or hangs."""
    found: list[list[Finding]] = []

    def run() -> None:
        try:
            found.append(list(check()))
        except BaseException as error:
            found.append([problem(name, f"{type(error).__name__}: {error}")])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    message = f"it did not finish within {seconds:.0f} seconds"
    hint = "a disk or the GPU driver may hang: check nvidia-smi on that node"
    return found[0] if found else [problem(name, message, hint)]


def check_connection(probe: Probe) -> Iterator[Finding]:
    """Connect to the doctor by its preferred interface; if that fails, by the others."""
    check, node, errors = "worker to here", socket.gethostname(), []
    for name, host in probe.addresses:
        try:
            socket.create_connection((host, probe.port), CONNECT_SECONDS).close()
        except OSError as error:
            errors.append(f"{node} cannot connect to {host} ({name}): {error}")
            continue
        if errors:
            yield problem(check, errors[0], f"choose --interface {name}")
        else:
            yield ok(check, f"{node} can connect to {host} ({name})")
        return
    yield problem(check, errors[0], FIREWALL)


def own_address(probe: Probe) -> str | None:
    """Return the address that a worker here would announce; None: it has none."""
    if probe.interface is not None:
        return next((one.address for one in interfaces() if one.name == probe.interface), None)
    ways = (way_to(host) for _, host in probe.addresses)
    return next((way for way in ways if way is not None), None)


def _print(message: Mapping[str, Any]) -> None:
    print(json.dumps(message), flush=True)
    with suppress(OSError):  # no file
        os.fsync(sys.stdout.fileno())


if __name__ == "__main__":
    main()
