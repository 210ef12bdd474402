"""What is said of facts that a probe found."""

from __future__ import annotations

import math

import pytest

from daskhpo.cluster.doctor.finding import Verdict
from daskhpo.cluster.doctor.job_checks import (
    check_arrival,
    check_clock,
    check_connections,
    check_gpus,
    check_process_limits,
    check_python,
    check_scratch,
    check_shared,
)
from daskhpo.cluster.doctor.probe_job import ProbeResult
from daskhpo.cluster.doctor.queue import JobState

HELLO = {
    "host": "node7",
    "executable": "/env/bin/python",
    "version": "3.11.4",
    "environment": {"CUDA_VISIBLE_DEVICES": "0"},
    "reached": [{"name": "ib0", "host": "10.1.0.1", "error": ""}],
    "addresses": ["10.1.0.7"],
    "port": 1234,
}
HERE = {"python": "3.11.9", "daskhpo": "0.1.0", "dask": "2026.1.0", "numpy": "2.2.0"}
PYTHON = {
    "versions": {"daskhpo": "0.1.0", "dask": "2026.1.0", "numpy": "2.2.0"},
    "errors": {},
    "seconds": 3.0,
    "memory": 32_000_000_000,
    "folder": "/env/daskhpo",
    "digest": "abc",
}


def verdicts(findings):
    return [(finding.check, finding.verdict.value) for finding in findings]


# -- whether it came -----------------------------------------------------------------------------


def test_a_job_that_was_through_ran():
    finding = check_arrival(ProbeResult("5", JobState("COMPLETING", nodes="n7"), facts={"end": {}}))
    assert (finding.verdict, finding.message) == (Verdict.OK, "job 5 ran on n7")


@pytest.mark.parametrize(
    ("visit", "message", "hint"),
    [
        (
            ProbeResult(
                "5", JobState("FAILED", exit_code="127:0", nodes="n7"), output="x\nno python\n\n"
            ),
            "job 5 on n7 ended (FAILED, exit code 127:0), and sent no results; the last line of "
            "its output: no python",
            "--python",
        ),
        (
            ProbeResult("5", JobState("COMPLETED", nodes="n7")),
            "ended (COMPLETED, exit code 0:0), and sent no results",
            "neither worked",
        ),
        (
            ProbeResult("5", JobState("TIMEOUT", nodes="n7"), facts={"hello": HELLO}),
            "ended (TIMEOUT, exit code 0:0) before it had finished",
            "checks below",
        ),
        (
            ProbeResult("5", JobState("RUNNING", nodes="n7"), facts={"hello": HELLO}),
            "was RUNNING, and was cancelled before it had finished",
            "",
        ),
    ],
)
def test_a_job_that_was_not_through_tells_how_it_ended(visit, message, hint):
    finding = check_arrival(visit)
    assert finding.verdict is Verdict.PROBLEM
    assert message in finding.message
    assert hint in finding.hint


# -- the network ---------------------------------------------------------------------------------

ADDRESSES = [("ib0", "10.1.0.1"), ("eth0", "192.168.0.1")]


def connections(hello=None, called=None):
    visit = ProbeResult("5", facts={"hello": HELLO | (hello or {})})
    visit.called = {"10.1.0.7": ""} if called is None else called
    return check_connections(visit, ADDRESSES)


def test_both_ways_are_open():
    there, back = connections()
    assert (there.verdict, there.message) == (Verdict.OK, "node7 can connect to 10.1.0.1 (ib0)")
    assert (back.verdict, back.message) == (Verdict.OK, "this machine can connect to 10.1.0.7")


def test_if_another_interface_is_reached_it_is_shown():
    reached = [
        {"name": "ib0", "host": "10.1.0.1", "error": "timed out"},
        {"name": "eth0", "host": "192.168.0.1", "error": ""},
    ]
    there, _ = connections({"reached": reached})
    assert there.verdict is Verdict.PROBLEM
    assert there.message == "node7 cannot connect to 10.1.0.1 (ib0): timed out"
    assert there.hint == "choose --interface eth0"


def test_if_none_is_reached_a_firewall_is_between():
    reached = [{"name": n, "host": h, "error": "No route to host"} for n, h in ADDRESSES]
    there, _ = connections({"reached": reached})
    assert there.verdict is Verdict.PROBLEM
    assert "run the study inside a job" in there.hint


