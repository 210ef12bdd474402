"""The job: what it checks, and what its output and its end say to the doctor."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from daskhpo.cluster.doctor.finding import Verdict, ok
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.cluster.doctor.probe import Probe, check_connection, own_address, within
from daskhpo.cluster.doctor.probe_job import collect, script
from daskhpo.cluster.doctor.queue import GONE, JobState

RUNNING = JobState("RUNNING", nodes="n7")
COMPLETED = JobState("COMPLETED", nodes="n7")
HELLO = {"host": "n7", "interfaces": "lo (127.0.0.1)", "address": "127.0.0.1"}


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setattr("daskhpo.cluster.doctor.probe_job.LATE_SECONDS", 0.0)
    monkeypatch.setattr("daskhpo.cluster.doctor.probe_job.POLL_SECONDS", 0.01)


@pytest.fixture
def output(tmp_path):
    (tmp_path / "folder").mkdir()
    (path := tmp_path / "folder" / "output").touch()
    return path


@pytest.fixture
def open_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return port


def probe(port, addresses=(("lo", "127.0.0.1"),), interface=None):
    return Probe(addresses, port, interface, {"python": "3.11.0"}, "", 0)


def findings(output, *lines, state=COMPLETED, interface=None):
    """By check: what is found of a job that wrote these lines, and is in this state."""
    output.write_text("".join(f"{line}\n" for line in lines))
    found = collect("5", RUNNING, lambda: state, output, interface)
    return {finding.check: finding for finding in found}


# -- the network ---------------------------------------------------------------------------------


def test_the_doctor_is_reached(open_port):
    (finding,) = check_connection(probe(open_port))
    assert (finding.check, finding.verdict) == ("worker to here", Verdict.OK)
    assert finding.message == f"{socket.gethostname()} can connect to 127.0.0.1 (lo)"


def test_if_another_interface_is_reached_it_is_shown(open_port):
    addresses = [("ib0", "240.0.0.1"), ("lo", "127.0.0.1")]
    (finding,) = check_connection(probe(open_port, addresses))
    assert finding.verdict is Verdict.PROBLEM
    assert "cannot connect to 240.0.0.1 (ib0)" in finding.message
    assert finding.hint == "choose --interface lo"


def test_if_none_is_reached_a_firewall_is_between(closed_port):
    (finding,) = check_connection(probe(closed_port))
    assert finding.verdict is Verdict.PROBLEM
    assert "refused" in finding.message
    assert "run the study inside a job" in finding.hint


def test_a_worker_has_the_address_of_its_interface_or_of_its_route():
    assert own_address(probe(1, interface="lo")) == "127.0.0.1"
    assert own_address(probe(1)) == "127.0.0.1"
    assert own_address(probe(1, interface="ib7")) is None


def test_the_doctor_connects_to_where_the_job_listens(output, open_port):
    finding = findings(output, json.dumps(HELLO | {"port": open_port}))["here to worker"]
    assert finding.verdict is Verdict.OK
    assert finding.message == "this machine can connect to 127.0.0.1"


def test_a_worker_that_is_not_reached_is_a_problem(output, closed_port):
    finding = findings(output, json.dumps(HELLO | {"port": closed_port}))["here to worker"]
    assert finding.verdict is Verdict.PROBLEM
    assert "cannot connect to 127.0.0.1 (n7): " in finding.message
    assert "refused" in finding.message


def test_an_interface_that_the_node_has_not_is_named_with_those_it_has(output):
    hello = json.dumps(HELLO | {"address": None, "port": 1})
    finding = findings(output, hello, interface="ib7")["here to worker"]
    assert finding.verdict is Verdict.PROBLEM
    assert finding.message == "n7 has no interface ib7, but lo (127.0.0.1)"
    assert findings(output, hello)["here to worker"].verdict is Verdict.SKIPPED


# -- the output ----------------------------------------------------------------------------------


def test_what_the_job_found_is_passed_on(output):
    found = findings(output, "", json.dumps(ok("python", "3.11").to_json()), '{"end": true}')
    assert found["python"] == ok("python", "3.11")
    assert found["job"] == ok("job", "job 5 ran on n7")
    assert found["shared directory"].verdict is Verdict.OK
    assert f"{output.parents[1]}" in found["shared directory"].message
    assert found["shared directory"].message.endswith("is the same on n7")


def test_each_finding_comes_once_though_the_output_grows(output, open_port):
    lines = ["", json.dumps(HELLO | {"port": open_port}), '{"end": true}']

    def states():
        with output.open("a") as file:
            file.write(f"{lines.pop(0)}\n")
        return RUNNING

    checks = [finding.check for finding in collect("5", RUNNING, states, output, None)]
    assert checks == ["shared directory", "here to worker", "job"]


def test_a_job_whose_output_is_half_a_line_is_waited_for(output):
    output.write_text('\n{"end": tr')
    states = iter([RUNNING, COMPLETED])

    def state():
        output.write_text('\n{"end": true}\n') if (now := next(states)) is COMPLETED else None
        return now

    *_, last = collect("5", RUNNING, state, output, None)
    assert last == ok("job", "job 5 ran on n7")


def test_a_job_that_slurm_has_forgotten_was_where_it_was_last_seen(output):
    found = findings(output, "", '{"end": true}', state=GONE)
    assert found["job"].message == "job 5 ran on n7"


@pytest.mark.parametrize(
    ("state", "lines", "check", "message", "hint"),
    [
        (
            JobState("FAILED", exit_code="127:0", nodes="n7"),
            ["", "x", "/env/bin/python: No such file", ""],
            "job",
            "job 5 on n7 ended (FAILED, exit code 127:0), and Python did not start; the last line "
            "of its output: /env/bin/python: No such file",
            "--python",
        ),
        (
            JobState("FAILED", exit_code="1:0", nodes="n7"),
            ["", "python: Error (ModuleNotFoundError: No module named 'daskhpo')"],
            "python",
            "the last line of its output: python: Error (ModuleNotFoundError: No module named",
            "--python",
        ),
        (
            JobState("TIMEOUT", nodes="n7"),
            ["", json.dumps(HELLO | {"address": None, "port": 1})],
            "job",
            "ended (TIMEOUT, exit code 0:0) before it had finished",
            "checks above",
        ),
    ],
)
def test_a_job_that_was_not_through_tells_how_it_ended(output, state, lines, check, message, hint):
    finding = findings(output, *lines, state=state)[check]
    assert finding.verdict is Verdict.PROBLEM
    assert message in finding.message
    assert hint in finding.hint


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        ("0:0", "what n7 wrote to {shared} was not seen here", "that all machines share"),
        ("71:0", "{shared} does not exist on n7, or is another directory", "all machines share"),
        ("72:0", "n7 cannot write to {shared}", "mounted read-only"),
    ],
)
def test_a_directory_that_is_not_shared_shows_in_the_end_of_the_job(output, code, message, hint):
    found = findings(output, state=JobState("FAILED", exit_code=code, nodes="n7"))
    (finding,) = found.values()
    assert (finding.check, finding.verdict) == ("shared directory", Verdict.PROBLEM)
    assert message.format(shared=output.parents[1]) in finding.message
    assert hint in finding.hint


# -- the script and its program ------------------------------------------------------------------


def test_the_script_is_what_a_worker_would_get(output):
    request = JobRequest(
        python="/env/bin/python", job_script_prologue=["module load x", "export A=1"]
    )
    lines = script(request, output, probe(1)).splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert {"#SBATCH --gres=gpu:1", "#SBATCH --time=0-00:05:00"} <= set(lines[1:6])
    start = lines.index("module load x")
    assert lines[start + 1] == "export A=1"
    command = "/env/bin/python -m daskhpo.cluster.doctor.probe <<'DASKHPO_PROBE'"
    assert lines[start + 2] == command
    assert lines[-1] == "DASKHPO_PROBE"


@pytest.mark.parametrize(("folder", "code"), [("nosuch", 71), ("folder", 72)])
def test_the_script_ends_at_once_without_the_directory(tmp_path, folder, code):
    (tmp_path / "folder" / "output").mkdir(parents=True)  # no file
    text = script(JobRequest(), tmp_path / folder / "output", probe(1))
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == code


@pytest.mark.slow
def test_the_script_writes_all_findings_to_the_output(output, open_port):
    request = JobRequest(python=sys.executable, gpus_per_job=0, job_script_prologue=["echo hi"])
    with subprocess.Popen(["bash"], stdin=subprocess.PIPE, text=True) as job:
        job.stdin.write(script(request, output, probe(open_port)))
        job.stdin.close()
        found = {
            finding.check: finding
            for finding in collect("5", RUNNING, lambda: RUNNING, output, None)
        }
    assert job.returncode == 0
    assert {"shared directory", "here to worker", "worker to here"} <= set(found)
    assert {"open files", "processes", "scratch", "python", "memory", "gpu", "job"} <= set(found)
    assert found["worker to here"].verdict is found["here to worker"].verdict is Verdict.OK
    assert found["job"] == ok("job", "job 5 ran on n7")


def test_a_probe_is_the_same_after_its_way_as_json():
    asked = Probe([["lo", "127.0.0.1"]], 7, "lo", {"dask": "1"}, "abc", 2)
    assert Probe(**json.loads(json.dumps(asdict(asked)))) == asked


def test_something_that_hangs_or_fails_is_a_problem_of_its_check():
    (finding,) = within(0.01, "python", lambda: time.sleep(60))
    assert (finding.check, finding.verdict) == ("python", Verdict.PROBLEM)
    assert finding.message == "it did not finish within 0 seconds"
    assert within(60, "python", lambda: [ok("python", "3.11")]) == [ok("python", "3.11")]
    (finding,) = within(60, "gpu", lambda: 1 / 0)
    assert finding.message == "ZeroDivisionError: division by zero"
