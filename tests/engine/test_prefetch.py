"""Suggestions made ahead: no slot waits for a slow searcher, and the searcher hears it all."""

from __future__ import annotations

import logging
import math
import queue
import random
import threading
import traceback

import pytest

from daskhpo import Study
from daskhpo.core.domains import Real
from daskhpo.core.events import SessionStarted, SlotsChanged, Step, Suggested, Trained
from daskhpo.core.objective import Objective
from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, Report, Status, Suggestion, Trial
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.journal import decode_record, encode_record
from daskhpo.engine.prefetch import DECAY, REFILL_RATE, PrefetchingSearcher, WaitBudget
from daskhpo.engine.replay import replay
from daskhpo.engine.session import Session, study_records
from daskhpo.results.result import Result
from daskhpo.schedulers import FIFO
from daskhpo.study.asktell import AskTellSession
from daskhpo.testing.journal import MemoryJournal

SPACE = Space({"x": Real(0.0, 1.0)})
SEARCH = "daskhpo-search"
SECONDS = 60.0  # after which a test has failed; nothing takes as long
QUICK = 10_000


class Slow(Searcher):
    """Gives ``x = number`` when it is allowed to; remembers all calls, and who made them.

    Parameters
    ----------
    n_allowed : suggestions that it gives before :meth:`allow` is called.
    n_configs : after so many there is none left.
    raises : name of a method that does.
    """

    slow = True

    def __init__(self, n_allowed=QUICK, n_configs=None, raises=None, points_to_evaluate=None):
        self.n_allowed, self.n_configs, self.raises = n_allowed, n_configs, raises
        self.points_to_evaluate = points_to_evaluate
        self.finite = n_configs is not None

    def __repr__(self):
        return "Slow()"

    def setup(self, space, seed):
        self.allowed = threading.Semaphore(self.n_allowed)
        self.asked = queue.Queue()  # numbers, when it begins to think
        self.calls = []
        self.heard = queue.Queue()  # the same, for who waits for them

    def allow(self, n=1):
        for _ in range(n):
            self.allowed.release()

    def suggest(self, trial):
        self._enter("suggest", trial)
        self.asked.put(trial)
        assert self.allowed.acquire(timeout=SECONDS)
        if self.n_configs is not None and trial >= self.n_configs:
            return None
        return {"x": float(trial)}

    def on_start(self, trial, config):
        self._enter("on_start", trial, config)

    def observe(self, trial, report):
        self._enter("observe", trial.id, trial.config)

    def on_end(self, trial):
        self._enter("on_end", trial.id, trial.config)

    def _enter(self, name, *args):
        if name == self.raises:
            raise ArithmeticError(f"{name} is too hard")
        self.calls.append((name, *args))
        self.heard.put((name, *args, threading.current_thread().name))

    def wait_for(self, name, trial):
        """Return when a call has come; the name of the thread that made it."""
        while (call := self.heard.get(timeout=SECONDS))[:2] != (name, trial):
            pass
        return call[-1]

    @property
    def numbers(self):
        """Those that were asked for, in order."""
        return [call[1] for call in self.calls if call[0] == "suggest"]


def a_trial(number, x=0.5, status=Status.RUNNING):
    return Trial(number, {"x": x}, status, until=1, resource=1, best_loss=1.0)


A_REPORT = Report(1, (1.0,), 1.0)


@pytest.fixture
def begin():
    """Begins to search ahead: ``begin(searcher, **options)``; ends it, too."""
    made = []

    def make(searcher, **options):
        if not hasattr(searcher, "calls"):
            searcher.setup(SPACE, 7)
        made.append((PrefetchingSearcher(searcher, SPACE, 7, **options), searcher))
        return made[-1][0]

    yield make
    for ahead, searcher in made:
        searcher.allow(QUICK)
        ahead.close(SECONDS)
        assert not ahead._thread.is_alive()


def settle(ahead, searcher):
    """Return when all that is wanted now is ready.

    Twice, because its thread may be told before it makes the suggestion that was wanted before.
    """
    for mark in (-1, -2):
        ahead.on_end(a_trial(mark))
        searcher.wait_for("on_end", mark)