def test_a_worker_that_is_not_reached_is_a_problem_too():
    _, back = connections(called={"10.1.0.7": "Connection refused"})
    assert back.verdict is Verdict.PROBLEM
    assert back.message == "this machine cannot connect to 10.1.0.7 (node7): Connection refused"


def test_an_interface_that_the_node_has_not_is_named():
    error = "ib0: No such device; there are lo, eth0"
    _, back = connections({"addresses": [], "address_error": error}, called={})
    assert (back.verdict, back.message) == (Verdict.PROBLEM, error)


@pytest.mark.parametrize("hello", [None, {"error": "OSError: no socket"}])
def test_what_was_not_heard_is_not_judged(hello):
    visit = ProbeResult("5", facts={} if hello is None else {"hello": hello, "python": PYTHON})
    findings = check_connections(visit, ADDRESSES)
    assert verdicts(findings) == [("worker to here", "skipped"), ("here to worker", "skipped")]
    assert check_python(visit.facts, HERE, "abc")[0].verdict is not Verdict.PROBLEM


@pytest.mark.parametrize(
    ("skew", "error", "verdict", "message"),
    [
        (0.01, 0.001, Verdict.OK, "within 0.0 s"),
        (-1.5, 0.001, Verdict.OK, "within 1.5 s"),
        (7.0, 0.001, Verdict.WARNING, "the clock of node7 is 7 s ahead"),
        (-3600.0, 0.001, Verdict.PROBLEM, "the clock of node7 is 3600 s behind"),
        (-4.0, 3.0, Verdict.OK, "within 4.0 s"),  # the message may have waited for so long
        (0.0, math.inf, Verdict.SKIPPED, "were not compared"),
    ],
)
def test_clocks_are_compared_as_far_as_they_were_heard(skew, error, verdict, message):
    finding = check_clock(ProbeResult("5", facts={"hello": HELLO}, skew=skew, skew_error=error))
    assert finding.verdict is verdict
    assert message in finding.message


def test_the_surest_exchange_sets_the_clock():
    visit = ProbeResult("5")
    for skew, error in ((1.0, 3.0), (2.0, 0.1), (9.0, 3.0)):
        visit.set_clock(skew, error)
    assert (visit.skew, visit.skew_error) == (2.0, 0.1)


# -- the shared directory ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "wrote", "verdict", "message"),
    [
        (
            {"there": True, "same": True, "type": "nfs4"},
            0.1,
            Verdict.OK,
            "/w (nfs4) is the same on",
        ),
        (
            {"there": True, "same": True, "type": "nfs4"},
            8.0,
            Verdict.WARNING,
            "a new file took 8 s",
        ),
        ({"there": True, "same": True, "type": ""}, None, Verdict.PROBLEM, "was not seen here"),
        (
            {"there": False, "type": "ext4"},
            None,
            Verdict.PROBLEM,
            "/w does not exist on node7",
        ),
        (
            {"there": True, "same": False, "type": "ext4"},
            None,
            Verdict.PROBLEM,
            "/w is another directory on node7: its content differs",
        ),
        (
            {"there": True, "read_error": "Permission denied", "type": "nfs4"},
            None,
            Verdict.PROBLEM,
            "on node7: Permission denied",
        ),
        (
            {"there": True, "same": True, "write_error": "Read-only file system", "type": "nfs4"},
            None,
            Verdict.PROBLEM,
            "node7 cannot write to /w: Read-only file system",
        ),
        ({"error": "OSError: x"}, None, Verdict.SKIPPED, "OSError: x"),
        (None, None, Verdict.SKIPPED, "the job sent nothing"),
    ],
)
def test_a_directory_is_the_same_from_both_sides(told, wrote, verdict, message):
    facts = {"hello": HELLO} | ({} if told is None else {"shared": told})
    finding = check_shared(ProbeResult("5", facts=facts, wrote=wrote), "/w")
    assert finding.verdict is verdict
    assert message in finding.message


# -- Python --------------------------------------------------------------------------------------


def python(hello=None, **told):
    facts = {"hello": HELLO | (hello or {}), "python": PYTHON | told}
    return check_python(facts, HERE, "abc")


def test_the_same_packages_are_well_though_a_patch_of_python_differs():
    first, memory = python()
    assert (first.verdict, memory.verdict) == (Verdict.OK, Verdict.OK)
    assert first.message == "/env/bin/python (3.11.4): daskhpo 0.1.0, dask 2026.1.0"
    assert memory.message == "a worker would have 32.0 GB"


