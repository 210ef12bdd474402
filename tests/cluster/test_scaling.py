"""How many jobs there should be: a table of states."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from daskhpo.cluster.scaling import (
    ClusterState,
    JobPhase,
    ScalingLimits,
    ScalingPlan,
    WorkerJob,
    plan_scaling,
)

HOUR = 3600.0
RULES = ScalingLimits(
    jobs=4,
    slots_per_job=2,
    gpus_per_job=2,
    walltime=HOUR,
    max_gpu_seconds=None,
    idle_timeout=300.0,
)


def waiting(name: str) -> WorkerJob:
    return WorkerJob(name, JobPhase.PENDING, HOUR, free=True)


def running(name: str, **options: float | bool) -> WorkerJob:
    return WorkerJob(name, JobPhase.RUNNING, HOUR, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "steps"),
    [
        pytest.param(ClusterState(), ScalingPlan(submit=(HOUR,) * 4), id="nothing yet: all"),
        pytest.param(
            ClusterState(wanted=3, lately_wanted=3),
            ScalingPlan(submit=(HOUR,) * 2),
            id="3 slots: 2",
        ),
        pytest.param(
            ClusterState((running("a"), running("b"), waiting("c"))),
            ScalingPlan(submit=(HOUR,)),
            id="one has ended: another one",
        ),
        pytest.param(
            ClusterState((running("a"), waiting("b")), wanted=2, lately_wanted=4),
            ScalingPlan(),
            id="fewer are wanted only just now",
        ),
        pytest.param(
            ClusterState((running("a"), waiting("b"), waiting("c")), wanted=4, lately_wanted=4),
            ScalingPlan(cancel=("c",)),
            id="too many: the newest that waits",
        ),
        pytest.param(
            ClusterState(
                (running("a", idle=400), running("b", idle=900), running("c")),
                wanted=2,
                lately_wanted=4,
            ),
            ScalingPlan(retire=("b",)),
            id="too many: the one that has been idle for longest",
        ),
        pytest.param(
            ClusterState((running("a", idle=200), running("b")), wanted=2, lately_wanted=2),
            ScalingPlan(),
            id="idle, but not for long enough",
        ),
        pytest.param(
            ClusterState(
                (running("a", idle=900, retiring=True), running("b")), wanted=2, lately_wanted=2
            ),
            ScalingPlan(),
            id="told to leave, and has not left",
        ),
        pytest.param(
            ClusterState(
                (running("a", idle=900, retiring=True, free=True), running("b")),
                wanted=2,
                lately_wanted=2,
            ),
            ScalingPlan(cancel=("a",)),
            id="told to leave, and has left",
        ),
        pytest.param(
            ClusterState((running("a", retiring=True), running("b"), running("c"), running("d"))),
            ScalingPlan(),
            id="one that leaves still counts",
        ),
        pytest.param(ClusterState(may_submit=0), ScalingPlan(), id="one was refused a moment ago"),
        pytest.param(
            ClusterState(may_submit=1), ScalingPlan(submit=(HOUR,)), id="one is tried again"
        ),
        pytest.param(
            ClusterState(
                (running("a", idle=999), running("b", idle=999)), wanted=0, lately_wanted=0
            ),
            ScalingPlan(retire=("a", "b")),
            id="no study any more",
        ),
    ],
)
def test_what_is_done(seen: ClusterState, steps: ScalingPlan) -> None:
    assert plan_scaling(RULES, seen) == steps


@pytest.mark.parametrize(
    ("gpu_hours", "spent", "jobs", "submit", "exhausted"),
    [
        (100, 0, 0, (HOUR,) * 4, False),
        (5, 0, 0, (HOUR, HOUR, HOUR / 2), False),  # two GPUs each
        (4.9, 0, 0, (HOUR, HOUR, 1620.0), False),
        (4.1, 0, 0, (HOUR, HOUR), False),  # three minutes are not worth a job
        (5, 2, 1, (1800.0,), False),  # what runs may use its whole walltime
        (5, 5, 0, (), True),
        (5, 3, 1, (), True),
        (0.1, 0, 0, (), True),
    ],
)
def test_a_budget_of_gpu_hours(
    gpu_hours: float, spent: float, jobs: int, submit: tuple[float, ...], exhausted: bool
) -> None:
    rules = replace(RULES, max_gpu_seconds=gpu_hours * HOUR)
    seen = ClusterState(tuple(running(str(n)) for n in range(jobs)), spent=spent * HOUR)
    steps = plan_scaling(rules, seen)
    assert steps.submit == pytest.approx(submit)
    assert steps.exhausted == exhausted


def test_a_budget_is_kept_whatever_happens() -> None:
    """Jobs end early or late; what was used never exceeds what was allowed."""
    import random

    for seed in range(200):
        chance = random.Random(seed)
        budget = chance.uniform(1, 30) * HOUR
        rules = replace(RULES, max_gpu_seconds=budget)
        jobs: list[WorkerJob] = []
        spent, n = 0.0, 0
        for _ in range(60):
            steps = plan_scaling(rules, ClusterState(tuple(jobs), spent=spent))
            for walltime in steps.submit:
                jobs.append(WorkerJob(str(n), JobPhase.RUNNING, walltime))
                n += 1
            assert len(jobs) <= rules.jobs
            if jobs:
                ended = jobs.pop(chance.randrange(len(jobs)))
                spent += ended.walltime * chance.choice([0.3, 1.0]) * rules.gpus_per_job
            running_at_most = sum(job.walltime for job in jobs) * rules.gpus_per_job
            assert spent + running_at_most <= budget + 1e-6


def test_slots_without_end_need_all_jobs() -> None:
    assert len(plan_scaling(RULES, ClusterState(wanted=math.inf)).submit) == 4