def start(ahead, trial):
    """What the coordinator does to start a trial."""
    suggestion = ahead.next_suggestion(trial)
    ahead.on_start(trial, suggestion.config)
    return suggestion


def thinking(ahead, searcher, n):
    """A thread that allows so many suggestions, each when a slot waits for it."""

    def think():
        for n_late in range(1, n + 1):
            with ahead._changed:
                assert ahead._changed.wait_for(lambda: ahead._wanted > n_late, SECONDS)  # noqa: B023
            searcher.allow()

    thread = threading.Thread(target=think)
    thread.start()
    return thread


def fallback(trial):
    return SPACE.sample(rng(7, "fallback", trial))


# -- suggestions ---------------------------------------------------------------------------------


def test_a_suggestion_that_is_ready_is_given_at_once(begin):
    searcher = Slow()
    ahead = begin(searcher, deadline=0.0)
    settle(ahead, searcher)
    assert ahead.next_suggestion(0) == Suggestion({"x": 0.0})
    assert searcher.wait_for("suggest", 1) == SEARCH  # and the next one is made


def test_who_finds_none_ready_gets_a_random_one(begin):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=0.0)
    given = [ahead.next_suggestion(trial) for trial in range(3)]
    assert [one.config for one in given] == [fallback(trial) for trial in range(3)]
    assert all(one.fallback for one in given)
    assert SPACE.complete(given[0].config) == given[0].config


def test_a_suggestion_that_comes_before_the_deadline_is_waited_for(begin):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=math.inf)
    helper = thinking(ahead, searcher, 1)
    given = ahead.next_suggestion(0)
    helper.join()
    assert given.config == {"x": 0.0}
    assert given.waited > 0
    assert not given.fallback


def test_a_suggestion_that_came_too_late_is_the_next_trials(begin):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=0.0)
    assert searcher.asked.get(timeout=SECONDS) == 0
    assert start(ahead, 0).fallback
    searcher.allow()
    searcher.wait_for("on_start", 1)  # 0 is ready then
    assert start(ahead, 1) == Suggestion({"x": 0.0})


def test_as_a_searcher_it_gives_configurations_only(begin):
    searcher = Slow(n_configs=1)
    ahead = begin(searcher)
    assert ahead.suggest(0) == {"x": 0.0}
    assert ahead.suggest(1) is None


def test_points_to_evaluate_are_waited_for_whatever_the_deadline(begin):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, n_points=2, deadline=0.0)
    helper = thinking(ahead, searcher, 2)
    given = [start(ahead, trial) for trial in range(3)]
    helper.join()
    assert [one.config for one in given] == [{"x": 0.0}, {"x": 1.0}, fallback(2)]
    assert [one.fallback for one in given] == [False, False, True]


def test_points_that_earlier_sessions_began_are_not_waited_for_again(begin):
    ahead = begin(Slow(n_allowed=0), n_trials=2, n_points=2, deadline=0.0)
    assert ahead.next_suggestion(2).fallback


def test_a_finite_searcher_is_waited_for_and_ends_with_none_for_good(begin):
    searcher = Slow(n_allowed=0, n_configs=3)
    ahead = begin(searcher, deadline=0.0)
    helper = thinking(ahead, searcher, 4)
    given = [ahead.suggest(trial) for trial in range(5)]
    helper.join()
    assert given == [{"x": 0.0}, {"x": 1.0}, {"x": 2.0}, None, None]
    assert searcher.numbers == [0, 1, 2, 3]  # it is not asked again
    assert ahead.finite


def test_a_searcher_that_has_no_more_gives_none_even_if_it_is_not_finite(begin):
    searcher = Slow(n_configs=1)
    searcher.finite = False
    ahead = begin(searcher, deadline=math.inf)
    assert [ahead.suggest(trial) for trial in range(3)] == [{"x": 0.0}, None, None]


# -- how many are made ahead ---------------------------------------------------------------------


def test_one_is_made_ahead_as_long_as_none_comes_late(begin):
    searcher = Slow()
    ahead = begin(searcher, deadline=0.0)
    for trial in range(5):
        settle(ahead, searcher)
        assert searcher.numbers == [*range(trial + 1)]
        assert not start(ahead, trial).fallback


