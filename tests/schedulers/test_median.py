"""The median stopping rule against a naive one, and around every other scheduler."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskhpo.core.types import Continue, Report, Resume, Start, Status, Stop
from daskhpo.schedulers import ASHA, FIFO, Hyperband, MedianStopping, SuccessiveHalving
from daskhpo.testing.driver import EVERYTHING_GOES_WRONG, Driver, a_trial, noisy_curve
from daskhpo.testing.scheduler import SchedulerContract

HOPELESS = Stop("worse than the median of the running averages")
NEVER = 10**9  # min_samples with which nobody is ever stopped

INNER = {
    "fifo": lambda: FIFO(max_t=9),
    "asha, stopping": lambda: ASHA(max_t=9),
    "asha, promotion": lambda: ASHA(max_t=9, variant="promotion"),
    "asha, brackets": lambda: ASHA(max_t=9, brackets=3, compare="best"),
    "halving": lambda: SuccessiveHalving(max_t=9),
    "hyperband": lambda: Hyperband(max_t=9, compare="best"),
}


class TestAroundFifoContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: MedianStopping(FIFO(max_t=9), grace_period=2)


class TestAroundPromotionContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: MedianStopping(ASHA(max_t=9, variant="promotion"), interval=2)


class TestAroundHyperbandContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: MedianStopping(Hyperband(max_t=9), min_samples=5)


# -- the rule ------------------------------------------------------------------------------------


def naive_stops(curve, num_trials, max_t, grace_period, interval, min_samples):
    """Where each trial is stopped if they run one after another; max_t: never."""
    ends, averages = [], {}
    for trial in range(num_trials):
        for t in range(1, max_t + 1):
            if t < max_t and (t < grace_period or t % interval):
                continue
            losses = [curve(trial, r) for r in range(1, t + 1)]
            others = averages.setdefault(t, [])
            stop = len(others) >= min_samples and min(losses) > statistics.median(others)
            others.append(sum(losses) / t)
            if stop or t == max_t:
                ends.append(t)
                break
    return ends


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    grace_period=st.integers(1, 6),
    interval=st.integers(1, 4),
    min_samples=st.integers(1, 5),
)
def test_one_after_another_trials_end_where_the_naive_rule_ends_them(
    seed, grace_period, interval, min_samples
):
    def curve(trial, resource):  # sixteenths: sums are exact in any order
        return round(noisy_curve(seed)(trial, resource) * 16) / 16

    rule = MedianStopping(FIFO(max_t=9), grace_period, interval, min_samples)
    study = Driver(rule, curve, num_trials=12).run()
    expected = naive_stops(curve, 12, 9, grace_period, interval, min_samples)
    assert [study.ended[trial][1] for trial in range(12)] == expected


def told(rule, trial, resource, *losses, best=None):
    """What a trial is told that reports these losses, the last one at the resource."""
    report = Report(resource, losses, min(losses) if best is None else best)
    return rule.on_report(a_trial(trial, until=resource, resource=resource), report)


def rule_for(num_trials, **options):
    """The rule around FIFO, with so many trials running."""
    rule = MedianStopping(FIFO(max_t=9), **{"min_samples": 3, **options})
    for number in range(num_trials):
        rule.next_action({}, can_start=True)
        rule.on_launch(a_trial(number))
    return rule


@pytest.mark.parametrize(
    ("loss", "decision"),
    [(2.1, HOPELESS), (2.0, Continue(until=2)), (1.9, Continue(until=2))],
)
def test_a_trial_strictly_worse_than_the_median_stops(loss, decision):
    rule = rule_for(4)
    for number, others in enumerate([1.0, 2.0, 3.0]):
        told(rule, number, 1, others)
    assert told(rule, 3, 1, loss) == decision


def test_nobody_stops_before_there_are_enough_others():
    rule = rule_for(4, min_samples=4)
    assert [told(rule, n, 1, float(n)) for n in range(4)] == [Continue(until=2)] * 4


def test_nobody_stops_at_the_end():
    rule = rule_for(5)
    assert {told(rule, n, 9, float(n)) for n in range(5)} == {Stop("fully trained")}


def test_the_best_loss_of_a_trial_counts_and_the_average_of_the_others():
    rule = rule_for(4)
    for number in range(3):
        told(rule, number, 3, 3.0, 2.0, 1.0)  # on average 2
    assert told(rule, 3, 3, 5.0, 2.0, 9.0) == Continue(until=4)


@pytest.mark.parametrize(
    ("grace_period", "interval", "first_questions"),
    [(1, 1, [1, 2, 3]), (4, 1, [4, 5, 6]), (1, 3, [3, 6, 9]), (4, 3, [6, 9]), (9, 2, [9])],
)
def test_the_rule_is_asked_at_multiples_of_the_interval_after_the_grace_period(
    grace_period, interval, first_questions
):
    rule = MedianStopping(FIFO(max_t=9), grace_period, interval)
    study = Driver(rule, noisy_curve(0), num_trials=1).run()
    asked = [resource for _, resource in study.reports]
    assert asked[: len(first_questions)] == first_questions


def test_a_resumed_trial_is_asked_on_its_way_too():
    rule = MedianStopping(ASHA(max_t=9, variant="promotion"), interval=1)
    for number in range(3):
        assert rule.next_action({}, can_start=True) == Start(until=1)
        rule.on_launch(a_trial(number))
        told(rule, number, 1, 1.0)
    trials = {n: a_trial(n, resource=1, status=Status.PAUSED) for n in range(3)}
    assert rule.next_action(trials, can_start=True) == Resume(0, until=2)


# -- around the others ---------------------------------------------------------------------------


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("interval", [2, 4])
def test_the_inner_scheduler_decides_as_if_alone_when_nobody_is_stopped(inner, interval):
    curve = noisy_curve(7)
    alone = Driver(INNER[inner](), curve, num_trials=40).run()
    rule = MedianStopping(INNER[inner](), interval=interval, min_samples=NEVER)
    around = Driver(rule, curve, num_trials=40).run()
    ends = {resource for _, resource in alone.reached}
    reached = {place: trials for place, trials in around.reached.items() if place[1] in ends}
    assert reached == alone.reached
    assert around.ended == alone.ended
    assert set(around.trials) == set(alone.trials)


class Witness(FIFO):
    """Remembers the reports it is shown."""

    def __init__(self, max_t):
        super().__init__(max_t)
        self.seen = []

    def on_report(self, trial, report):
        self.seen.append((trial.id, trial.until, report))
        return super().on_report(trial, report)


def test_the_inner_scheduler_sees_its_segments_whole():
    def curve(trial, resource):
        return float(10 * trial + resource)

    rule = MedianStopping(Witness(max_t=5), interval=2, min_samples=NEVER)
    study = Driver(rule, curve, num_trials=2).run()
    losses = [tuple(curve(n, r) for r in range(1, 6)) for n in range(2)]
    seen = vars(study.scheduler)["_inner"].seen
    seconds = 3.0  # of three segments, with one event each
    expected = [(n, 5, Report(5, losses[n], losses[n][0], seconds)) for n in range(2)]
    assert seen == expected


def test_after_an_exploit_the_inner_scheduler_sees_nothing_of_the_state_before():
    rule = MedianStopping(Witness(max_t=6), interval=2, min_samples=NEVER)
    rule.next_action({}, can_start=True)
    rule.on_launch(a_trial(0))
    assert told(rule, 0, 2, 9.0, 8.0) == Continue(until=4)  # it fails before it comes to 6
    rule.on_exploit(a_trial(0, resource=3, status=Status.PAUSED), source=1)
    told(rule, 0, 6, 3.0, 2.0, 1.0)
    assert [report.losses for _, _, report in vars(rule)["_inner"].seen] == [(3.0, 2.0, 1.0)]


def test_who_takes_over_a_state_takes_over_its_running_average():
    rule = MedianStopping(Witness(max_t=9), grace_period=2, min_samples=2)
    for trial in (0, 1, 2):
        rule.next_action({}, can_start=True)
        rule.on_launch(a_trial(trial))
    told(rule, 0, 2, 1.0, 1.0)
    told(rule, 1, 2, 9.0, 9.0)
    rule.on_exploit(a_trial(1, resource=2, status=Status.PAUSED), source=0)
    told(rule, 0, 3, 1.0)
    told(rule, 1, 3, 1.0)
    assert told(rule, 2, 2, 2.0, 2.0) == Continue(until=3)  # others': 1 and 9
    assert told(rule, 2, 3, 2.0) == HOPELESS  # others': 1 and 1


@pytest.mark.parametrize("inner", ["halving", "hyperband"])
@pytest.mark.parametrize("seed", range(5))
def test_a_rung_does_not_wait_for_trials_that_the_rule_stopped(inner, seed):
    rule = MedianStopping(INNER[inner](), interval=1, min_samples=2)
    study = Driver(rule, noisy_curve(seed), num_trials=45, n_workers=6, seed=seed).run()
    assert not study.trials
    assert sorted(study.ended) == list(range(45))


@pytest.mark.parametrize("inner", INNER)
def test_nothing_is_kept_of_trials_that_ended(inner):
    rule = MedianStopping(INNER[inner](), min_samples=2)
    study = Driver(rule, noisy_curve(1), 60, n_workers=5, mishaps=EVERYTHING_GOES_WRONG).run()
    for name in ("_sums", "_unseen", "_until"):
        assert set(vars(study.scheduler)[name]) <= set(study.trials)


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scheduler": 9}, TypeError, "scheduler=9 must be a scheduler, such as"),
        ({"scheduler": FIFO}, TypeError, "must be a scheduler"),
        ({"grace_period": 0}, ValueError, "grace_period=0 must be at least 1"),
        ({"interval": 0.5}, ValueError, "interval=0.5 must be an int of at least 1"),
        ({"min_samples": 0}, ValueError, "min_samples=0 must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_be_right(options, error, message):
    with pytest.raises(error, match=message):
        MedianStopping(**{"scheduler": FIFO(max_t=9), **options})


def test_its_repr_names_the_inner_scheduler():
    assert "ASHA(max_t=9" in repr(MedianStopping(ASHA(max_t=9)))
