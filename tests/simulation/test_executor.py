"""The simulated executor: known curves give known times."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from daskhpo.core.commands import Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import AttemptLost, Dropped, Erred, Held, Saved, SlotsChanged, Trained
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointRef, ReuseProbability
from daskhpo.virtual.executor import IDEAL_CLUSTER, ClusterModel, SimulatedExecutor


class Line:
    """Each unit takes ``step`` seconds; the metric is the resource, or worse."""

    def __init__(self, config):
        self.step = config.get("step", 10.0)
        self.breaks_at = config.get("breaks_at")

    def metric(self, resource):
        return math.nan if resource == self.breaks_at else float(resource)

    def seconds(self, resource):
        return self.step * resource


def an_executor(n_slots=2, resizes=(), cluster=IDEAL_CLUSTER):
    executor = SimulatedExecutor(Line, Objective("loss"), n_slots, resizes, cluster)
    assert executor.poll(None) == [SlotsChanged(n_slots, 0.0)]
    return executor


def train(trial, until, resource=0, attempt=1, launch=True, **config):
    return Train(trial, attempt, config, resource, until, None, launch)


def polled(executor, deadline=None):
    (event,) = executor.poll(deadline)
    return event


def times(event):
    return [(step.resource, step.seconds) for step in event.steps]


def test_a_segment_takes_the_time_that_its_curve_says():
    executor = an_executor()
    executor.perform([train(0, until=3)])
    event = polled(executor)
    assert times(event) == [(1, 10.0), (2, 20.0), (3, 30.0)]
    assert [step.metrics for step in event.steps] == [{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}]
    assert (event.seconds, executor.now()) == (30.0, 30.0)


def test_a_trial_that_goes_on_loses_no_time():
    executor = an_executor()
    executor.perform([train(0, until=1)])
    polled(executor)
    executor.perform([train(0, until=3, resource=1, launch=False)])
    assert times(polled(executor)) == [(2, 20.0), (3, 30.0)]


def test_a_resumed_trial_goes_on_from_its_resource():
    executor = an_executor()
    executor.perform([train(0, until=1, step=100.0), train(1, until=1)])
    polled(executor)
    polled(executor)
    executor.perform([Release(1, 1), train(1, until=3, resource=1, attempt=2)])
    assert times(polled(executor)) == [(2, 110.0), (3, 120.0)]


def test_events_come_in_order_of_time_and_of_equal_times_the_first_begun():
    executor = an_executor(3)
    executor.perform([train(0, until=2), train(1, until=2), train(2, until=1)])
    assert [polled(executor).trial for _ in range(3)] == [2, 0, 1]


def stepped(executor, chance):
    """A trial's state is taken after its first unit; the command that did it."""
    executor.perform([train(0, until=1)])
    polled(executor)
    save = Save(0, 1, CheckpointRef(4, 0, 1), chance)
    executor.perform([save])
    assert polled(executor) == Held(0, 1, save.ref, 10.0)
    return save


SAVED = Saved(0, 1, CheckpointRef(4, 0, 1, "simulated"), 10.0)


def test_a_state_that_is_needed_for_sure_is_saved_in_no_time():
    executor = an_executor()
    stepped(executor, ReuseProbability.CERTAIN)
    assert polled(executor) == SAVED


@pytest.mark.parametrize("chance", [ReuseProbability.LIKELY, ReuseProbability.UNLIKELY])
def test_another_state_is_held_until_it_shall_be_written(chance):
    executor = an_executor()
    save = stepped(executor, chance)
    with pytest.raises(StudyFailed):
        executor.poll(None)
    executor.perform([Write(save.ref)])
    assert polled(executor) == SAVED


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("rows", [(), (4,)])
def test_at_the_end_states_are_let_go_of_once_and_after_those_that_shall_be_written(rows, write):
    executor = an_executor()
    save = stepped(executor, ReuseProbability.LIKELY)
    executor.perform([Flush(rows, write)])
    if rows:
        assert polled(executor) == SAVED
    assert polled(executor) == Dropped(0, 1, 4, "the study is over", 10.0)
    executor.perform([Flush(rows, write), Write(save.ref)])
    with pytest.raises(StudyFailed):
        executor.poll(None)