@pytest.mark.parametrize("n_late", [1, 3, 50])
def test_each_that_comes_late_asks_for_one_more_but_no_more_than_n_ahead(begin, n_late):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=0.0, n_prefetch=5)
    searcher.asked.get(timeout=SECONDS)
    for trial in range(n_late):
        assert ahead.next_suggestion(trial).fallback
    searcher.allow(QUICK)
    settle(ahead, searcher)
    assert len(searcher.numbers) == min(1 + n_late, 5)


def test_after_a_while_without_a_late_one_fewer_are_made_ahead(begin):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=0.0)
    searcher.asked.get(timeout=SECONDS)
    assert ahead.next_suggestion(0).fallback
    searcher.allow(QUICK)
    n_given = round(1 / DECAY)
    for trial in range(1, n_given + 1):
        settle(ahead, searcher)
        assert len(searcher.numbers) == trial + 1  # two are ready
        assert not ahead.next_suggestion(trial).fallback
    settle(ahead, searcher)
    assert len(searcher.numbers) == n_given + 1  # one


def test_patience_is_of_all_waits_together():
    patience = WaitBudget(0.05)
    assert patience.remaining(100.0) == 0.05
    patience.spend(0.03)
    assert patience.remaining(100.03) == pytest.approx(0.02 + REFILL_RATE * 0.03)
    patience.spend(0.04)
    assert patience.remaining(100.03) == 0.0
    assert patience.remaining(200.0) == 0.05  # never more than that


@pytest.mark.parametrize("seed", range(5))
def test_of_any_time_a_small_share_is_spent_waiting(seed):
    random.seed(seed)
    patience, now, spent = WaitBudget(0.05), 3.0, 0.0
    for _ in range(1000):
        now += random.choice([0.0, 0.001, 0.1])
        wait = random.random() * patience.remaining(now)
        patience.spend(wait)
        now, spent = now + wait, spent + wait
        assert spent <= 0.05 + REFILL_RATE * (now - 3.0) + 1e-9


def test_each_wait_is_charged(begin):
    ahead = begin(Slow(n_allowed=0), deadline=0.01)
    given = ahead.next_suggestion(0)
    assert given.fallback
    assert ahead._budget._left == pytest.approx(0.01 - given.waited)


@pytest.mark.parametrize("elapsed", [0.0, 50.0])
def test_none_waits_for_what_takes_too_long(begin, elapsed):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=SECONDS)
    searcher.asked.get(timeout=SECONDS)
    ahead._last_seconds = 3 * SECONDS  # of the last one
    ahead._asked_at -= elapsed
    given = ahead.next_suggestion(0)
    assert (given.fallback, given.waited) == (True, 0.0)


def test_what_took_long_is_waited_for_when_it_is_due(begin):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=SECONDS)
    searcher.asked.get(timeout=SECONDS)
    ahead._last_seconds = 3 * SECONDS
    ahead._asked_at -= 2.5 * SECONDS
    helper = thinking(ahead, searcher, 1)
    assert ahead.next_suggestion(0).config == {"x": 0.0}
    helper.join()


def test_none_waits_for_what_takes_too_long_and_is_not_begun(begin):
    learning = threading.Event()

    class Learns(Slow):
        def on_end(self, trial):
            super().on_end(trial)
            assert learning.wait(SECONDS)

    searcher = Learns()
    ahead = begin(searcher, deadline=SECONDS)
    ahead.next_suggestion(0)
    ahead.on_end(a_trial(0))
    searcher.wait_for("on_end", 0)
    while ahead._ready:
        ahead.next_suggestion(1)
    ahead._last_seconds = 3 * SECONDS
    assert ahead.next_suggestion(2).fallback
    learning.set()


def test_how_long_the_last_one_took_is_known(begin):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=math.inf)
    helper = thinking(ahead, searcher, 1)
    given = ahead.next_suggestion(0)
    helper.join()
    assert not given.fallback
    assert ahead._last_seconds > 0


