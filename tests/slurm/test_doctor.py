"""The doctor on a real Slurm: all is well, and the right line for each thing that is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv

import pytest

from daskhpo.cluster.doctor import CheckLocation, JobRequest, Verdict, run_checks
from daskhpo.cluster.doctor.probe_job import run_probe
from daskhpo.cluster.shell import call
from tests.slurm.slurm import free_ports, until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]  # a job imports a deep learning library


@pytest.fixture
def shared(tmp_path):
    (folder := tmp_path / "shared").mkdir()
    return folder


def doctor(shared, interface="lo", *, wait=60, say=lambda news: None, fast=False, **wanted):
    """Findings, by place and name; where there are several, the worst."""
    findings = list(
        run_checks(JobRequest(**wanted), shared, interface, fast=fast, wait=wait, log=say)
    )
    order = [Verdict.SKIPPED, Verdict.OK, Verdict.WARNING, Verdict.PROBLEM]
    found = {}
    for finding in sorted(findings, key=lambda finding: order.index(finding.verdict)):
        found[finding.location, finding.check] = found[finding.check] = finding
    return found


def problems(found):
    return {
        key for key, f in found.items() if isinstance(key, str) and f.verdict is Verdict.PROBLEM
    }


def test_all_is_well(slurm, shared):
    found = doctor(shared, queue="gpu", walltime="4h", memory="4G")
    said = [f"{f.check}: {f.verdict.value}, {f.message}" for f in found.values()]
    assert not problems(found), said
    here = ("slurm", "partition", "walltime", "gres", "request", "interface")
    here += ("open files", "processes", "shared directory", "room")
    job = ("start", "job", "python", "memory", "gpu", "shared directory", "worker to here")
    job += ("here to worker", "open files", "processes", "scratch")
    for place, names in ((CheckLocation.HERE, here), (CheckLocation.JOB, job)):
        for name in names:
            assert found[place, name].verdict is Verdict.OK, (name, found[place, name])
    assert found["gres"].message == "gpu:1: 3 nodes (3 idle)"
    assert found["gpu"].message == "1 visible: CUDA_VISIBLE_DEVICES=0"
    # The devices are pretended ones: it says what it could not do, and why.
    assert found["gpu computing"].verdict is Verdict.WARNING
    assert "the node has no GPU driver" in found["gpu computing"].message
    assert list(shared.iterdir()) == []
    assert set(slurm.jobs().values()) <= {"COMPLETING"}


@pytest.mark.parametrize(
    ("wanted", "check", "said", "todo"),
    [
        ({"queue": "gqu"}, "partition", "there is no partition 'gqu'", "did you mean gpu?"),
        ({"queue": "zzz"}, "partition", "there is no partition 'zzz'", "choose one of gpu, debug"),
        (
            {"queue": "debug", "walltime": "00:06:00"},
            "walltime",
            "00:06:00 is more than the 00:05:00 that debug allows",
            "set --walltime 00:05:00 or less",
        ),
        (
            {"gres": "gpu:a100:1"},
            "gres",
            "no node of gpu has gpu:a100:1; available: gpu:2 on 3 nodes",
            "sinfo",
        ),
        ({"gpus_per_job": 3}, "gres", "no node of gpu has gpu:3", "sinfo"),
        ({"job_extra_directives": ["--gpus=3"]}, "gres", "no node of gpu has gpu:3", "sinfo"),
        (
            {"job_extra_directives": ["-C a100"]},
            "request",
            "Slurm rejects this job: allocation failure: Invalid feature",
            "features",
        ),
        ({"memory": "900GB"}, "request", "node configuration is not available", "%m"),
    ],
)
def test_what_slurm_has_not_is_said_without_a_job(slurm, shared, wanted, check, said, todo):
    found = doctor(shared, fast=True, **wanted)
    assert problems(found) == {check}
    assert said in found[check].message
    assert todo in found[check].hint
    assert set(slurm.jobs().values()) <= {"COMPLETING"}


def test_where_there_is_an_obstacle_no_job_is_submitted(slurm, shared):
    found = doctor(shared, queue="nosuch")
    assert found[CheckLocation.JOB, "job"].message == "no job was submitted: see the problems above"
    assert problems(found) == {"partition"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nosuch", "nosuch does not exist"),
        ("a-file", "a-file is not a directory"),
        ("/proc", "/proc cannot be written here"),
    ],
)
def test_a_directory_that_cannot_be_written_here_is_a_problem(slurm, tmp_path, path, said):
    (tmp_path / "a-file").touch()
    found = doctor(tmp_path / path)
    assert problems(found) == {"shared directory"}
    assert said in found["shared directory"].message
    assert found[CheckLocation.JOB, "job"].verdict is Verdict.SKIPPED


@pytest.fixture
def changed_node(slurm):
    """Starts a node again, as its jobs see another file system, and in the end as it was."""
    changed = []

    def change(node, mount):
        changed.append(node)
        slurm.kill_node(node)
        slurm.start_node(node, "unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
        slurm.wait_for_nodes()

    yield change
    until(lambda: not slurm.jobs(), "its jobs are over")
    for node in changed:
        slurm.kill_node(node)
        slurm.start_node(node)
    slurm.wait_for_nodes()


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("mount -t tmpfs none {parent}", "{shared} does not exist on"),
        ("mount -t tmpfs none {shared}", "{shared} does not exist on"),
        ("mount --bind {shared} {shared} && mount -o remount,bind,ro {shared}", "cannot write to"),
    ],
    ids=["not there", "another one", "read-only"],
)
def test_a_directory_that_jobs_do_not_share_is_a_problem(slurm, changed_node, shared, mount, said):
    changed_node("n2", mount.format(shared=shared, parent=shared.parent))
    found = doctor(shared, job_extra_directives=["--nodelist=n2"])
    assert problems(found) == {"shared directory"}
    finding = found[CheckLocation.JOB, "shared directory"]
    assert said.format(shared=shared) in finding.message


def test_a_job_that_never_starts_is_cancelled_and_its_reason_shown(slurm, shared):
    slurm.command("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=broken")
    try:
        news = []
        found = doctor(shared, wait=3, say=news.append)
    finally:
        slurm.command("scontrol", "update", "NodeName=ALL", "State=RESUME")
    assert found["nodes"].message == "gpu:1: 3 nodes (3 drained): none runs jobs"
    assert "sinfo --list-reasons" in found["nodes"].hint
    assert problems(found) >= {"nodes", "start"}
    assert "did not start within" in found["start"].message
    assert "down, drained or reserved" in found["start"].message
    assert any("is pending" in line for line in news)
    assert set(slurm.jobs().values()) <= {"COMPLETING"}


def test_a_busy_queue_is_no_problem_but_said(slurm, shared):
    for _ in slurm.nodes:
        call(["sbatch", "--gres=gpu:2", "--mem=100", "--output=/dev/null", "--wrap=sleep 600"])
    until(lambda: list(slurm.jobs().values()) == ["RUNNING"] * 3, "all GPUs are taken")
    found = doctor(shared, wait=3)
    assert found["start"].verdict is Verdict.WARNING
    assert "waits for resources" in found["start"].message
    assert "--wait" in found["start"].hint
    assert not problems(found)
    assert len(slurm.jobs()) == 3


def test_a_job_is_cancelled_if_the_doctor_is_interrupted(slurm, shared):
    def interrupt(news):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        doctor(shared, say=interrupt)
    until(lambda: not slurm.jobs(), "the job is gone")
    assert list(shared.iterdir()) == []


def test_a_python_without_daskhpo_is_a_problem(slurm, shared, tmp_path):
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare/bin/python"
    found = doctor(shared, python=str(python), job_script_prologue=["unset PYTHONPATH", "cd /"])
    assert problems(found) == {"python"}
    assert f"{python}: Error while finding module" in found["python"].message
    assert "No module named 'daskhpo'" in found["python"].message
    assert "--python" in found["python"].hint
    assert found[CheckLocation.JOB, "shared directory"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [
        ({"python": "/no/such/python"}, "/no/such/python: No such file or directory"),
        ({"job_script_prologue": ["module load nothing || exit 4"]}, "module: command not found"),
    ],
)
def test_a_job_in_which_python_does_not_start_tells_what_it_printed(slurm, shared, wanted, printed):
    found = doctor(shared, **wanted)
    assert problems(found) == {"job"}
    assert "Python did not start; the last line of its output:" in found["job"].message
    assert printed in found["job"].message


def test_an_interface_that_is_not_there_is_a_problem(slurm, shared):
    found = doctor(shared, interface="ib7")
    assert problems(found) == {"interface"}
    assert "interface='ib7' is not one of this machine's interfaces" in found["interface"].message
    assert "lo (127.0.0.1)" in found["interface"].message


def test_an_address_that_jobs_do_not_reach_is_a_problem_and_another_one_is_shown(slurm, shared):
    addresses = [("ib0", "240.0.0.1"), ("lo", "127.0.0.1")]
    findings = run_probe(JobRequest(gpus_per_job=0), shared, addresses, None, 60, lambda _: None)
    found = {finding.check: finding for finding in findings}
    assert found["worker to here"].verdict is Verdict.PROBLEM
    assert "cannot connect to 240.0.0.1 (ib0)" in found["worker to here"].message
    assert found["worker to here"].hint == "choose --interface lo"
    assert found["here to worker"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("wanted", "check", "said", "todo"),
    [
        ({"account": "others"}, "account", "Invalid account", "yours are guests, lab"),
        (
            {"job_extra_directives": ["--qos=short"], "walltime": "1h"},
            "walltime",
            "01:00:00 is more than the 00:10:00 that short allows",
            "set --walltime 00:10:00 or less",
        ),
        (
            {"job_extra_directives": ["-q long"]},
            "qos",
            "Invalid qos",
            "you may use normal, short",
        ),
    ],
)
def test_accounts_and_their_limits_are_known(
    slurm_with_accounts, shared, wanted, check, said, todo
):
    found = doctor(shared, fast=True, **wanted)
    assert problems(found) == {check}
    assert said in found[check].message
    assert todo in found[check].hint


@pytest.mark.parametrize(
    ("rule", "usual", "check", "said"),
    [
        ("AllowAccounts=lab", "AllowAccounts=ALL", "account", "does not allow the account guests"),
        ("DenyAccounts=guests", "DenyAccounts=", "account", "does not allow the account guests"),
        ("AllowQos=short", "AllowQos=ALL", "qos", "does not allow the qos normal"),
    ],
)
def test_a_partition_that_is_not_open_to_a_job_is_a_problem(
    slurm_with_accounts, shared, rule, usual, check, said
):
    slurm_with_accounts.command("scontrol", "update", "PartitionName=debug", rule)
    try:
        found = doctor(shared, account="guests", queue="debug", fast=True)
    finally:
        slurm_with_accounts.command("scontrol", "update", "PartitionName=debug", usual)
    assert problems(found) == {check}
    assert found[check].message == f"partition debug {said}"


def test_where_accounts_are_kept_a_good_one_is_well(slurm_with_accounts, shared):
    found = doctor(shared, account="guests", walltime="10m", fast=True)
    assert not problems(found)
    assert "accept this job (account guests, QOS normal)" in found["request"].message
    found = doctor(shared, job_extra_directives=["--qos=short"], walltime="10m", fast=True)
    assert not problems(found)
    assert found["walltime"].message == "00:10:00 of at most 00:10:00"
    assert "accept this job (account lab, QOS short)" in found["request"].message


def test_a_controller_that_does_not_answer_is_a_problem(slurm, shared, tmp_path, monkeypatch):
    conf = re.sub(r"(?m)^(SlurmctldPort)=.*", rf"\1={free_ports(1)[0]}", slurm.conf.read_text())
    (tmp_path / "slurm.conf").write_text(f"{conf}MessageTimeout=2\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    found = doctor(shared)
    assert problems(found) == {"slurm"}
    assert "Slurm does not answer" in found["slurm"].message


def test_the_command_prints_a_line_a_finding_and_ends_with_1_if_there_is_a_problem(slurm, shared):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "daskhpo.cli", "doctor", "--interface", "lo", *arguments],
            cwd=shared,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )

    good = run("--partition", "debug", "--walltime", "5m")
    assert good.returncode == 0, good.stdout + good.stderr
    lines = good.stdout.splitlines()
    assert "  ok        partition         debug is up" in lines
    assert lines[0].startswith("here, on ")
    assert "in a job" in lines
    assert lines[-1].endswith("1 warning, 0 problems")
    assert "daskhpo: job " in good.stderr

    bad = run("--partition", "debug", "--walltime", "6m", "--fast", "--json")
    assert bad.returncode == 1
    findings = [json.loads(line) for line in bad.stdout.splitlines()]
    (problem,) = [finding for finding in findings if finding["verdict"] == "problem"]
    assert problem["check"] == "walltime"
    assert problem["place"] == "here"
    assert "00:05:00" in problem["todo"]
