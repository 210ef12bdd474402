"""Choices between a new and a paused trial: recorded, replayed, and never waited for."""

from __future__ import annotations

import threading

import pytest

from daskhpo.core.domains import Real
from daskhpo.core.errors import JournalCorrupt
from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Judged,
    Launched,
    SessionStarted,
    SlotsChanged,
    Step,
    Suggested,
    Trained,
)
from daskhpo.core.objective import Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, Start, Status, Stop, Wait
from daskhpo.engine.advice import LessonsInThread, LessonsNow, SearcherAdvice
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.journal import encode_record
from daskhpo.engine.replay import replay
from daskhpo.schedulers import FIFO, GuardedASHA
from daskhpo.searchers import ForestSearch, RandomSearch
from daskhpo.testing.journal import MemoryJournal
from daskhpo.virtual.executor import SimulatedExecutor
from daskhpo.virtual.replay import simulate

SPACE = Space({"x": Real(0.0, 1.0), "y": Real(0.0, 1.0)})
SECONDS = 30.0
KEPT = CheckpointPolicy()


class Crossing:
    """A curve whose early ranks mislead; a corner of the space fails."""

    def __init__(self, config):
        self.x, self.y = config["x"], config["y"]

    def metric(self, resource):
        if self.x > 0.9 and self.y > 0.9:
            return float("nan")
        late = (self.x - 0.3) ** 2 + (self.y - 0.7) ** 2
        return late + (1 - late) / resource**2

    def seconds(self, resource):
        return resource * (1.0 + self.y)


def a_study(seed=0, mode="min", num_trials=60, n_slots=4, max_t=27, policy=KEPT):
    """A problem, and the records of a study in virtual time."""
    sign = 1.0 if mode == "min" else -1.0

    class Curve(Crossing):
        def metric(self, resource):
            return sign * super().metric(resource)

    problem = Problem(SPACE, Objective("loss", mode), GuardedASHA(max_t), ForestSearch(), seed)
    journal = MemoryJournal()
    executor = SimulatedExecutor(Curve, problem.objective, n_slots)
    simulate(problem, executor, Limits(num_trials), policy, journal)
    return problem, journal.records


def test_a_replay_asks_no_model_and_comes_to_the_same_end(monkeypatch):
    problem, records = a_study()
    rescued = [r for r in records if isinstance(r, Launched) and r.attempt > 1]
    assert rescued, "no trial was resumed"
    learnt, learn = [], ForestSearch.learn

    def counted(self, forest):
        learnt.append(forest.n_rows)
        learn(self, forest)

    monkeypatch.setattr(ForestSearch, "learn", counted)
    monkeypatch.setattr(ForestSearch, "choose", lambda self, trial, choice: pytest.fail("asked"))
    tail = MemoryJournal()
    replay(problem, records, tail)
    assert tail.records == []
    assert len(learnt) == 1  # after the last record, for what follows


FEW = CheckpointPolicy("end", max_files=8)


def test_a_model_says_which_checkpoints_go_first_and_a_replay_takes_that_from_the_records(
    monkeypatch,
):
    problem, records = a_study(policy=FEW)
    with monkeypatch.context() as patched:
        patched.delattr(ForestSearch, "chances")
        _, otherwise = a_study(policy=FEW)
    gone, others = (
        [r for r in found if isinstance(r, Deleted) and r.reason] for found in (records, otherwise)
    )
    assert gone != others
    monkeypatch.setattr(ForestSearch, "chances", lambda *_: pytest.fail("asked"))
    for made in (records, otherwise):  # by whatever rule
        tail = MemoryJournal()
        replay(problem, made, tail).ledger.validate()
        assert tail.records == []


def test_deletions_that_a_crash_cut_off_are_decided_as_before():
    problem, records = a_study(policy=FEW)
    cuts = [n for n, record in enumerate(records) if isinstance(record, Deleted) and record.reason]
    for n in cuts[::5]:
        tail = MemoryJournal()
        replay(problem, records[:n], tail)
        added = [encode_record(record) for record in tail.records]
        assert added[0] == encode_record(records[n])
        assert added == [encode_record(record) for record in records[n : n + len(added)]]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_a_crash_cut_off_is_decided_as_before(mode):
    problem, records = a_study(3, mode, num_trials=25)
    for n in range(0, len(records), 9):
        tail = MemoryJournal()
        replay(problem, records[:n], tail).ledger.validate()
        added = [encode_record(record) for record in tail.records]
        assert added == [encode_record(record) for record in records[n : n + len(added)]]