def test_infinite_patience_never_ends():
    patience = WaitBudget(math.inf)
    for now in (0.0, 5.0):
        assert patience.remaining(now) == math.inf
        patience.spend(1e9)


@pytest.mark.parametrize("options", [{"n_prefetch": 0}, {"deadline": -1.0}, {"deadline": math.nan}])
def test_wrong_options_are_refused_and_no_thread_is_begun(options):
    with pytest.raises(ValueError, match="must be at least 1 and deadline="):
        PrefetchingSearcher(Slow(), SPACE, 0, **options)
    assert searching() == []


# -- what the searcher hears ---------------------------------------------------------------------


def test_the_searcher_is_told_before_it_is_asked_again(begin):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=0.0)
    searcher.asked.get(timeout=SECONDS)
    start(ahead, 0)
    ahead.observe(a_trial(0), A_REPORT)
    ahead.on_end(a_trial(0))
    assert searcher.calls == [("suggest", 0)]  # it thinks
    searcher.allow()
    searcher.asked.get(timeout=SECONDS)
    names = [call[0] for call in searcher.calls]
    assert names == ["suggest", "on_start", "observe", "on_end", "suggest"]


def test_a_stream_of_news_does_not_keep_it_from_suggesting(begin):
    """Each time that it is told, more is told meanwhile; it comes to suggest all the same."""

    class Echo(Slow):
        def on_end(self, trial):
            super().on_end(trial)
            if trial.id > -QUICK:
                ahead.on_end(a_trial(trial.id - 1))

    searcher = Echo()
    ahead = begin(searcher)
    ahead.on_end(a_trial(-1))
    assert [ahead.suggest(trial) for trial in range(3)] == [{"x": 0.0}, {"x": 1.0}, {"x": 2.0}]


