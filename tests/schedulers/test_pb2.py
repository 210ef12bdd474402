from __future__ import annotations

import re
from itertools import islice
from math import inf

import numpy as np
import pytest

from daskhpo.core.domains import Categorical, Integer, Ordinal, Real
from daskhpo.core.events import Exploited, Failed
from daskhpo.core.gp import GaussianProcess
from daskhpo.core.space import Space
from daskhpo.core.types import Pause, Report, Status, Trial
from daskhpo.schedulers import PB2
from daskhpo.schedulers.explore import Perturb
from daskhpo.schedulers.pb2 import (
    N_NEWEST,
    SIGNAL_PRIOR,
    Bandit,
    _bound,
    _distances,
    _Kernel,
    _scores,
    _signal,
)
from daskhpo.testing.driver import Mishaps, a_report
from daskhpo.testing.scheduler import drive
from tests.schedulers.test_pbt import Contract

LR = Real(1e-4, 1.0, log=True)
SPACE = Space({"lr": LR, "batch": Ordinal([16, 32, 64]), "kind": "a"})


def a_pb2(**options) -> PB2:
    scheduler = PB2(**{"max_t": 20, "perturbation_interval": 5, "mutations": ["lr"]} | options)
    scheduler.setup(SPACE, 0)
    return scheduler


@pytest.mark.slow
class TestAsynchronous(Contract):
    @pytest.fixture
    def make(self):
        return a_pb2


@pytest.mark.slow
class TestSynchronous(Contract):
    @pytest.fixture
    def make(self):
        return lambda: a_pb2(synchronous=True)


class Learner:
    """A bandit that is told of intervals in which the loss fell as a function of the rate says.

    Members' rates lie evenly on the unit scale, and each keeps its rate.
    """

    def __init__(self, n: int = 9, seed: int = 0, **domains) -> None:
        self.bandit = Bandit(interval=5)
        self.bandit.setup({"lr": LR} | domains, seed)
        self.rest = {name: domain.from_unit(0.5) for name, domain in domains.items()}
        self.rates = np.linspace(0, 1, n).tolist()
        self.losses = [100.0] * n
        self.resource = 0
        self.advance(lambda u: 0.0)

    def config(self, u: float) -> dict:
        return self.rest | {"lr": LR.from_unit(u)}

    def trial(self, number: int, u: float) -> Trial:
        at = self.resource
        return Trial(number, self.config(u), Status.RUNNING, until=at + 5, resource=at)

    def advance(self, gain, n_intervals: int = 1) -> Learner:
        for _ in range(n_intervals):
            for number, u in enumerate(self.rates):
                self.losses[number] -= gain(u)
                report = a_report(self.resource + 5, self.losses[number])
                self.bandit.on_report(self.trial(number, u), report, report.loss)
            self.resource += 5
        return self

    def meet(self) -> None:
        """All go on from the state of one, with their own rates."""
        self.losses = [self.losses[4]] * len(self.losses)
        for number, u in enumerate(self.rates):
            if number != 4:
                self.bandit.on_exploit(self.trial(number, u), source=4)

    def explored(self, member: int = 0, n_exploits: int = 0, source: int = 4) -> dict:
        config = self.config(self.rates[source])
        return next(self.bandit.candidates(member, n_exploits, config, source))

    def place(self, **options) -> float:
        return LR.to_unit(self.explored(**options)["lr"])


def peak(at: float):
    return lambda u: 1 - (u - at) ** 2


@pytest.mark.parametrize("at", [0.0, 0.3, 0.72, 1.0])
def test_it_chooses_what_let_the_loss_fall_most(at):
    learner = Learner().advance(peak(at), 6)
    places = [learner.place(n_exploits=n) for n in range(5)]
    assert abs(np.mean(places) - at) < 0.07


def test_what_was_best_long_ago_is_forgotten():
    learner = Learner().advance(peak(0.2), 5).advance(peak(0.8), 5)
    assert abs(learner.place() - 0.8) < 0.1


def test_early_changes_that_were_large_do_not_hide_late_ones_that_are_small():
    learner = Learner()
    for n in range(10):
        learner.advance(peak(0.2) if n < 5 else lambda u: 1e-6 * peak(0.8)(u))
        learner.meet()
    assert abs(learner.place() - 0.8) < 0.1


def test_a_loss_that_grows_beyond_measure_does_not_hide_the_others():
    def gain(u: float) -> float:
        return -1e300 if u > 0.9 else peak(0.3)(u)

    assert abs(Learner().advance(gain, 6).place() - 0.3) < 0.1


def test_what_others_are_trying_is_not_tried_again():
    """Members that explore at once spread; were they not told of each other they would not."""

    def gap(told: bool) -> float:
        learner = Learner(n=3).advance(peak(0.5))
        first = learner.place(member=1, source=0)
        if told:
            learner.bandit.on_exploit(learner.trial(1, first), source=0)
        return abs(learner.place(member=2, source=0) - first)

    assert gap(told=False) < 0.02
    assert gap(told=True) > 0.08