@pytest.mark.parametrize(
    ("hello", "versions", "verdict", "message"),
    [
        ({}, {"dask": "2024.12.0"}, Verdict.PROBLEM, "dask 2024.12.0 there, 2026.1.0 here"),
        ({}, {"daskhpo": "0.0.9"}, Verdict.PROBLEM, "daskhpo 0.0.9 there, 0.1.0 here"),
        ({"version": "3.12.1"}, {}, Verdict.PROBLEM, "python 3.12.1 there, 3.11.9 here"),
        ({}, {"numpy": "1.26.0"}, Verdict.WARNING, "numpy 1.26.0 there, 2.2.0 here"),
    ],
)
def test_other_versions_are_shown_from_both_sides(hello, versions, verdict, message):
    finding, *_ = python(hello, versions=PYTHON["versions"] | versions)
    assert finding.verdict is verdict
    assert message in finding.message
    assert "--python" in finding.hint


def test_other_files_of_the_same_version_are_a_problem():
    finding, *_ = python(digest="def")
    assert finding.verdict is Verdict.PROBLEM
    assert "daskhpo 0.1.0, but other files, in /env/daskhpo" in finding.message


def test_what_cannot_be_imported_is_named_the_most_needed_first():
    errors = {"zarr": "ImportError: libz", "dask": "ModuleNotFoundError: No module named 'dask'"}
    (finding,) = python(errors=errors)
    assert finding.verdict is Verdict.PROBLEM
    assert "cannot import dask: ModuleNotFoundError" in finding.message
    (finding,) = python(errors={"zarr": "ImportError: libz"})
    assert "cannot import zarr: ImportError: libz" in finding.message


def test_an_old_python_is_named_whatever_it_could_not_import():
    (finding,) = python({"version": "3.6.8"}, errors={"daskhpo": "SyntaxError: x"})
    assert finding.verdict is Verdict.PROBLEM
    assert finding.message == "/env/bin/python (3.6.8) is too old: daskhpo needs 3.11 or newer"


def test_slow_imports_and_little_memory_are_warnings():
    findings = python(seconds=50.0, memory=50_000_000)
    assert verdicts(findings) == [
        ("python", "ok"),
        ("import time", "warning"),
        ("memory", "warning"),
    ]
    assert "Dask pauses" in findings[2].hint


def test_python_that_hung_is_a_problem_and_one_not_heard_of_is_not_judged():
    (finding,) = check_python(
        {"python": {"error": "it did not finish within 120 seconds"}}, HERE, "abc"
    )
    assert (finding.verdict, finding.message) == (
        Verdict.PROBLEM,
        "it did not finish within 120 seconds",
    )
    (finding,) = check_python({}, HERE, "abc")
    assert finding.verdict is Verdict.SKIPPED


# -- devices -------------------------------------------------------------------------------------

A100 = {"name": "NVIDIA A100", "agrees": True}
TORCH = {"torch": {"version": "2.9.0", "devices": [A100], "seconds": 1.2}}
NO_CUDA = {"torch": {"version": "2.9.0+cpu", "devices": [], "missing": "is built for CPUs only"}}
BLIND = {"torch": {"version": "2.9.0", "devices": [], "problem": "finds no device"}}
BROKEN = {"cupy": {"problem": "fails: CUDARuntimeError: no driver"}}
WRONG = {"torch": {"version": "2.9.0", "devices": [A100, A100 | {"agrees": False}], "seconds": 1}}


def gpus(visible="0", asked=1, tried=TORCH, driver=True, told=None):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    facts = {"hello": HELLO | {"environment": environment}}
    facts["gpu"] = {"tried": tried, "driver": driver} if told is None else told
    return check_gpus(facts, asked)


def test_a_device_that_is_visible_and_computes_is_well():
    visible, computing = gpus()
    assert visible.message == "1 visible: CUDA_VISIBLE_DEVICES=0"
    assert computing.message == "torch 2.9.0 on NVIDIA A100, in 1.2 s"
    assert visible.verdict is computing.verdict is Verdict.OK


def test_a_site_that_sets_no_variable_is_judged_by_what_computes():
    visible, _ = gpus(visible=None)
    assert (visible.verdict, visible.message) == (Verdict.OK, "1 found")


