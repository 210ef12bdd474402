"""What is heard of a job: from who knows the token only, by whichever way is open."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daskhpo.cluster.doctor import probe
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.probe_job import (
    MODULES,
    ProbeResult,
    ProbeServer,
    probe_locally,
    program,
    script,
)

TOKEN = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "here").write_text(TOKEN)
    (tmp_path / "facts").touch()
    return tmp_path


@pytest.fixture
def ear(folder):
    with ProbeServer(TOKEN, folder) as ear:
        yield ear


def hear(ear, visit, condition, seconds=60.0):
    """Listen until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, visit
        ear.listen(visit, 0.05)
        ear.call(visit)


def ask(folder, port, **changes):
    asked = {
        "token": TOKEN,
        "addresses": [["lo", "127.0.0.1"]],
        "port": port,
        "interface": None,
        "folder": str(folder),
        "facts": str(folder / "facts"),
        "modules": ["daskhpo"],
        "gpu": False,
    }
    return asked | changes


def run(asked):
    return subprocess.Popen([sys.executable, "-c", program(asked)])


def test_the_probe_is_read_by_old_versions_of_python():
    text = Path(probe.__file__).read_text()
    tree = ast.parse(text, feature_version=(3, 6))
    imported = {
        name.name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert imported <= set(sys.stdlib_module_names)


def test_all_is_heard_by_the_connection(ear, folder):
    visit = ProbeResult("1")
    with run(ask(folder, ear.port)) as process:
        hear(ear, visit, lambda: "end" in visit.facts)
    assert process.returncode == 0
    assert visit.heard == "connection"
    assert set(visit.facts) == {"hello", "shared", "limits", "scratch", "python", "end"}
    assert visit.called == {"127.0.0.1": ""}
    assert visit.facts["end"] == {"called": True}
    assert abs(visit.skew) < 1
    assert visit.skew_error < 1
    ear.look_for_file(visit, time.monotonic())
    assert visit.wrote is not None
    assert visit.facts["shared"]["same"]


def test_without_a_connection_all_is_heard_by_the_file(ear, folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        closed = other.getsockname()[1]
    visit = ProbeResult("1")
    with run(ask(folder, closed)):
        hear(ear, visit, lambda: "end" in visit.facts)
    assert visit.heard == "file"
    assert "refused" in visit.facts["hello"]["reached"][0]["error"]
    assert visit.called == {"127.0.0.1": ""}  # the other way is open


def test_without_a_shared_directory_all_is_heard_by_the_connection(ear, folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("another") / "nosuch"
    visit = ProbeResult("1")
    with run(ask(elsewhere, ear.port, facts=str(elsewhere / "facts"))):
        hear(ear, visit, lambda: "end" in visit.facts)
    assert visit.heard == "connection"
    assert visit.facts["shared"]["there"] is False


def test_an_interface_that_the_node_has_not_is_told_with_those_it_has(ear, folder):
    visit = ProbeResult("1")
    with run(ask(folder, ear.port, interface="ib7")) as process:
        hear(ear, visit, lambda: "hello" in visit.facts)
        process.kill()
    assert visit.facts["hello"]["address_error"].startswith("ib7: ")
    assert "lo" in visit.facts["hello"]["address_error"]


@pytest.mark.parametrize(
    "message",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"token": "another"}\n{"section": "end", "at": 1}\n',
        b'{"token": 3}\n{"section": "end", "at": 1}\n',
        b"[1]\n",
        b"\xff\xfe\n",
        b"x" * 3_000_000,
    ],
    ids=["http", "another token", "no text", "no object", "no unicode", "too much"],
)
def test_strangers_are_not_listened_to(ear, message):
    visit = ProbeResult("1")
    with socket.create_connection(("127.0.0.1", ear.port), 10) as stranger:
        stranger.setblocking(False)
        sent, is_cut_off = 0, False
        end = time.monotonic() + 60
        while not is_cut_off:
            assert time.monotonic() < end, "the stranger is not cut off"
            ear.listen(visit, 0.01)
            try:
                sent += stranger.send(message[sent:]) if sent < len(message) else 0
                is_cut_off = stranger.recv(10) == b""
            except BlockingIOError:
                continue
            except ConnectionError:
                is_cut_off = True
    assert visit.facts == {}
    assert visit.heard == ""


def test_what_is_heard_twice_counts_once_and_nonsense_is_left_out(ear, folder):
    visit = ProbeResult("1")
    lines = [{"section": "limits", "at": 1.0, "n": 1}, {"section": "limits", "at": 2.0, "n": 2}]
    text = "\n".join([*map(json.dumps, lines), "{", "[]", '{"at": 1}', '{"section": "half", "at"'])
    (folder / "facts").write_text(text)
    ear.listen(visit, 0.01)
    assert visit.facts == {"limits": {"n": 1}}


def test_the_script_is_one_that_needs_no_file(folder):
    request = JobRequest(
        python="/env/bin/python", job_script_prologue=["module load x", "export A=1"]
    )
    lines = script(request, folder, ask(folder, 1)).splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert {"#SBATCH --gres=gpu:1", "#SBATCH --time=0-00:05:00"} <= set(lines[1:6])
    start = lines.index("module load x")
    assert lines[start + 1] == "export A=1"
    assert lines[start + 2] == "/env/bin/python - <<'DASKHPO_PROBE'"
    assert lines[-1] == "DASKHPO_PROBE"
    checked = subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=False)
    assert checked.returncode == 0


@pytest.mark.slow
def test_this_machine_is_looked_at_by_the_same_probe():
    facts = probe_locally(gpu=True)
    assert set(facts["python"]["versions"]) == set(MODULES)
    assert facts["python"]["errors"] == {}
    assert facts["limits"]["NOFILE"][0] > 0
    assert "tried" in facts["gpu"]
    assert "shared" not in facts


def test_something_that_hangs_is_given_up():
    assert probe.within(0.01, time.sleep, 60) == {"error": "it did not finish within 0 seconds"}
    assert probe.within(60, lambda: {"n": 1}) == {"n": 1}
    assert probe.within(60, lambda: 1 / 0) == {"error": "ZeroDivisionError: division by zero"}
