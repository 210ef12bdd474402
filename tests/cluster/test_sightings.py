"""Not seen is not gone: what is concluded from Slurm's answers about one job."""

from __future__ import annotations

from dataclasses import replace

from daskhpo.cluster.parsers import SlurmJob
from daskhpo.cluster.sightings import (
    COMPLETING_SECONDS,
    MAX_ABSENCES,
    UNSEEN_SECONDS,
    JobEnded,
    JobLost,
    JobPending,
    JobRunning,
    JobSighting,
    JobUnseen,
    Sightings,
    judge,
)

RUNNING = SlurmJob("7", "7", "7", "RUNNING", 540.0, "n1", "None")
PENDING = SlurmJob("7", "7", "7", "PENDING", 600.0, "", "Priority")
COMPLETING = replace(RUNNING, state="COMPLETING")
FAILED = replace(RUNNING, state="FAILED")
NEW = Sightings(submitted=0.0)


def verdicts(*answers: SlurmJob | None, each: float = 5.0, **more: bool) -> list[JobSighting]:
    """What is concluded from one answer after the other, if scontrol is silent."""
    known, found = NEW, []
    for number, listed in enumerate(answers, 1):
        verdict, known = judge(known, listed, None, number * each, **more)
        found.append(verdict)
    return found


def test_what_is_shown_is_believed() -> None:
    assert verdicts(PENDING, RUNNING, FAILED) == [
        JobPending("Priority"),
        JobRunning(540.0),
        JobEnded("FAILED"),
    ]


def test_a_job_that_was_never_seen_is_waited_for() -> None:
    answers = verdicts(*[None] * 20, each=UNSEEN_SECONDS / 10)
    assert answers[:9] == [JobUnseen()] * 9
    assert answers[9:] == [JobLost()] * 11


def test_one_late_answer_does_not_give_up_a_job_that_was_never_seen() -> None:
    assert verdicts(None, each=2 * UNSEEN_SECONDS) == [JobUnseen()]


def test_a_job_that_was_seen_is_given_up_after_some_answers_without_it() -> None:
    assert verdicts(RUNNING, *[None] * MAX_ABSENCES)[1:] == [
        *[JobUnseen()] * (MAX_ABSENCES - 1),
        JobLost(),
    ]


def test_answers_without_a_job_count_only_in_a_row() -> None:
    answers = [RUNNING, None, None] * 5
    assert JobLost() not in verdicts(*answers)


def test_the_second_source_decides() -> None:
    seen = Sightings(submitted=0.0, seen=1.0)
    assert judge(seen, None, [RUNNING], 9.0)[0] == JobRunning(540.0)
    assert judge(seen, None, [PENDING], 9.0)[0] == JobPending("Priority")
    assert judge(seen, None, [FAILED], 9.0)[0] == JobEnded("FAILED")
    assert judge(seen, None, [], 9.0)[0] == JobLost()
    assert judge(seen, None, None, 9.0)[0] == JobUnseen()


def test_a_job_that_no_source_knows_yet_may_be_on_its_way() -> None:
    assert judge(NEW, None, [], 9.0)[0] == JobUnseen()


def test_a_job_with_workers_is_there_whatever_slurm_says() -> None:
    assert verdicts(None, None, None, FAILED, connected=True) == [JobRunning(None)] * 4


def test_a_requeued_job_is_still_there() -> None:
    answers = verdicts(RUNNING, COMPLETING, COMPLETING, PENDING, RUNNING, requeues=True, each=9999)
    assert answers == [JobRunning(540.0)] * 3 + [JobPending("Priority"), JobRunning(540.0)]


def test_a_job_that_never_finishes_to_complete_is_given_up() -> None:
    answers = verdicts(RUNNING, *[COMPLETING] * 3, each=COMPLETING_SECONDS / 2)
    assert answers == [JobRunning(540.0)] * 3 + [JobLost()]


def test_states_that_newer_slurms_bring_count_as_there() -> None:
    new = replace(RUNNING, state="HIBERNATING")
    assert verdicts(new) == [JobRunning(540.0)]