def test_the_same_study_is_found_with_either_mode():
    shown = [
        [encode_record(r) for r in a_study(0, mode)[1] if isinstance(r, Launched)]
        for mode in ("min", "max")
    ]
    assert shown[0] == shown[1]


def test_the_first_record_after_the_session_says_that_the_model_is_trusted():
    _, records = a_study(num_trials=3)
    assert isinstance(records[0], SessionStarted)
    assert records[1] == Judged(True, 0.0)
    assert sum(isinstance(record, Judged) for record in records) == 1  # only changes are told


def test_a_verdict_that_was_edited_is_noticed():
    problem, records = a_study(num_trials=30)
    records = [Judged(False, 0.0) if isinstance(r, Judged) else r for r in records]
    with pytest.raises(JournalCorrupt):
        replay(problem, records, MemoryJournal())


def test_a_chosen_trial_that_was_not_paused_is_noticed():
    problem, records = a_study()
    at, record = next(
        (n, r) for n, r in enumerate(records) if isinstance(r, Launched) and r.attempt > 1
    )
    other = Launched(10**6, record.attempt, record.resource, record.until, record.seconds)
    with pytest.raises(JournalCorrupt):
        replay(problem, [*records[:at], other], MemoryJournal())


class Pupil(Searcher):
    """Has a lesson at each report, which takes until it is told to end."""

    def __init__(self):
        self.may_end = threading.Event()
        self.learnt, self.due, self.threads = [], 0, []

    def setup(self, space, seed):
        pass

    def suggest(self, trial):
        return {"x": 0.5, "y": 0.5}

    def lesson(self):
        if not self.due:
            return None
        self.due -= 1

        def compute():
            assert self.may_end.wait(SECONDS)
            self.threads.append(threading.current_thread().name)
            return len(self.learnt)

        return compute

    def learn(self, result):
        self.learnt.append(result)
        self.trusted = True


def test_lessons_at_once_are_learnt_before_the_next_question():
    pupil = Pupil()
    pupil.due, _ = 2, pupil.may_end.set()
    assert SearcherAdvice(pupil, LessonsNow()).judge(False)
    assert pupil.learnt == [0, 1]


def test_a_lesson_in_the_thread_is_not_waited_for():
    pupil, lessons = Pupil(), LessonsInThread()
    advice = SearcherAdvice(pupil, lessons)
    pupil.due = 2
    assert not advice.judge(False)
    assert not advice.judge(False)  # it still computes
    assert advice.suggest(0, explore=False).config == {"x": 0.5, "y": 0.5}
    assert pupil.due == 1
    pupil.may_end.set()
    lessons._running.result(SECONDS)
    assert advice.judge(False)
    lessons._running.result(SECONDS)
    assert advice.judge(True)
    assert pupil.learnt == [0, 1]
    assert all(name.startswith("daskhpo-lesson") for name in pupil.threads)
    lessons.close()


def test_an_error_of_a_lesson_reaches_the_coordinator():
    class Confused(Pupil):
        def lesson(self):
            return lambda: 1 / 0

    lessons = LessonsInThread()
    advice = SearcherAdvice(Confused(), lessons)
    advice.judge(False)
    lessons._running.exception(SECONDS)
    with pytest.raises(ZeroDivisionError):
        advice.judge(False)
    lessons.close()