def test_what_is_best_may_depend_on_the_loss():
    """Of members that train side by side, those with high losses need other rates."""
    learner = Learner()
    rates, losses = learner.rates * 2, [1000.0] * 9 + [1.0] * 9
    for _ in range(5):
        for number, u in enumerate(rates):
            losses[number] -= peak(0.8 if number < 9 else 0.2)(u) / 100
            report = a_report(learner.resource + 5, losses[number])
            learner.bandit.on_report(learner.trial(number, u), report, report.loss)
        learner.resource += 5
    assert abs(learner.place(member=99, source=4) - 0.8) < 0.15
    learner.rates = rates
    assert abs(learner.place(member=99, source=13) - 0.2) < 0.15


def test_who_ended_is_not_counted_among_those_who_try_something():
    learner = Learner().advance(peak(0.5))
    learner.bandit.on_end(learner.trial(3, 0.3))
    assert 3 not in learner.bandit._starts


def test_what_failed_is_kept_away_from():
    learner = Learner(n=6)
    for _ in range(3):
        learner.advance(lambda u: u)  # the larger the better, but for the largest
        learner.bandit.on_failure(learner.trial(5, 1.0))
    assert 0.3 < learner.place(source=4) < 0.95
    assert Learner(n=6).advance(lambda u: u, 3).place(source=4) > 0.95


def test_a_member_that_could_not_be_paused_has_not_failed_to_learn():
    learner = Learner()
    n_before = len(learner.bandit._segments)
    learner.bandit.on_failure(learner.trial(0, 0.0)._replace(decision=Pause()))
    assert len(learner.bandit._segments) == n_before


def test_of_a_first_segment_the_change_since_its_first_unit_is_learnt():
    bandit = Bandit(interval=3)
    bandit.setup({"lr": LR}, 0)
    trial = Trial(0, {"lr": 0.1}, Status.RUNNING, until=3)
    bandit.on_report(trial, a_report(3, 1.0), 1.0)  # one unit of three is known
    assert bandit._segments == []
    bandit.on_report(trial._replace(id=1), Report(3, (5.0, 2.0, 1.0), best_loss=1.0), 1.0)
    assert [segment.gain for segment in bandit._segments] == [2.0]


def test_after_an_exploit_the_change_is_that_from_the_sources_loss():
    learner = Learner().advance(peak(0.5))
    learner.losses[4] = 50.0
    report = a_report(learner.resource + 5, 50.0)
    learner.bandit.on_report(learner.trial(4, 0.5), report, 50.0)
    learner.resource += 5
    learner.bandit.on_exploit(learner.trial(0, 0.1), source=4)
    learner.bandit.on_report(learner.trial(0, 0.1), a_report(learner.resource + 5, 40.0), 40.0)
    newest = learner.bandit._segments[-1]
    assert (newest.start.resource, newest.start.loss, newest.gain) == (15, 50.0, 2.0)
    assert newest.start.point == pytest.approx((0.1,))


def test_before_anything_is_known_it_explores_as_pbt():
    domains = {"lr": LR, "batch": Ordinal([16, 32, 64])}
    bandit, perturb = Bandit(interval=5), Perturb(0.25)
    bandit.setup(domains, 7)
    perturb.setup(domains, 7)
    config = {"lr": 0.01, "batch": 32}
    for n in range(10):
        few, usual = (e.candidates(1, n, config, 0) for e in (bandit, perturb))
        assert list(islice(few, 3)) == list(islice(usual, 3))


def test_ints_are_chosen_too_and_the_others_are_explored_as_by_pbt():
    learner = Learner(
        layers=Integer(1, 9), batch=Ordinal([16, 32, 64]), kind=Categorical(["a", "b"])
    ).advance(peak(0.7), 4)
    perturb = Perturb(0.25)
    perturb.setup(learner.bandit._perturb._domains, 0)
    config = learner.config(0.5)
    for n in range(10):
        new = next(learner.bandit.candidates(0, n, config, 4))
        usual = next(perturb.candidates(0, n, config, 4))
        assert (new["batch"], new["kind"]) == (usual["batch"], usual["kind"])
        assert type(new["layers"]) is int
        assert 1 <= new["layers"] <= 9
        assert LR.contains(new["lr"])
        assert new["lr"] != usual["lr"]


def test_what_is_chosen_depends_on_the_seed_the_member_and_how_often_it_exploited():
    def place(seed: int, **options) -> float:
        return Learner(n=3, seed=seed).advance(peak(0.5)).place(source=1, **options)

    assert place(0, member=5) == place(0, member=5)
    others = [place(1, member=5), place(0, member=6), place(0, member=5, n_exploits=1)]
    assert place(0, member=5) not in others


def test_values_outside_domains_of_their_own_are_not_learnt_and_not_chosen():
    learner = Learner()
    domain = Real(1e-2, 1e-1, log=True)
    learner.bandit.setup({"lr": domain}, 0)
    learner.bandit._segments.clear()
    learner.advance(peak(0.9), 4)
    assert {s.start.point is None for s in learner.bandit._segments} == {False}
    inside = [u for u in learner.rates if domain.contains(LR.from_unit(u))]
    assert 0 < len(learner.bandit._segments) == 4 * len(inside)
    assert domain.contains(learner.explored()["lr"])


