"""What Slurm's commands print, with what sites print around it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daskhpo.cluster.parsers import (
    SlurmJob,
    parse_addresses,
    parse_commands,
    parse_limits,
    parse_sbatch,
    parse_scontrol_jobs,
    parse_squeue,
)

BANNER = "   Welcome to the Cluster3 Supercomputer\n--> Checking allocation (AB-17)...OK\n12 | 3\n"


@pytest.mark.parametrize(
    ("printed", "job"),
    [
        ("Submitted batch job 4711\n", "4711"),
        ("Submitted batch job 4711 on cluster c-2\n", "4711;c-2"),
        (BANNER + "Submitted batch job 4711\nThank you. 12 jobs are ahead of yours.\n", "4711"),
        ("17\nSubmitted batch job 4711\n2\n", "4711"),
        ("--> Submitted batch job 4711\n", "4711"),
        ("sbatch: lua: account set\r\nSubmitted batch job 4711\r\n", "4711"),
        ("4711\n", "4711"),
        ("4711;c2\n", "4711;c2"),
        (BANNER + "4711\n", "4711"),
        ("", None),
        (BANNER, None),
        ("17\n4711\n", None),
        ("Submitted batch job 17\nSubmitted batch job 18\n", None),
        ("Your job 4711 is Submitted batch job 4 times\n", None),
        ("Gr\ufffd\ufffde vom Rechenzentrum\nSubmitted batch job 4711", "4711"),
    ],
)
def test_the_number_is_that_of_the_sentence_and_of_nothing_else(
    printed: str, job: str | None
) -> None:
    assert parse_sbatch(printed) == job


def test_lines_of_squeue_count_by_their_form() -> None:
    printed = (
        "CLUSTER: tests\n\n"
        + BANNER
        + "4711|4711|4711|RUNNING|1-00:09:00|n[1-2]|None\n"
        + "4713|4712|4712_1|PENDING|10:00||(Nodes required | for job are DOWN)\n"
        + "slurm_load_jobs: warning|of|some|KIND\n"
        + "4714|4714|4714|COMPLETED|INVALID|n3|None\n"
    )
    runs, waits, over = parse_squeue(printed)
    assert (runs.number, runs.seconds_left, runs.is_pending) == ("4711", 86940.0, False)
    assert (waits.submission, waits.name, waits.is_pending) == ("4712", "4712_1", True)
    assert waits.reason == "(Nodes required | for job are DOWN)"
    assert (over.is_over, over.is_pending, over.seconds_left) == (True, False, None)


def test_a_job_that_was_cancelled_before_it_started_is_not_pending() -> None:
    (job,) = parse_squeue("9|9|9|CANCELLED|10:00||None\n")
    assert job.is_over
    assert not job.is_pending


def test_scontrol_shows_jobs_and_the_comments_of_users_are_none() -> None:
    printed = (
        "Last login: JobState=NONE\n"
        "JobId=12 JobName=a JobState=RUNNING Reason=None RunTime=00:01:00 TimeLimit=00:10:00 "
        "NodeList=n1 Comment=JobState=COMPLETED\n"
        "JobId=14 ArrayJobId=13 ArrayTaskId=2 JobName=a JobState=PENDING TimeLimit=UNLIMITED "
        "NodeList=(null) Reason=Priority\n"
        "JobId=13 ArrayJobId=13 ArrayTaskId=3-9%1 JobState=PENDING NodeList= Reason=Priority\n"
    )
    runs, task, rest = parse_scontrol_jobs(printed)
    assert (runs.state, runs.nodes, runs.seconds_left) == ("RUNNING", "n1", 540.0)
    assert (task.submission, task.name, task.is_pending) == ("13", "13_2", True)
    assert (rest.number, rest.submission) == ("13", "13")
    assert parse_scontrol_jobs("slurm is not here") == []


def test_limits_and_addresses_of_sinfo() -> None:
    printed = "CLUSTER: tests\ngpu*|infinite\nshort|1-00:00:00\n\nA notice | of the site\n"
    assert parse_limits(printed) == {"gpu*": None, "short": 86400.0}
    assert parse_addresses("CLUSTER: tests\nn1\n10.0.0.2\nn1\nread the news!\n") == [
        "n1",
        "10.0.0.2",
    ]


def test_the_command_of_a_job_may_contain_anything() -> None:
    printed = "CLUSTER: a|b\n7|/tmp/x y|z.sh\n8|\n"
    assert list(parse_commands(printed)) == [("7", "/tmp/x y|z.sh"), ("8", "")]


def test_a_pending_job_is_described_without_a_reason_that_slurm_does_not_have() -> None:
    pending = SlurmJob("7", "7", "7", "PENDING", None, "", "None")
    assert pending.description == "job 7 PENDING"
    assert replace(pending, reason="Priority").description == "job 7 PENDING (Priority)"
    assert replace(pending, state="RUNNING", nodes="n1").description == "job 7 RUNNING on n1"
