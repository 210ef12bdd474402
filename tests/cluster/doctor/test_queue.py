"""Jobs in the queue, as Slurm tells of them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from daskhpo.cluster.doctor.finding import Verdict
from daskhpo.cluster.doctor.queue import (
    GONE,
    JobState,
    check_forecast,
    check_refusal,
    check_start,
    check_wait,
    parse_job,
    reason_of,
)

# `scontrol --oneliner show job`, 22.05 and 24.05 (which has more fields)
WAITING = (
    "JobId=812 JobName=daskhpo-doctor UserId=me(1000) GroupId=me(1000) MCS_label=N/A Priority=1 "
    "Nice=0 QOS=normal JobState=PENDING Reason=ReqNodeNotAvail,_UnavailableNodes:n[1-3] "
    "Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:00 "
    "TimeLimit=00:05:00 TimeMin=N/A SubmitTime=2026-03-01T10:00:00 "
    "AccrueTime=2026-03-01T10:00:00 StartTime=2026-03-02T10:00:00 EndTime=2026-03-02T10:05:00 "
    "Deadline=N/A NodeList=(null) NumNodes=1 NumCPUs=1 TRES=cpu=1,mem=100M,node=1,gres/gpu=1\n"
)
RUNNING = (
    "JobId=813 JobName=daskhpo-doctor JobState=RUNNING Reason=None Dependency=(null) ExitCode=0:0 "
    "SubmitTime=2026-03-01T10:00:00 StartTime=2026-03-01T10:00:42 EndTime=2026-03-01T10:05:42 "
    "ReqNodeList=(null) ExcNodeList=(null) NodeList=gpu-q-48 BatchHost=gpu-q-48 "
    "ReqTRES=cpu=1,mem=100M,node=1,gres/gpu=1 AllocTRES=cpu=1,gres/gpu=1 OOMKillStep=0\n"
)


def test_a_job_that_waits_has_a_reason_and_a_forecast_is_no_start():
    job = parse_job(WAITING)
    assert (job.state, job.waits, job.is_over) == ("PENDING", True, False)
    assert job.reason == "ReqNodeNotAvail, UnavailableNodes:n[1-3]"
    assert (job.started, job.nodes) == (None, "")


def test_a_job_that_runs_has_started_on_a_node():
    job = parse_job(RUNNING)
    assert (job.waits, job.is_over, job.nodes) == (False, False, "gpu-q-48")
    assert check_start("813", job).message == "job 813 started after 42 s"


@pytest.mark.parametrize(
    ("state", "is_over"),
    [("COMPLETING", False), ("COMPLETED", True), ("TIMEOUT", True), ("OUT_OF_MEMORY", True)],
)
def test_a_state_says_whether_a_job_is_over(state, is_over):
    assert parse_job(RUNNING.replace("RUNNING", state)).is_over is is_over


def test_a_job_that_slurm_has_forgotten_is_over():
    assert parse_job("") == GONE
    assert GONE.is_over


@pytest.mark.parametrize(
    ("text", "usual", "hopeless"),
    [  # from Slurm's page on reasons
        ("Priority", True, False),
        ("Resources", True, False),
        ("None", True, False),
        ("", True, False),
        ("BeginTime", True, False),
        ("Licenses", True, False),
        ("PartitionTimeLimit", False, True),
        ("QOSMaxWallDurationPerJobLimit", False, True),
        ("AssocMaxWallDurationPerJobLimit", False, True),
        ("InvalidAccount", False, True),
        ("AccountNotAllowed", False, True),
        ("InvalidQOS", False, True),
        ("QOSNotAllowed", False, True),
        ("BadConstraints", False, True),
        ("JobHeldAdmin", False, True),
        ("PartitionDown", False, False),
        ("PartitionNodeLimit", False, False),
        ("AssocGrpCPUMinutesLimit", False, False),
        ("AssocGrpGRESMinutes", False, False),
        ("QOSGrpGRESRunMinutes", False, False),
        ("QOSMaxGRESPerUser", True, False),
        ("MaxGRESPerAccount", True, False),
        ("QOSMaxJobsPerUserLimit", True, False),
        ("AssocMaxJobsLimit", True, False),
        ("QOSGrpGRES", True, False),
        ("QOSMaxGRESPerJob", False, False),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", False, False),
        ("ReqNodeNotAvail, Reserved for maintenance", False, False),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority "
            "partitions",
            False,
            False,
        ),
        ("SomethingNew", False, False),
    ],
)
def test_a_reason_says_whether_to_wait(text, usual, hopeless):
    reason = reason_of(text)
    assert (reason.is_usual, reason.is_hopeless) == (usual, hopeless), reason
    assert reason.meaning


def test_a_job_that_did_not_start_shows_its_reason():
    finding = check_wait("812", parse_job(WAITING), 600)
    assert finding.verdict is Verdict.PROBLEM
    assert "job 812 did not start within 600 s and was cancelled" in finding.message
    assert "ReqNodeNotAvail, UnavailableNodes:n[1-3]" in finding.message
    busy = check_wait("812", JobState("PENDING", "Priority"), 600)
    assert (busy.verdict, busy.hint) == (Verdict.WARNING, "wait longer with --wait")


NOW = datetime(2026, 3, 1, 10, 0).timestamp()


@pytest.mark.parametrize(
    ("wait", "verdict", "message"),
    [
        (timedelta(seconds=1), Verdict.OK, "start it at once, on n1"),
        (timedelta(minutes=20), Verdict.OK, "start it in about 20 minutes, on n1"),
        (timedelta(hours=30), Verdict.WARNING, "start it in about 30 hours"),
        (timedelta(days=700 * 365), Verdict.OK, "cannot predict its start"),
    ],
)
def test_a_forecast_is_told(wait, verdict, message):
    start = datetime.fromtimestamp(NOW) + wait
    printed = f"sbatch: Job 9 to start at {start.isoformat()} using 1 processors on nodes n1 "
    finding = check_forecast(f"{printed}in partition gpu", NOW)
    assert finding.verdict is verdict
    assert message in finding.message


def test_a_site_that_says_something_else_takes_the_job_all_the_same():
    assert check_forecast("Welcome to the cluster!", NOW).message == "Slurm would accept this job"


@pytest.mark.parametrize(
    ("printed", "message", "hint"),
    [
        (
            "sbatch: error: invalid partition specified: x\nallocation failure: Invalid partition "
            "name specified",
            "invalid partition specified: x; allocation failure: Invalid partition name",
            "--partition",
        ),
        (
            "allocation failure: Invalid account or account/partition combination specified",
            "Invalid account",
            "",
        ),
        ("allocation failure: Invalid qos specification", "Invalid qos", "remove the QOS"),
        (
            "allocation failure: Requested time limit is invalid (missing or exceeds some limit)",
            "Requested time limit",
            "--walltime",
        ),
        (
            "sbatch: error: Memory specification can not be satisfied",
            "this job: Memory specification",
            "--memory",
        ),
        (
            "allocation failure: Requested node configuration is not available",
            "node configuration",
            "%m",
        ),
        ("", "it gives no reason", ""),
    ],
)
def test_a_refusal_is_told_with_what_to_do(printed, message, hint):
    finding = check_refusal(printed)
    assert finding.verdict is Verdict.PROBLEM
    assert message in finding.message
    assert hint in finding.hint
