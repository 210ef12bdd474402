"""Another user of this machine, who tries every port and every file of a running study."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

NOBODY = 65534
NOT_OURS = ("/usr/", "/lib", "/dev/", "/proc/", "/sys/", "/etc/")

_PROGRAM = r"""
import asyncio, concurrent.futures, contextlib
import http.client, http.server, json, os, socket, sys, threading, urllib.error, urllib.request
import distributed, distributed.core

task = json.load(sys.stdin)
PAGES = task["pages"]
found = {"user": os.geteuid(), "tried": 0, "opened": []}

def opened(what, how):
    found["opened"].append(f"{what}: {how}")

async def dask(address, security):
    how = security.get_connection_args("client")
    async with distributed.core.rpc(address, timeout=2, connection_args=how) as way:
        return await asyncio.wait_for(way.identity(), 4)

def ask_dask(port, security):
    own = distributed.Security(require_encryption=True, **security)
    for scheme, how in (("tcp", distributed.Security()), ("tls", own)):
        found["tried"] += 1
        with contextlib.suppress(
            OSError, TimeoutError, ValueError, EOFError, AssertionError, MemoryError
        ):
            told = asyncio.run(dask(f"{scheme}://127.0.0.1:{port}", how))
            opened(port, f"Dask over {scheme} says {str(told)[:80]}")

def ask_pages(port):
    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args):
            return None
    ways = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))
    for page in PAGES:
        for more in ("", "?token=wrong")[: 1 + (page == "/status")]:
            found["tried"] += 1
            try:
                answer = ways.open(f"http://127.0.0.1:{port}{page}{more}", timeout=3)
                opened(port, f"{page}{more} answers {answer.status}")
            except urllib.error.HTTPError as error:
                if error.code not in (400, 403):
                    opened(port, f"{page}{more} answers {error.code}")
            except (OSError, ValueError, http.client.HTTPException):
                pass

def enter(path):
    found["tried"] += 1
    with socket.socket(socket.AF_UNIX) as end, contextlib.suppress(OSError):
        end.settimeout(2)
        end.connect(path)
        opened(path, "a socket that lets in everybody")

def touch(path):
    for mode, how in ((os.R_OK, "read"), (os.W_OK, "written")):
        found["tried"] += 1
        if os.access(path, mode):
            opened(path, f"can be {how}")

def ask(port):
    ask_dask(port, task["security"])
    ask_pages(port)

async def ask_own_dask(security):
    async with distributed.core.Server({}, needs_workdir=False) as server:
        await server.listen(
            f"{'tls' if security.tls_ca_file else 'tcp'}://127.0.0.1:0",
            **security.get_listen_args("worker"),
        )
        await dask(server.address, security)

class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def log_message(self, *args):
        pass

def rehearse():
    # Ask servers of our own, so that all that this takes is imported.
    own = task["security"]
    own = own | {"tls_worker_cert": own["tls_client_cert"], "tls_worker_key": own["tls_client_key"]}
    for security in (distributed.Security(), distributed.Security(**own)):
        asyncio.run(ask_own_dask(security))
    with http.server.HTTPServer(("127.0.0.1", 0), Pages) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        ask_pages(pages.server_port)
        pages.shutdown()

rehearse()
os.setgroups([])  # only now: another user may not be able to read this Python
os.setgid(task["user"])
os.setuid(task["user"])
found |= {"user": os.geteuid(), "tried": 0, "opened": []}

with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(ask, task["ports"]))
for path in task["sockets"]:
    enter(path)
for path in task["files"]:
    touch(path)
print(json.dumps(found))
"""

PAGES = (
    *("/", "/status", "/workers", "/daskhpo", "/daskhpo-trials", "/individual-workers"),
    *("/sitemap.json", "/health", "/metrics", "/info/main/workers.html", "/info/logs.html"),
    *("/json/counts.json", "/json/identity.json", "/status/ws"),
    *("/api/v1", "/proxy/22/127.0.0.1/", "/eventstream"),
)


@dataclass(frozen=True)
class Attempt:
    """What the stranger tried, and what let him in."""

    ports: tuple[int, ...]
    n_files: int
    n_tried: int
    opened: tuple[str, ...]


def stranger_tries(processes: Iterable[psutil.Process], folders: Iterable[Path]) -> Attempt:
    """Try all that these processes listen at and hold open, and all files in some folders."""
    from daskhpo.cluster.security import new_certificate

    running = [process for process in processes if process.is_running()]
    connections = [each for one in running for each in one.net_connections("tcp")]
    ports = sorted({each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN})
    unix = [each.laddr for one in running for each in one.net_connections("unix") if each.laddr]
    listening = {path for path in unix if isinstance(path, str) and path.startswith("/")}
    held = {Path(file.path) for one in running for file in one.open_files() if file.fd > 2}
    for above in psutil.Process().parents():  # such as a log that the tests' output goes to
        with contextlib.suppress(psutil.AccessDenied):
            held -= {Path(file.path) for file in above.open_files()}
    inside = {path for folder in folders for path in (folder, *folder.rglob("*"))}
    certificate, key = new_certificate()
    files = sorted(str(path) for path in held | inside if not str(path).startswith(NOT_OURS))
    task: dict[str, Any] = {
        "ports": ports,
        "sockets": sorted(listening),
        "files": [path for path in files if not stat.S_ISLNK(os.lstat(path).st_mode)],
        "pages": PAGES,
        "user": NOBODY,
        "security": {
            "tls_ca_file": certificate,
            "tls_client_cert": certificate,
            "tls_client_key": key,
        },
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TMPDIR": "/tmp"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["user"] == NOBODY
    return Attempt(tuple(ports), len(task["files"]), found["tried"], tuple(found["opened"]))


def need_a_stranger() -> None:
    """Skip the test where nobody can be another user."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can act as another user")