def test_a_stale_event_brings_no_verdict_that_a_replay_would_not_meet():
    problem = Problem(SPACE, Objective("loss"), Watch(), RandomSearch(), 0)
    coordinator, lessons = Coordinator(problem, MemoryJournal()), LessonsInThread()
    pupil = Pupil()
    pupil.due = 1
    coordinator.advisor = SearcherAdvice(pupil, lessons)
    coordinator.handle(SessionStarted(Limits(2), CheckpointPolicy("never"), 0.0))
    coordinator.handle(SlotsChanged(1, 5.0))
    pupil.may_end.set()
    lessons._running.result(SECONDS)
    n_before = len(coordinator.journal.records)
    assert coordinator.handle(Trained(0, 7, steps(1, 9, 6.0), 6.0)) == []  # no such attempt
    assert len(coordinator.journal.records) == n_before
    coordinator.handle(Trained(0, 1, steps(1, 9, 8.0), 8.0))
    assert Judged(True, 8.0) in coordinator.journal.records
    replay(problem, coordinator.journal.records, MemoryJournal())
    lessons.close()


class Watch(Scheduler):
    """Notes the seconds of each report."""

    max_t = 9

    def __init__(self):
        self.seconds = []

    def next_action(self, trials, can_start):
        return Start(9) if can_start and not trials else Wait()

    def on_launch(self, trial):
        pass

    def on_report(self, trial, report):
        self.seconds.append(report.seconds)
        return Stop("done")

    def on_end(self, trial):
        pass


def steps(first, last, at):
    return tuple(Step(unit, {"loss": 1.0}, at) for unit in range(first, last + 1))


@pytest.fixture
def watched():
    """A coordinator whose first trial was launched after five seconds."""
    problem = Problem(SPACE, Objective("loss"), Watch(), ForestSearch(), 0)
    coordinator = Coordinator(problem, MemoryJournal())
    coordinator.handle(SessionStarted(Limits(1), CheckpointPolicy("never"), 0.0))
    coordinator.handle(SlotsChanged(1, 5.0))
    return coordinator


def test_a_report_tells_the_time_in_the_slot(watched):
    watched.handle(Trained(0, 1, steps(1, 9, 25.0), 25.0))
    assert watched.scheduler.seconds == [20.0]


def test_units_that_were_trained_again_take_their_time(watched):
    watched.handle(Trained(0, 1, steps(1, 6, 17.0), 17.0))
    watched.handle(AttemptLost(0, 1, "gone", 18.0))
    watched.handle(Trained(0, 2, steps(1, 9, 40.0), 40.0))
    assert watched.scheduler.seconds == [22.0]  # since its second launch


def test_the_time_of_units_in_another_slot_is_estimated(watched):
    trial = watched.ledger.trials[0]
    watched._began[0] = (5.0, 6)  # it was preempted after six units, and continued from there
    watched.ledger.trials[0] = trial._replace(resource=6, losses=(1.0,) * 6)
    watched.handle(Trained(0, 1, steps(7, 9, 11.0), 11.0))
    assert watched.scheduler.seconds == [18.0]  # six seconds for three units of nine


class LearnsFromFailures(Searcher):
    """Has a lesson at each failure; its suggestions say how many it has learnt."""

    def setup(self, space, seed):
        self.due = self.learnt = 0

    def suggest(self, trial):
        return {"x": 1.0 * self.learnt, "y": 0.0}

    def on_end(self, trial):
        self.due += trial.status is Status.FAILED

    def lesson(self):
        due, self.due = self.due, 0
        return (lambda: due) if due else None

    def learn(self, result):
        self.learnt += result


def test_what_ends_while_slots_are_filled_is_learnt_before_the_next_suggestion():
    problem = Problem(SPACE, Objective("loss"), FIFO(9), LearnsFromFailures(), 0)
    journal = MemoryJournal()
    coordinator = Coordinator(problem, journal)
    coordinator.handle(SessionStarted(Limits(4), KEPT, 0.0))
    coordinator.handle(SlotsChanged(1, 0.0))
    short = Limits(4, trial_time_limit=1.0)  # trial 0 has used more, without a report
    coordinator.handle(SessionStarted(short, KEPT, 5.0))
    coordinator.handle(SlotsChanged(1, 6.0))
    started = [record.config["x"] for record in journal.records if isinstance(record, Suggested)]
    assert started == [0.0, 1.0]
    for n in range(len(journal.records) - 3, len(journal.records) + 1):
        tail = MemoryJournal()
        replay(problem, journal.records[:n], tail)
        assert tail.records == journal.records[n:]
