"""Jobs in the queue, as Slurm tells of them."""

from __future__ import annotations

import pytest

from daskhpo.cluster.doctor.finding import Verdict
from daskhpo.cluster.doctor.queue import GONE, JobState, check_wait, parse_job
from daskhpo.cluster.reasons import Outlook, explain

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


def test_a_job_that_waits_has_a_reason_and_no_nodes():
    job = parse_job(WAITING, "812")
    assert (job.state, job.waits, job.is_over) == ("PENDING", True, False)
    assert (job.reason, job.nodes) == ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", "")


def test_a_job_that_runs_has_started_on_a_node():
    job = parse_job(RUNNING, "813")
    assert (job.waits, job.is_over, job.nodes) == (False, False, "gpu-q-48")
    assert job.exit_code == "0:0"


@pytest.mark.parametrize(
    ("state", "is_over"),
    [("COMPLETING", False), ("COMPLETED", True), ("TIMEOUT", True), ("OUT_OF_MEMORY", True)],
)
def test_a_state_says_whether_a_job_is_over(state, is_over):
    assert parse_job(RUNNING.replace("RUNNING", state), "813").is_over is is_over


def test_a_job_that_slurm_has_forgotten_is_over():
    assert parse_job("", "813") == GONE
    assert GONE.is_over


@pytest.mark.parametrize(
    ("text", "outlook"),
    [  # from Slurm's page on reasons
        ("Priority", Outlook.USUAL),
        ("Resources", Outlook.USUAL),
        ("None", Outlook.USUAL),
        ("", Outlook.USUAL),
        ("BeginTime", Outlook.USUAL),
        ("Licenses", Outlook.USUAL),
        ("FedJobLock", Outlook.USUAL),
        ("PartitionTimeLimit", Outlook.HOPELESS),
        ("QOSMaxWallDurationPerJobLimit", Outlook.HOPELESS),
        ("AssocMaxWallDurationPerJobLimit", Outlook.HOPELESS),
        ("InvalidAccount", Outlook.HOPELESS),
        ("AccountNotAllowed", Outlook.HOPELESS),
        ("InvalidQOS", Outlook.HOPELESS),
        ("QOSNotAllowed", Outlook.HOPELESS),
        (
            "Job's account not permitted to use this partition (lab allows lab not guests)",
            Outlook.HOPELESS,
        ),
        ("BadConstraints", Outlook.HOPELESS),
        ("JobHeldAdmin", Outlook.HOPELESS),
        ("PartitionDown", Outlook.UNSURE),
        ("PartitionNodeLimit", Outlook.UNSURE),
        ("AssocGrpCPUMinutesLimit", Outlook.UNSURE),
        ("AssocGrpGRESMinutes", Outlook.UNSURE),
        ("QOSGrpGRESRunMinutes", Outlook.UNSURE),
        ("QOSMaxGRESPerUser", Outlook.USUAL),
        ("MaxGRESPerAccount", Outlook.USUAL),
        ("QOSMaxJobsPerUserLimit", Outlook.USUAL),
        ("AssocMaxJobsLimit", Outlook.USUAL),
        ("QOSGrpGRES", Outlook.USUAL),
        ("QOSMaxGRESPerJob", Outlook.UNSURE),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", Outlook.UNSURE),
        ("ReqNodeNotAvail, Reserved for maintenance", Outlook.UNSURE),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority "
            "partitions",
            Outlook.UNSURE,
        ),
        ("SomethingNew", Outlook.UNSURE),
    ],
)
def test_a_reason_says_whether_to_wait(text, outlook):
    meaning, hint, found = explain(text)
    assert found is outlook, meaning
    assert meaning
    assert hint


def test_a_job_that_did_not_start_shows_its_reason():
    finding = check_wait("812", parse_job(WAITING, "812"), 600)
    assert finding.verdict is Verdict.PROBLEM
    assert "job 812 did not start within 600 s and was cancelled" in finding.message
    assert "ReqNodeNotAvail, UnavailableNodes:n[1-3]" in finding.message
    busy = check_wait("812", JobState("PENDING", "Priority"), 600)
    assert (busy.verdict, busy.hint) == (Verdict.WARNING, "wait longer with --wait")