def test_a_suggestion_keeps_its_number_and_a_fallback_gets_one_of_its_own(begin):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher, deadline=0.0, n_trials=10)
    assert searcher.asked.get(timeout=SECONDS) == 10
    late = start(ahead, 10)
    searcher.allow()
    searcher.wait_for("on_start", 11)
    assert start(ahead, 11).config == {"x": 10.0}
    for trial, x in [(10, late.config["x"]), (11, 10.0), (3, 0.3)]:
        ahead.observe(a_trial(trial, x), A_REPORT)
        ahead.on_end(a_trial(trial, x))
    searcher.allow(QUICK)
    searcher.wait_for("on_end", 3)
    assert [call for call in searcher.calls if call[0] != "suggest"] == [
        ("on_start", 11, late.config),
        ("on_start", 10, {"x": 10.0}),
        ("observe", 11, late.config),
        ("on_end", 11, late.config),
        ("observe", 10, {"x": 10.0}),
        ("on_end", 10, {"x": 10.0}),
        ("observe", 3, {"x": 0.3}),  # of an earlier session: by the number that it had
        ("on_end", 3, {"x": 0.3}),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_searcher_hears_a_consistent_story(begin, seed):
    """Trials start, report and end in a random order, some of them with fallbacks."""
    random.seed(seed)
    searcher = Slow(n_allowed=0)
    ahead = begin(
        searcher, deadline=random.choice([0.0, 0.0, 0.001]), n_prefetch=random.randint(1, 4)
    )
    living, story, n_started = {}, [], 0
    while n_started < 60 or living:
        searcher.allow(random.randint(0, 2))
        act = random.choice(["start", "observe", "end"]) if living else "start"
        if act == "start" and n_started < 60:
            living[n_started] = start(ahead, n_started).config
            story.append(("on_start", living[n_started]))
            n_started += 1
        elif act != "start":
            trial = random.choice([*living])
            if act == "observe":
                ahead.observe(a_trial(trial, living[trial]["x"]), A_REPORT)
                story.append(("observe", living[trial]))
            else:
                ahead.on_end(a_trial(trial, living[trial]["x"]))
                story.append(("on_end", living.pop(trial)))
    searcher.allow(QUICK)
    ahead.on_end(a_trial(-1))
    searcher.wait_for("on_end", -1)
    calls = [call for call in searcher.calls if call[1] >= 0]
    assert [(name, *rest) for name, _, *rest in calls if name != "suggest"] == story
    config_of = {}
    for name, number, *rest in calls:
        if name == "suggest":
            assert number not in config_of, "asked for a number that a trial has"
            config_of[number] = {"x": float(number)}
        elif name == "on_start" and number not in config_of:
            config_of[number] = rest[0]  # a fallback
        else:
            assert config_of[number] == rest[0], "another trial's number"
    starts = [call[1] for call in calls if call[0] == "on_start"]
    assert len({*starts}) == 60
    assert sorted(n for n in searcher.numbers if n in starts) == [
        n for n in starts if n in searcher.numbers
    ]  # suggestions are given in their order
    assert ahead._searcher_ids == {}  # it remembers living trials only


# -- errors and the end --------------------------------------------------------------------------


def test_what_suggest_raises_is_raised_for_who_waits_with_its_traceback(begin):
    searcher = Slow(raises="suggest")
    ahead = begin(searcher, deadline=math.inf)
    with pytest.raises(ArithmeticError, match="suggest is too hard") as caught:
        ahead.next_suggestion(0)
    assert "_enter" in [frame.name for frame in traceback.extract_tb(caught.tb)]


@pytest.mark.parametrize("raises", ["on_start", "observe", "on_end"])
def test_what_it_raises_as_it_learns_is_raised_by_the_next_call(begin, raises):
    searcher = Slow(raises=raises)
    ahead = begin(searcher, deadline=math.inf)

    def work():
        for trial in range(QUICK):
            start(ahead, trial)
            ahead.observe(a_trial(trial), A_REPORT)
            ahead.on_end(a_trial(trial))

    with pytest.raises(ArithmeticError, match=f"{raises} is too hard"):
        work()
    for again in (
        lambda: ahead.suggest(1),
        lambda: ahead.on_start(0, {}),
        lambda: ahead.observe(a_trial(0), A_REPORT),
        lambda: ahead.on_end(a_trial(0)),
    ):
        with pytest.raises(ArithmeticError):
            again()


def test_an_error_counts_though_a_suggestion_is_ready(begin):
    searcher = Slow(raises="on_end")
    ahead = begin(searcher, deadline=0.0)
    for trial in (0, 1):  # 0 is ready when it hears of 1
        ahead.on_start(trial, {"x": 0.5})
        searcher.wait_for("on_start", trial)
    ahead.on_end(a_trial(0))
    ahead._thread.join(SECONDS)
    with pytest.raises(ArithmeticError):
        ahead.next_suggestion(0)


def test_an_error_that_nobody_met_is_logged_at_the_end(begin, caplog):
    ahead = begin(Slow(raises="suggest"))
    with caplog.at_level(logging.WARNING, "daskhpo"):
        ahead.close(SECONDS)
    assert "suggest is too hard" in caplog.text
    assert "Traceback" in caplog.text


def test_an_error_that_was_raised_is_not_logged_again(begin, caplog):
    ahead = begin(Slow(raises="suggest"), deadline=math.inf)
    with pytest.raises(ArithmeticError):
        ahead.next_suggestion(0)
    with caplog.at_level(logging.WARNING, "daskhpo"):
        ahead.close(SECONDS)
    assert not caplog.records


def test_close_ends_the_thread(begin, caplog):
    ahead = begin(Slow())
    ahead.close(SECONDS)
    assert not ahead._thread.is_alive()
    assert not caplog.records


def test_close_does_not_wait_for_ever_for_a_searcher_that_thinks(begin, caplog):
    searcher = Slow(n_allowed=0)
    ahead = begin(searcher)
    searcher.asked.get(timeout=SECONDS)
    ahead.on_end(a_trial(-1))
    with caplog.at_level(logging.WARNING, "daskhpo"):
        ahead.close(seconds=0.0)
    assert "Slow() is still working" in caplog.text
    assert ahead._thread.daemon  # nor does the interpreter
    searcher.allow(QUICK)
    ahead._thread.join(SECONDS)
    assert searcher.calls == [("suggest", 0)]  # it was told nothing any more


# -- in a study ----------------------------------------------------------------------------------


def a_problem(searcher, seed=7):
    return Problem(SPACE, Objective("loss"), FIFO(1), searcher, seed)


def searching():
    return [thread for thread in threading.enumerate() if thread.name == SEARCH]


def open_session(directory, searcher, **options):
    policy = CheckpointPolicy("never")
    return Session(directory, a_problem(searcher), Limits(), policy, **options)


def report(session, trial, loss=1.0):
    at = session.coordinator._seconds + 1.0
    attempt = session.coordinator.ledger.trials[trial].attempt
    session.coordinator.handle(Trained(trial, attempt, (Step(1, {"loss": loss}, at),), at))
    session.journal.flush()


def suggested(directory):
    return [record for record in study_records(directory) if isinstance(record, Suggested)]


def test_a_session_searches_ahead_with_a_slow_searcher_until_it_is_closed(tmp_path):
    session = open_session(tmp_path, Slow(), resume=False, ahead=True)
    assert len(searching()) == 1
    session.coordinator.handle(SlotsChanged(1, 1.0))
    report(session, 0)
    assert len(session.coordinator.ledger.trials) == 1
    session.close()
    assert searching() == []
    assert not (tmp_path / "lock.json").exists()


@pytest.mark.parametrize(("slow", "ahead"), [(False, True), (True, False)])
def test_no_thread_is_begun_for_a_quick_searcher_or_unless_it_is_wanted(tmp_path, slow, ahead):
    searcher = Slow()
    searcher.slow = slow
    session = open_session(tmp_path, searcher, resume=False, ahead=ahead)
    session.coordinator.handle(SlotsChanged(1, 1.0))
    own = session.coordinator.searcher
    assert isinstance(own, Slow)
    assert own.wait_for("suggest", 0) == threading.current_thread().name
    assert searching() == []
    session.close()


def test_a_session_waits_for_the_users_points(tmp_path):
    searcher = Slow(n_allowed=0, points_to_evaluate=[{"x": 0.25}, {"x": 0.75}])
    session = open_session(tmp_path, searcher, resume=False, ahead=True)
    ahead = session.coordinator.searcher
    ahead._budget = WaitBudget(0.0)  # for any other suggestions
    helper = thinking(ahead, ahead._searcher, 2)
    session.coordinator.handle(SlotsChanged(2, 1.0))
    helper.join()
    session.journal.flush()
    assert [r.config for r in suggested(tmp_path)] == [{"x": 0.0}, {"x": 1.0}]
    ahead._searcher.allow(QUICK)
    session.close()


def test_a_session_that_cannot_be_closed_cleanly_ends_the_thread_and_gives_the_lock_back(
    tmp_path,
):
    session = open_session(tmp_path, Slow(), resume=False, ahead=True)
    session.journal._problem = OSError("the disk is full")
    with pytest.raises(OSError, match="the disk is full"):
        session.close()
    assert searching() == []
    assert not (tmp_path / "lock.json").exists()


def test_a_resumed_study_tells_its_searcher_of_all_trials_and_asks_for_none(tmp_path):
    first = open_session(tmp_path, Slow(n_allowed=0), resume=False, ahead=True)
    thinker = first.coordinator.searcher._searcher
    thinker.asked.get(timeout=SECONDS)
    first.coordinator.handle(SlotsChanged(3, 1.0))  # three fallbacks
    report(first, 1)  # and a fourth
    thinker.allow(QUICK)
    first.close()
    records = suggested(tmp_path)
    assert [record.fallback for record in records] == [True] * 4
    assert sum(record.waited for record in records) > 0  # the deadline, once

    second = open_session(tmp_path, Slow(), resume=True, ahead=False)
    searcher = second.coordinator.searcher
    told = [call[:2] for call in searcher.calls]
    assert sorted(told) == [("observe", 1), ("on_end", 1), *(("on_start", n) for n in range(4))]
    second.close()

    third = open_session(tmp_path, Slow(), resume=True, ahead=True)
    third.coordinator.searcher._searcher.wait_for("suggest", 4)  # the first number that is free
    third.close()


def test_whoever_asks_and_tells_has_a_slow_searcher_to_himself(tmp_path):
    asktell = AskTellSession(tmp_path, a_problem(Slow()), resume=False)
    trial = asktell.ask()
    searcher = asktell._session.coordinator.searcher
    assert trial.config == {"x": 0.0}
    assert searcher.wait_for("suggest", 0) == threading.current_thread().name
    assert searching() == []
    asktell.close()


def test_an_error_of_the_searcher_reaches_the_coordinator(tmp_path):
    session = open_session(tmp_path, Slow(raises="suggest"), resume=False, ahead=True)
    session.coordinator.searcher._thread.join(SECONDS)
    with pytest.raises(ArithmeticError, match="suggest is too hard"):
        session.coordinator.handle(SlotsChanged(1, 1.0))
    session.close()
    assert searching() == []


# -- what it cost --------------------------------------------------------------------------------


class Given:
    """Gives these suggestions, one after another."""

    def __init__(self, given):
        self.given = given

    def suggest(self, trial, explore):
        return next(self.given, None)

    def choose(self, trial, choice):
        return next(self.given, None)

    def judge(self, trusted):
        return trusted


@pytest.fixture
def waited():
    """Records of a study of three slots in which the second suggestion was waited for."""
    given = iter(
        [Suggestion({"x": 0.1}), Suggestion({"x": 0.2}, 0.5), Suggestion({"x": 0.3}, 0, True)]
    )
    problem, journal = a_problem(Slow()), MemoryJournal()
    coordinator = Coordinator(problem, journal, Given(given))
    coordinator.handle(SessionStarted(Limits(), CheckpointPolicy("never"), 0.0))
    coordinator.handle(SlotsChanged(3, 1.0))
    return problem, journal.records


def test_a_wait_costs_every_slot_that_was_free(waited):
    _, records = waited
    found = [(r.waited, r.fallback) for r in records if isinstance(r, Suggested)]
    assert found == [(0.0, False), (1.0, False), (0.0, True)]


def test_the_cost_shows_what_the_searcher_took(waited):
    problem, records = waited
    cost = Result(records, problem.objective).cost()
    assert cost["search_seconds"] == 1.0
    assert cost["fallback_trials"] == 1


def test_the_journal_says_so_only_if_there_was_something(waited):
    _, records = waited
    lines = [encode_record(record) for record in records if isinstance(record, Suggested)]
    assert [("waited" in line, "fallback" in line) for line in lines] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert [decode_record(line) for line in lines] == [
        r for r in records if isinstance(r, Suggested)
    ]


def test_a_study_that_waited_replays(waited):
    problem, records = waited
    tail = MemoryJournal()
    again = replay(problem, records, tail)
    assert tail.records == []
    assert again.searcher.numbers == []  # no model runs
    assert [call[1:] for call in again.searcher.calls] == [
        (0, {"x": 0.1}),
        (1, {"x": 0.2}),
        (2, {"x": 0.3}),
    ]


# -- on real workers -----------------------------------------------------------------------------


class Thinks(Searcher):
    """Takes its time; says in its configurations which thread it was asked in."""

    slow = True

    def __repr__(self):
        return "Thinks()"

    def setup(self, space, seed):
        self.n_told = 0

    def suggest(self, trial):
        ahead = threading.current_thread().name == SEARCH
        return {"x": 0.5, "ahead": ahead, "n_told": self.n_told}

    def observe(self, trial, report):
        self.n_told += 1


def train(config, trial):
    trial.report({"loss": config["x"]})


@pytest.mark.cluster
def test_a_study_on_workers_searches_ahead(tmp_path):
    study = Study(
        train,
        space={"x": Real(0, 1)},
        metric="loss",
        scheduler=FIFO(1),
        searcher=Thinks(),
        storage=tmp_path,
        name="study",
    )
    result = study.run(num_trials=6, max_concurrent=2, progress=False)
    configs = [result.trial(number).config for number in range(6)]
    assert [config for config in configs if config.get("ahead")]
    assert not [config for config in configs if config.get("ahead") is False]
    assert result.trials().status.tolist() == ["completed"] * 6
    assert searching() == []