def test_no_more_than_the_newest_segments_are_kept():
    learner = Learner(n=10).advance(peak(0.5), N_NEWEST // 10 + 5)
    assert len(learner.bandit._segments) == N_NEWEST
    assert learner.bandit._segments[-1].start.resource == learner.resource - 5


def test_a_population_of_four_is_enough():
    study = drive(a_pb2(quantile_fraction=0.25), num_trials=4, n_workers=2)
    assert all(ended == (Status.COMPLETED, 20) for ended in study.ended.values())
    assert any(isinstance(record, Exploited) for record in study.records)


def test_failing_members_are_rescued():
    study = drive(a_pb2(), mishaps=Mishaps(fails=0.1), num_trials=12)
    rescued = {r.trial for r in study.records if isinstance(r, Failed) and r.paused}
    completed = {n for n, (status, _) in study.ended.items() if status is Status.COMPLETED}
    assert completed & rescued


def test_its_repr_is_its_constructor():
    assert repr(PB2(20, 5, ["lr"])) == (
        "PB2(max_t=20, perturbation_interval=5, mutations=('lr',), quantile_fraction=0.25, "
        "synchronous=False, compare='last')"
    )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"mutations": ["batch"]}, ValueError, "none of batch is a Real or an Integer"),
        ({"mutations": ["depth"]}, ValueError, "'depth' is not in the space"),
        ({"mutations": []}, TypeError, "names of hyperparameters"),
        ({"perturbation_interval": 0}, ValueError, "must be at least 1"),
        ({"quantile_fraction": 0.6}, ValueError, "must be above 0 and at most 0.5"),
        ({"compare": "first"}, ValueError, "'last' or 'best'"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        a_pb2(**options)


# -- the model, against the formulas as they stand in books --------------------------------------


def some_inputs(n: int, seed: int = 0) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.column_stack([generator.random((n, 2)), generator.integers(0, 9, n)])


KERNEL = _Kernel(length=0.4, epsilon=0.2, noise=0.1)


def covariances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array(
        [
            [
                np.exp(-np.sum((x - y) ** 2) / (2 * 0.4**2)) * 0.8 ** (abs(t - u) / 2)
                for y, u in zip(b[:, :2], b[:, 2], strict=True)
            ]
            for x, t in zip(a[:, :2], a[:, 2], strict=True)
        ]
    )


def test_the_kernel_is_that_of_the_paper():
    a, b = some_inputs(5), some_inputs(4, seed=1)
    assert KERNEL.of(*_distances(a, b)) == pytest.approx(covariances(a, b))


def test_the_likelihood_is_that_of_a_gaussian_process():
    inputs, scores = some_inputs(12), np.linspace(-1, 1, 12)
    covariance = covariances(inputs, inputs)
    variance, likelihood = _signal(GaussianProcess(covariance, 0.1, scores))
    noisy = covariance + 0.1 * np.eye(12)
    quadratic = scores @ np.linalg.solve(noisy, scores)
    n = 12 + SIGNAL_PRIOR
    assert variance == pytest.approx((quadratic + SIGNAL_PRIOR) / n)
    expected = -np.linalg.slogdet(noisy)[1] / 2 - n / 2 * np.log(variance)
    assert likelihood == pytest.approx(expected)


def test_the_bound_is_mean_and_deviation_and_what_is_pending_lessens_the_deviation_only():
    seen, pending, asked = some_inputs(10), some_inputs(3, seed=1), some_inputs(6, seed=2)
    scores = np.linspace(-1, 1, 10)
    noisy = covariances(seen, seen) + 0.1 * np.eye(10)
    mean = covariances(asked, seen) @ np.linalg.solve(noisy, scores)
    both = np.vstack([seen, pending])
    cross = covariances(asked, both)
    known = np.linalg.solve(covariances(both, both) + 0.1 * np.eye(13), cross.T)
    variance, _ = _signal(GaussianProcess(covariances(seen, seen), 0.1, scores))
    deviation = np.sqrt(variance * (1 - np.sum(cross * known.T, axis=1)))
    beta = 0.8 * np.log(4 * (1 + asked[:, 2].max()))
    bound = _bound(KERNEL, seen, scores, pending)(asked)
    assert bound == pytest.approx(mean + np.sqrt(beta) * deviation)


def test_scores_are_ranks_among_those_of_the_same_time():
    times = np.array([0.0, 0, 0, 1, 1, 1, 2])
    gains = np.array([3.0, -inf, 1e300, 5, 5, 5, 7])
    scores = _scores(times, gains)
    assert scores[1] < scores[0] < scores[2]
    assert scores[1] == pytest.approx(-scores[2])
    assert scores[[0, 3, 4, 5, 6]] == pytest.approx(0)
