"""Synchronous halving against Algorithm 1 of the Hyperband paper, written a second time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskhpo.core.events import Suggested
from daskhpo.core.types import Continue, Discard, Pause, Resume, Start, Status, Stop, Wait
from daskhpo.schedulers import Hyperband, SuccessiveHalving
from daskhpo.testing.driver import Driver, Mishaps, a_report, a_trial, noisy_curve
from daskhpo.testing.scheduler import SchedulerContract

LOST = "not among the best of its rung"


class TestSuccessiveHalvingContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: SuccessiveHalving(max_t=9, reduction_factor=3, num_configs=10)


class TestHyperbandContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: Hyperband(max_t=10, reduction_factor=2, compare="best")


# -- the paper, sequentially ---------------------------------------------------------------------

TABLE_1 = [  # Li et al. 2018, R=81, η=3: (n_i, r_i) of the brackets s = 4, 3, 2, 1, 0
    [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    [(27, 3), (9, 9), (3, 27), (1, 81)],
    [(9, 9), (3, 27), (1, 81)],
    [(6, 27), (2, 81)],
    [(5, 81)],
]
SMALL = [[(9, 1), (3, 3), (1, 9)], [(3, 3), (1, 9)], [(3, 9)]]  # R=9, η=3


def paper(table, curve, num_trials, fails=lambda trial, resource: False):
    """Who reports at each (bracket, resource): get configurations, train, keep the best, again.

    What the paper does not say: a trial that fails leaves its rung, and a rung that fewer trials
    reach than foreseen keeps the same share of them, but at least one.
    """
    reached, first, bracket = {}, 0, 0
    while first < num_trials:
        levels = table[bracket % len(table)]
        alive = list(range(first, min(first + levels[0][0], num_trials)))
        first += levels[0][0]
        for i, (n_here, resource) in enumerate(levels):
            n_joined = len(alive)
            alive = [trial for trial in alive if not fails(trial, resource)]
            if alive:
                reached[bracket, resource] = set(alive)
            n_next = levels[i + 1][0] if i + 1 < len(levels) else 0
            n_kept = n_next if n_joined == n_here else max(1, n_joined * n_next // n_here)
            losses = sorted((curve(trial, resource), trial) for trial in alive)
            alive = [trial for _, trial in losses[:n_kept]]
        bracket += 1
    return reached


def as_sets(reached):
    return {place: set(trials) for place, trials in reached.items()}


@pytest.mark.parametrize("n_workers", [1, 7, 60, 300])
def test_hyperband_keeps_the_trials_that_the_paper_keeps(n_workers):
    num_trials = 81 + 27 + 9 + 6 + 5 + 81  # all brackets, and the first once more
    curve = noisy_curve(3)
    study = Driver(Hyperband(max_t=81), curve, num_trials, n_workers, seed=n_workers).run()
    assert as_sets(study.reached) == paper(TABLE_1, curve, num_trials)
    assert not study.trials


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n_workers=st.integers(1, 20),
    num_trials=st.integers(1, 40),
    n_levels=st.integers(2, 50),
    failing=st.sampled_from([0.0, 0.0, 0.2, 0.7]),
)
def test_any_order_of_arrival_keeps_the_same_trials(seed, n_workers, num_trials, n_levels, failing):
    def curve(trial, resource):
        return round(noisy_curve(seed)(trial, resource) * n_levels)

    mishaps = Mishaps(fails=failing, lost=0.1, slow_saves=0.5, forgotten=0.3)
    study = Driver(Hyperband(max_t=9), curve, num_trials, n_workers, seed, mishaps).run()
    if not failing:
        assert sorted(study.ended) == list(range(num_trials))
    assert as_sets(study.reached) == paper(SMALL, curve, num_trials, study.fails)
    assert not study.trials, "a bracket left somebody paused"


@pytest.mark.parametrize("num_trials", range(1, 10))
def test_a_bracket_that_is_not_filled_comes_to_an_end(num_trials):
    curve = noisy_curve(num_trials)
    study = Driver(SuccessiveHalving(max_t=9), curve, num_trials, n_workers=4).run()
    assert not study.trials
    assert as_sets(study.reached) == paper(SMALL[:1], curve, num_trials)
    assert (Status.COMPLETED, 9) in study.ended.values()


# -- scripts of events ---------------------------------------------------------------------------


class Script:
    """One small bracket (4 trials to 1, 2 of them to 2, one to 4), played by hand."""

    def __init__(self, scheduler=None):
        self.scheduler = scheduler or SuccessiveHalving(max_t=4, reduction_factor=2)
        self.trials = {}

    def ask(self, can_start=True):
        return self.scheduler.next_action(self.trials, can_start)

    def start(self, *numbers):
        for number in numbers:
            action = self.ask()
            assert isinstance(action, Start)
            self.trials[number] = a_trial(number, action.until, bracket=action.bracket)
            self.scheduler.on_launch(self.trials[number])

    def report(self, number, loss, status=Status.PAUSED):
        trial = self.trials[number]._replace(resource=self.trials[number].until, status=status)
        decision = self.scheduler.on_report(trial, a_report(trial.until, loss))
        self.trials[number] = trial
        return decision

    def resume(self, number, until):
        self.trials[number] = self.trials[number]._replace(until=until, status=Status.RUNNING)
        self.scheduler.on_launch(self.trials[number])

    def end(self, number, status=Status.FAILED):
        self.scheduler.on_end(self.trials.pop(number)._replace(status=status))

    def set_status(self, number, status):
        self.trials[number] = self.trials[number]._replace(status=status)


def test_trials_pause_until_their_rung_is_full():
    play = Script()
    play.start(0, 1, 2, 3)
    assert [play.report(n, loss) for n, loss in [(2, 1.0), (0, 5.0), (3, 2.0)]] == [Pause()] * 3


@pytest.mark.parametrize(
    ("loss", "decision", "consequences"),
    [
        (1.5, Continue(until=2), [Discard(3, LOST), Discard(0, LOST), Resume(2, until=2)]),
        (9.0, Stop(LOST), [Discard(0, LOST), Resume(2, until=2), Resume(3, until=2)]),
        (2.0, Continue(until=2), [Discard(3, LOST), Discard(0, LOST), Resume(2, until=2)]),  # tie
    ],
)
def test_the_last_report_of_a_rung_judges_it(loss, decision, consequences):
    play = Script()
    play.start(0, 1, 2, 3)
    for number, others in [(2, 1.0), (0, 5.0), (3, 2.0)]:
        play.report(number, others)
    assert play.report(1, loss) == decision
    if isinstance(decision, Stop):
        play.end(1, Status.STOPPED)
    else:
        play.set_status(1, Status.RUNNING)
    assert consequences_of(play) == consequences


def consequences_of(play):
    """What the scheduler wants done before it starts another trial; it is done."""
    wanted = []
    while not isinstance(action := play.ask(), Start):
        wanted.append(action)
        match action:
            case Discard(number):
                play.end(number, Status.STOPPED)
            case Resume(number, until):
                play.resume(number, until)
    return wanted


def test_losers_are_discarded_before_winners_are_resumed():
    play = Script()
    play.start(0, 1, 2, 3)
    for number in range(4):
        play.report(number, loss=float(number))
    kinds = [type(action) for action in consequences_of(play)]
    assert kinds == sorted(kinds, key=lambda kind: kind is Resume)


def test_a_failure_may_be_what_fills_a_rung():
    play = Script()
    play.start(0, 1, 2, 3)
    for number in range(3):
        play.report(number, loss=float(number))
    assert isinstance(play.ask(can_start=False), Wait)
    play.end(3)
    assert consequences_of(play) == [Discard(2, LOST), Resume(0, until=2), Resume(1, until=2)]


def test_a_trial_whose_pause_could_not_be_saved_leaves_its_place_to_the_next():
    play = Script()
    play.start(0, 1, 2, 3)
    play.report(0, loss=0.0, status=Status.RUNNING)
    play.end(0)
    for number in (1, 2):
        play.report(number, loss=float(number))
    assert play.report(3, loss=3.0) == Stop(LOST)
    play.end(3, Status.STOPPED)
    assert consequences_of(play) == [Resume(1, until=2), Resume(2, until=2)]


def test_a_paused_trial_that_somebody_else_stops_does_not_close_its_rung():
    play = Script()
    play.start(0, 1, 2)
    play.report(0, loss=0.0)
    play.end(0, Status.STOPPED)
    assert play.ask() == Start(until=1)
    play.start(3)
    for number in (1, 2, 3):
        play.report(number, loss=float(number))
    play.end(3, Status.STOPPED)
    assert consequences_of(play) == [Resume(1, until=2), Resume(2, until=2)]


@pytest.mark.parametrize("status", [Status.RUNNING, Status.QUEUED])
def test_nothing_is_asked_of_a_trial_whose_checkpoint_is_being_written(status):
    play = Script()
    play.start(0, 1, 2, 3)
    for number in range(4):
        play.report(number, loss=float(number), status=status)
    play.trials.pop(3)  # it was told to stop
    assert play.ask(can_start=False) == Wait()
    assert play.ask() == Start(until=1, bracket=1)
    play.set_status(1, Status.PAUSED)
    assert play.ask() == Resume(1, until=2)


def test_a_winner_that_failed_below_is_not_waited_for():
    play = Script()
    play.start(0, 1, 2, 3)
    for number in range(3):
        play.report(number, loss=float(number))
    play.end(3)
    play.end(2, Status.STOPPED)
    play.resume(0, until=2)
    play.report(0, loss=0.0)
    play.end(1)  # a winner, before it was resumed: the next rung has one trial only
    assert play.ask(can_start=False) == Resume(0, until=4)


def test_a_new_bracket_begins_while_the_last_one_waits():
    play = Script()
    play.start(0, 1, 2, 3)
    assert play.ask() == Start(until=1, bracket=1)


def test_an_earlier_bracket_goes_on_before_a_later_one_is_filled():
    play = Script()
    play.start(0, 1, 2, 3, 4, 5)
    for number in range(4):
        play.report(number, loss=float(number))
    play.end(3, Status.STOPPED)
    play.set_status(2, Status.PAUSED)
    assert play.ask() == Discard(2, LOST)


def test_brackets_that_overlap_do_not_mix_their_trials():
    curve = noisy_curve(8)
    study = Driver(SuccessiveHalving(max_t=9), curve, num_trials=36, n_workers=25, seed=1).run()
    begun = [record.bracket for record in study.records if isinstance(record, Suggested)]
    assert begun[:25] == [0] * 9 + [1] * 9 + [2] * 7
    assert as_sets(study.reached) == paper(SMALL[:1], curve, 36)


# -- when trials run out, and when there are more after all --------------------------------------


def test_a_rung_that_nobody_can_join_keeps_its_share():
    play = Script(SuccessiveHalving(max_t=4, reduction_factor=2, num_configs=8))
    play.start(0, 1, 2, 3)  # of 8
    for number in range(4):
        play.report(number, loss=float(number))
    wanted = []
    for _ in range(4):
        wanted.append(action := play.ask(can_start=False))
        if isinstance(action, Discard):
            play.end(action.trial, Status.STOPPED)
        else:
            play.resume(action.trial, action.until)
    assert [action.trial for action in wanted] == [2, 3, 0, 1]  # 4·4/8 go on


def test_being_asked_while_no_trial_can_start_judges_nothing():
    play = Script()
    play.start(0, 1)
    play.report(0, loss=5.0)
    play.report(1, loss=6.0)
    assert play.ask(can_start=False) == Discard(1, LOST)  # the study ends before this is done
    play.start(2, 3)
    play.report(2, loss=7.0)
    assert play.report(3, loss=8.0) == Stop(LOST)
    play.end(3, Status.STOPPED)
    assert consequences_of(play) == [Discard(2, LOST), Resume(0, until=2), Resume(1, until=2)]


@pytest.mark.parametrize("carried_out", ["discard", "resume"])
def test_a_bracket_that_was_judged_takes_no_more_trials(carried_out):
    play = Script()
    play.start(0, 1)
    play.report(0, loss=5.0)
    play.report(1, loss=6.0)
    play.end(1, Status.STOPPED)
    if carried_out == "resume":
        play.resume(0, until=2)
        assert play.ask() == Start(until=1, bracket=1)
    else:
        assert play.ask() == Resume(0, until=2)


@pytest.mark.parametrize("first", [1, 5, 8, 9, 12])
def test_a_study_may_be_extended_when_it_was_over(first):
    study = Driver(SuccessiveHalving(max_t=9), noisy_curve(2), num_trials=first, n_workers=3)
    study.run().extend(first + 18).run()
    assert sorted(study.ended) == list(range(first + 18))


def test_finished_brackets_are_forgotten():
    mishaps = Mishaps(fails=0.3, lost=0.1, slow_saves=0.5)
    study = Driver(Hyperband(max_t=9), noisy_curve(0), 15 * 50, 4, mishaps=mishaps)
    study.run()
    assert len(vars(study.scheduler)["_open"]) <= 1


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"num_configs": 8},
            ValueError,
            "num_configs=8 must be at least 9: fewer leave no trial",
        ),
        ({"num_configs": 9.0}, TypeError, "num_configs=9.0 must be an int"),
        ({"reduction_factor": 1}, ValueError, "reduction_factor=1 must be at least 2"),
        ({"grace_period": 10}, ValueError, "max_t=9 is below grace_period=10"),
        ({"compare": "worst"}, ValueError, "compare='worst' must be"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_be_right(options, error, message):
    with pytest.raises(error, match=message):
        SuccessiveHalving(**{"max_t": 9, **options})


def test_a_bracket_has_as_many_trials_as_leave_one_unless_told_otherwise():
    assert "num_configs=27" in repr(SuccessiveHalving(max_t=30, reduction_factor=3))