@pytest.mark.parametrize(
    ("visible", "asked", "message"),
    [
        ("0", 2, "2 requested, but 1 visible: CUDA_VISIBLE_DEVICES=0"),
        ("", 1, "1 requested, but 0 visible"),
    ],
)
def test_fewer_devices_than_asked_for_are_a_problem(visible, asked, message):
    finding, _ = gpus(visible=visible, asked=asked)
    assert finding.verdict is Verdict.PROBLEM
    assert message in finding.message


def test_a_job_that_was_given_no_device_is_a_problem():
    finding, _ = gpus(visible=None, tried={}, driver=False)
    assert (finding.verdict, finding.check) == (Verdict.PROBLEM, "gpu")
    assert "CUDA_VISIBLE_DEVICES is not set" in finding.message


@pytest.mark.parametrize(
    ("tried", "driver", "verdict", "message"),
    [
        (NO_CUDA, True, Verdict.WARNING, "torch 2.9.0+cpu is built for CPUs only"),
        (
            NO_CUDA,
            False,
            Verdict.WARNING,
            "is built for CPUs only; the node has no GPU driver",
        ),
        ({}, True, Verdict.WARNING, "torch, cupy and jax are not installed"),
        (BLIND, False, Verdict.WARNING, "torch 2.9.0 finds no device; the node has no GPU driver"),
        (BLIND, True, Verdict.PROBLEM, "torch 2.9.0 finds no device"),
        (BROKEN, True, Verdict.PROBLEM, "cupy fails: CUDARuntimeError"),
        (BROKEN | TORCH, True, Verdict.OK, "torch 2.9.0 on NVIDIA A100"),
        (WRONG, True, Verdict.PROBLEM, "torch 2.9.0 computes wrong results on NVIDIA A100"),
    ],
)
def test_what_could_not_be_computed_is_said_and_why(tried, driver, verdict, message):
    *_, finding = gpus(tried=tried, driver=driver)
    assert (finding.check, finding.verdict) == ("gpu computing", verdict), finding
    assert message in finding.message


def test_a_driver_that_hangs_is_a_problem():
    *_, finding = gpus(told={"error": "it did not finish within 90 seconds"})
    assert (finding.verdict, finding.message) == (
        Verdict.PROBLEM,
        "it did not finish within 90 seconds",
    )
    *_, finding = check_gpus({"hello": HELLO}, 1)
    assert (finding.verdict, finding.hint) == (Verdict.PROBLEM, "its GPU driver may hang")


def test_without_devices_asked_for_none_is_looked_for():
    (finding,) = gpus(asked=0)
    assert finding.verdict is Verdict.SKIPPED


# -- limits and scratch --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "expected", "hint"),
    [
        ({"NOFILE": [1024, 4096], "NPROC": [None, None]}, ["ok", "ok"], ""),
        ({"NOFILE": [256, 4096]}, ["warning"], "ulimit -n 1024"),
        ({"NOFILE": [256, 512]}, ["warning"], "ulimit -n 512"),
        ({"NPROC": [100, None]}, ["warning"], "ulimit -u 512"),
        ({"NOFILE": [4096, 4096], "CPU": [3600, 3600]}, ["ok", "warning"], "inside a job"),
    ],
)
def test_limits_are_enough_or_how_to_raise_them(told, expected, hint):
    findings = check_process_limits({"limits": told})
    assert [finding.verdict.value for finding in findings] == expected
    assert hint in findings[-1].hint


@pytest.mark.parametrize(
    ("told", "verdict", "message"),
    [
        ({"path": "/tmp", "free": 5e10, "type": "xfs"}, Verdict.OK, "/tmp, 50.0 GB free, xfs"),
        (
            {"path": "/l", "name": "TMPDIR", "free": 5e10, "type": "lustre"},
            Verdict.WARNING,
            "/l ($TMPDIR), 50.0 GB free, lustre",
        ),
        ({"path": "/tmp", "free": 5e8, "type": "tmpfs"}, Verdict.WARNING, "0.5 GB free"),
        (
            {"path": "/no", "name": "TMPDIR", "write_error": "No such file", "type": ""},
            Verdict.PROBLEM,
            "/no ($TMPDIR) cannot be written: No such file",
        ),
    ],
)
def test_scratch_has_room_on_a_disk_of_the_node(told, verdict, message):
    finding = check_scratch({"scratch": told})
    assert finding.verdict is verdict
    assert message in finding.message