def test_a_state_that_is_deleted_can_neither_be_written_nor_let_go_of():
    executor = an_executor()
    save = stepped(executor, ReuseProbability.LIKELY)
    executor.perform([Delete(save.ref), Write(save.ref), Flush((4,), write=True)])
    with pytest.raises(StudyFailed):
        executor.poll(None)


def test_a_deadline_is_kept_to_the_second():
    executor = an_executor()
    executor.perform([train(0, until=3)])
    assert executor.poll(25.0) == []
    assert executor.now() == 25.0
    assert polled(executor).seconds == 30.0


def test_an_interrupted_trial_hands_over_at_the_end_of_its_unit():
    executor = an_executor()
    executor.perform([train(0, until=9)])
    executor.poll(25.0)
    executor.perform([Interrupt(0, 1)])
    event = polled(executor)
    assert event.preempted
    assert times(event)[-1] == (3, 30.0)
    executor.perform([Release(0, 1)])
    with pytest.raises(StudyFailed):
        executor.poll(None)


def test_an_interrupted_trial_in_its_last_unit_reports_as_ever():
    executor = an_executor()
    executor.perform([train(0, until=3)])
    executor.poll(25.0)
    executor.perform([Interrupt(0, 1)])
    event = polled(executor)
    assert (event.preempted, times(event)[-1]) == (False, (3, 30.0))


def test_a_metric_that_is_not_finite_fails_its_trial_after_what_was_good():
    executor = an_executor()
    executor.perform([train(0, until=4, breaks_at=3)])
    good, failed = polled(executor), polled(executor)
    assert [step.resource for step in good.steps] == [1, 2]
    assert isinstance(failed, Erred)
    assert (failed.retry, failed.error) == (False, "loss=nan at resource 3 is not finite")


def test_a_shrinking_cluster_loses_the_trials_that_began_last():
    executor = an_executor(3, resizes=[(15.0, 1)])
    executor.perform([train(trial, until=3) for trial in range(3)])
    events = [polled(executor) for _ in range(5)]
    assert events[0] == SlotsChanged(1, 15.0)
    assert [times(event) for event in events[1::2]] == [[(1, 10.0)], [(1, 10.0)]]
    assert [(e.trial, e.blame) for e in events[2::2] if isinstance(e, AttemptLost)] == [
        (2, False),
        (1, False),
    ]
    assert polled(executor).trial == 0


def test_a_growing_cluster_loses_nothing():
    executor = an_executor(1, resizes=[(5.0, 4)])
    executor.perform([train(0, until=1)])
    assert polled(executor) == SlotsChanged(4, 5.0)
    assert polled(executor).seconds == 10.0


def test_a_segment_that_ends_as_the_cluster_shrinks_is_reported_first():
    executor = an_executor(1, resizes=[(10.0, 0)])
    executor.perform([train(0, until=1)])
    assert isinstance(polled(executor), Trained)
    executor.perform([train(0, until=3, resource=1, launch=False)])
    assert polled(executor) == SlotsChanged(0, 10.0)
    assert times(polled(executor)) == []
    assert isinstance(polled(executor), AttemptLost)


def test_what_is_said_to_a_trial_without_a_slot_is_void():
    executor = an_executor()
    commands = [train(0, until=3, resource=1, launch=False), Interrupt(0, 1), Release(0, 1)]
    executor.perform(commands)
    with pytest.raises(StudyFailed, match="no slots"):
        executor.poll(None)


def test_without_slots_and_without_hope_the_study_fails():
    with pytest.raises(StudyFailed, match="the simulation has no slots, and none will come"):
        an_executor(0).poll(None)


# -- what a cluster does to a study ----------------------------------------------------------------


def a_site(n_slots=2, **cluster):
    return an_executor(n_slots, cluster=ClusterModel(**cluster))


def events(executor, n):
    return [polled(executor) for _ in range(n)]


def test_a_metric_that_is_not_finite_gives_the_slot_back_at_once():
    executor = an_executor()
    executor.perform([train(0, until=9, breaks_at=1)])
    failed = polled(executor)
    assert isinstance(failed, Erred)
    assert failed.seconds == 10.0


def test_a_launch_takes_its_time_each_time():
    executor = a_site(launch_seconds=5.0)
    executor.perform([train(0, until=1)])
    assert times(polled(executor)) == [(1, 15.0)]
    executor.perform([train(0, until=2, resource=1, launch=False)])
    assert times(polled(executor)) == [(2, 25.0)]
    executor.perform([Release(0, 1), train(0, until=3, resource=2, attempt=2)])
    assert times(polled(executor)) == [(3, 40.0)]


