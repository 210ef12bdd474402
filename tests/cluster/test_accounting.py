"""Slurm's records are read as the documentation of ``sacct`` shows them, and sites print them."""

from __future__ import annotations

import pytest

from daskhpo.cluster.accounting import JobCost, parse_sacct

# JobIDRaw|State|ExitCode|Submit|Start|End|ElapsedRaw|AllocTRES|Account|Partition|NodeList
LINE = "{0}|{1}|{2}|2026-03-01T10:00:00|{3}|{4}|{5}|{6}|{7}|gpu|{8}\n"


def one(state, *, start="2026-03-01T10:05:00", seconds="3600", tres="", nodes="n1", code="0:0"):
    line = LINE.format(77, state, code, start, "Unknown", seconds, tres, "m1234_g", nodes)
    (cost,) = parse_sacct(line)
    return cost


def test_a_job_on_gpus_has_gpu_hours_and_the_time_it_was_queued():
    cost = one("TIMEOUT", tres="billing=64,cpu=64,gres/gpu=4,mem=240G,node=1", code="0:0")
    assert cost == JobCost("77", "TIMEOUT", "0:0", 3600.0, 300.0, 4, 64, "m1234_g", "gpu", "n1")
    assert cost.gpu_hours == 4.0


@pytest.mark.parametrize(
    ("tres", "n_gpus"),
    [
        ("cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=64G,node=1", 2),  # typed, and the sum of the types
        ("cpu=8,gres/gpu:a100=2,gres/gpu:v100=1,mem=64G", 3),  # no sum is recorded
        ("billing=8,cpu=8,energy=1000,mem=64G,node=1", 0),
        ("", 0),
    ],
)
def test_gpus_are_counted_once_however_they_are_recorded(tres, n_gpus):
    assert one("COMPLETED", tres=tres).n_gpus == n_gpus


@pytest.mark.parametrize(
    ("told", "state"),
    [("CANCELLED by 1000", "CANCELLED"), ("OUT_OF_MEMORY", "OUT_OF_MEMORY"), ("NODE_FAIL",) * 2],
)
def test_a_state_is_one_word(told, state):
    assert one(told).state == state


@pytest.mark.parametrize("start", ["Unknown", "None", ""])
def test_a_job_that_never_started_has_no_queueing_time_and_no_node(start):
    cost = one("CANCELLED by 0", start=start, seconds="0", nodes="None assigned")
    assert (cost.waited, cost.seconds, cost.nodes) == (None, 0.0, "")


def test_of_many_jobs_each_is_a_line_and_empty_lines_are_none():
    text = "".join(LINE.format(n, "COMPLETED", "0:0", "x", "x", n, "", "", "n1") for n in range(3))
    assert [cost.seconds for cost in parse_sacct(f"{text}\n")] == [0.0, 1.0, 2.0]


def test_lines_of_another_form_are_skipped_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    good = LINE.format(4, "COMPLETED", "0:0", "x", "x", 7, "", "", "n1")
    broken = LINE.format("total", "COMPLETED", "0:0", "x", "x", "seven", "", "", "n1")
    text = f"Welcome to Cluster3 | news: none\n1|COMPLETED\n{broken}{good}"
    assert [(cost.job, cost.seconds) for cost in parse_sacct(text)] == [("4", 7.0)]
    assert "sacct printed 3 lines of another form" in caplog.text


def test_a_number_that_is_none_counts_as_zero() -> None:
    text = LINE.format(4, "RUNNING", "0:0", "x", "x", "", "cpu=many,gres/gpu=?", "", "n1")
    (cost,) = parse_sacct(text)
    assert (cost.seconds, cost.n_gpus, cost.n_cpus) == (0.0, 0, 0)
