"""The study in which things go wrong: what it rejects, and that what should go wrong does."""

from __future__ import annotations

import pytest

from daskhpo.core.events import AttemptLost, Failed, Held, SlotsChanged
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import Continue, Pause, Resume, Start, Status, Stop, Wait
from daskhpo.schedulers import ASHA
from daskhpo.testing.driver import EVERYTHING_GOES_WRONG, Mishaps
from daskhpo.testing.scheduler import drive

PROMOTION = ASHA(max_t=27, variant="promotion")
PAUSE = Pause()


class Careless(Scheduler):
    """Trains to 3 and to 9, with a pause between, unless it is told otherwise.

    Parameters
    ----------
    start, onward : end of the first and of the second segment.
    resumes : the trial to resume; None: the first one that is paused.
    decision : on the first report.
    """

    max_t = 9

    def __init__(self, start=3, onward=9, resumes=None, decision=PAUSE, limited=True):
        self.start, self.onward, self.resumes, self.decision = start, onward, resumes, decision
        self.limited = limited

    def next_action(self, trials, can_start):
        paused = [n for n, trial in trials.items() if trial.status is Status.PAUSED]
        if paused:
            return Resume(paused[0] if self.resumes is None else self.resumes, self.onward)
        return Start(self.start) if can_start or not self.limited else Wait()

    def on_launch(self, trial):
        pass

    def on_report(self, trial, report):
        return self.decision if report.resource < 9 else Stop("fully trained")

    def on_end(self, trial):
        pass


class Nosy(Careless):
    """Counts how often it is asked, and answers accordingly."""

    n_asked = 0

    def next_action(self, trials, can_start):
        self.n_asked += 1
        action = super().next_action(trials, can_start)
        return Start(1 + self.n_asked % 9) if isinstance(action, Start) else action


def test_a_study_of_the_scheduler_itself_is_fine():
    assert set(drive(Careless()).ended.values()) == {(Status.COMPLETED, 9)}


@pytest.mark.parametrize(
    ("scheduler", "error"),
    [
        (Careless(start=0), AssertionError),
        (Careless(start=10), AssertionError),
        (Careless(onward=3), AssertionError),
        (Careless(onward=10), AssertionError),
        (Careless(resumes=99), RuntimeError),
        (Careless(decision=Continue(3)), AssertionError),
        (Careless(decision=Continue(10)), AssertionError),
        (Careless(limited=False), AssertionError),
    ],
)
def test_actions_and_decisions_that_make_no_sense_are_rejected(scheduler, error):
    with pytest.raises(error):
        drive(scheduler)


def test_whoever_changes_when_it_is_asked_is_found_out():
    drive(Nosy())
    with pytest.raises(AssertionError):
        drive(Nosy(), suspicious=True)


@pytest.mark.parametrize(
    ("mishaps", "happens"),
    [
        (Mishaps(fails=0.3), lambda r: isinstance(r, Failed) and r.error == "it fails"),
        (Mishaps(lost=0.3), lambda r: isinstance(r, AttemptLost) and not r.bad_checkpoint),
        (Mishaps(failed_saves=0.3), lambda r: isinstance(r, Failed) and "saved" in r.error),
        (Mishaps(forgotten=0.3), lambda r: isinstance(r, AttemptLost) and r.bad_checkpoint),
        (Mishaps(resizes=0.3), lambda r: isinstance(r, SlotsChanged) and r.n_slots != 4),
    ],
    ids=["fails", "lost", "failed_saves", "forgotten", "resizes"],
)
def test_what_should_go_wrong_does(mishaps, happens):
    assert any(map(happens, drive(Careless(), mishaps=mishaps).records))
    assert not any(map(happens, drive(Careless()).records))


def test_while_a_save_is_slow_others_report():
    def n_between(mishaps):
        """Records of other trials between a decision to pause and the state that it needs."""
        waiting, n = set(), 0
        for record in drive(PROMOTION, mishaps=mishaps).records:
            if isinstance(record, Held):
                waiting.discard(record.trial)
            elif getattr(record, "decision", None) is not None:
                n += len(waiting - {record.trial})
                if isinstance(record.decision, Pause):
                    waiting.add(record.trial)
        return n

    assert n_between(Mishaps(slow_saves=0.5)) > n_between(Mishaps()) == 0


def test_segments_that_fail_are_the_same_in_any_order_of_arrival():
    def failed(n_workers):
        study = drive(PROMOTION, n_workers=n_workers, mishaps=Mishaps(fails=0.2))
        return {n for n, (status, resource) in study.ended.items() if resource == 0}

    assert failed(1) == failed(7) != set()


def test_a_second_session_begins_without_what_was_in_memory():
    study = drive(PROMOTION, num_trials=7, mishaps=EVERYTHING_GOES_WRONG)
    n_before = len(study.records)
    study.extend(9).run()
    assert sorted([*study.trials, *study.ended]) == list(range(9))
    assert len(study.records) > n_before