def test_a_trial_hands_over_after_the_last_unit_that_fits_in_its_job():
    executor = a_site(1, walltime=25.0, requeue_seconds=100.0)
    executor.perform([train(0, until=9)])
    gone, report = events(executor, 2)
    assert gone == SlotsChanged(0, 20.0)
    assert (report.preempted, times(report)) == (True, [(1, 10.0), (2, 20.0)])
    executor.perform([Release(0, 1)])
    assert polled(executor) == SlotsChanged(1, 125.0)
    executor.perform([train(0, until=9, resource=2, attempt=2)])
    assert events(executor, 2)[1].steps[-1].seconds == 145.0, "the next job has its end, too"


def test_no_unit_is_begun_that_does_not_fit():
    executor = a_site(1, walltime=25.0)
    executor.perform([train(0, until=2)])
    assert not polled(executor).preempted
    executor.perform([train(0, until=9, resource=2, launch=False)])
    gone, report = events(executor, 2)
    assert gone == SlotsChanged(0, 20.0)
    assert (report.preempted, report.steps) == (True, ())


def test_a_slot_without_work_goes_with_its_job():
    executor = a_site(2, walltime=25.0)
    executor.perform([train(0, until=1)])
    polled(executor)
    executor.perform([Release(0, 1)])
    assert events(executor, 2) == [SlotsChanged(0, 25.0), SlotsChanged(2, 25.0)]


def test_a_unit_that_is_longer_than_any_job_is_refused():
    executor = a_site(1, walltime=25.0)
    with pytest.raises(StudyFailed, match=r"trial 0 takes 30 s .* walltime of 25 s"):
        executor.perform([train(0, until=9, step=30.0)])


@pytest.mark.parametrize(
    ("chance", "durability", "written"),
    [
        (ReuseProbability.LIKELY, None, False),
        (ReuseProbability.LIKELY, 100.0, True),  # 10 s at stake against a write of 0.025 s
        (ReuseProbability.LIKELY, 1000.0, False),
        (ReuseProbability.UNLIKELY, 100.0, False),
    ],
)
def test_a_state_is_written_when_that_is_worth_it_as_workers_do(chance, durability, written):
    executor = a_site(state_bytes=1_000_000, durability=durability)
    save = stepped(executor, chance)
    if written:
        assert polled(executor) == Saved(
            0, 1, replace(save.ref, array="simulated", n_bytes=10**6), 10.0
        )
    with pytest.raises(StudyFailed):
        executor.poll(None)


@pytest.mark.parametrize("chance", [ReuseProbability.LIKELY, ReuseProbability.UNLIKELY])
def test_memory_goes_with_the_job_after_what_is_worth_a_file_was_written(chance):
    executor = a_site(1, walltime=25.0, durability=1000.0)
    save = stepped(executor, chance)
    executor.perform([Release(0, 1)])
    found = events(executor, 3 + (chance is ReuseProbability.LIKELY))
    dropped = Dropped(0, 1, save.ref.id, "its job ended", 25.0)
    saved = [Saved(0, 1, replace(save.ref, array="simulated"), 25.0)] * (
        chance is ReuseProbability.LIKELY
    )
    assert found == [*saved, dropped, SlotsChanged(0, 25.0), SlotsChanged(1, 25.0)]


def test_trials_without_a_state_say_so():
    executor = a_site(state_bytes=None)
    executor.perform([train(0, until=1)])
    polled(executor)
    executor.perform([Save(0, 1, CheckpointRef(4, 0, 1), ReuseProbability.CERTAIN)])
    assert polled(executor) == Held(0, 1, None, 10.0)


def test_resizes_and_a_walltime_exclude_one_another():
    with pytest.raises(ValueError, match="resizes or a walltime, not both"):
        an_executor(resizes=[(5.0, 1)], cluster=ClusterModel(walltime=9.0))


@pytest.mark.parametrize("given", [{"walltime": 0}, {"requeue_seconds": -1.0}, {"state_bytes": -1}])
def test_a_site_that_cannot_be_is_refused(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))}="):
        ClusterModel(**given)
