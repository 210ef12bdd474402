"""PBT and PB2 on a problem whose best schedule is known."""

from __future__ import annotations

import math

import pytest

from daskhpo.engine.replay import replay
from daskhpo.schedulers import FIFO, PB2, PBT
from daskhpo.testing.journal import MemoryJournal
from tests.schedulers.known_schedule import NoisyQuadratic, best_constant, populate

N_UNITS = 240
QUADRATIC = NoisyQuadratic()


def test_the_best_rate_is_better_than_its_neighbours_at_every_loss():
    for loss in (10.0, 1.0, 0.1, 0.01):
        best = QUADRATIC.best_rate(loss)
        for other in (0.99 * best, 1.01 * best):
            assert QUADRATIC.step(loss, best) < QUADRATIC.step(loss, other)


def test_a_lower_loss_never_ends_in_a_higher_one():
    for rate in (0.001, 0.1, 0.5, 1.0):
        assert QUADRATIC.step(0.9, rate) <= QUADRATIC.step(1.0, rate)


def test_the_best_schedule_ends_where_the_formula_says():
    loss = QUADRATIC.initial
    for _ in range(N_UNITS):
        loss = QUADRATIC.step(loss, QUADRATIC.best_rate(loss))
    assert loss == pytest.approx(QUADRATIC.best_loss(N_UNITS))


@pytest.fixture(scope="module")
def constant():
    """The loss of the best constant rate: 2.5 times that of the best schedule."""
    loss, _ = best_constant(N_UNITS)
    assert loss > 2 * QUADRATIC.best_loss(N_UNITS)
    return loss


def make(kind, **options):
    return kind(N_UNITS, 4, ["lr"], **options)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("synchronous", [False, True])
def test_pbt_comes_near_the_best_schedule_and_beats_every_constant_rate(
    constant, seed, synchronous
):
    scheduler = make(PBT, synchronous=synchronous)
    found = populate(scheduler, seed=seed, population=16, n_slots=5, jitter=0.02)
    assert found.winner.loss < 0.6 * constant
    assert found.distance < math.log(1.9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("population", "n_slots"), [(4, 2), (8, 3)])
def test_pb2_does_so_with_a_smaller_population(constant, seed, population, n_slots):
    found = populate(make(PB2), seed=seed, population=population, n_slots=n_slots, jitter=0.02)
    assert found.winner.loss < 0.55 * constant
    assert found.distance < math.log(1.9)


def test_who_never_exploits_does_not(constant):
    found = populate(FIFO(N_UNITS), population=16, n_slots=5)
    assert found.winner.loss > 0.999 * constant
    assert found.distance > 1


@pytest.mark.slow
def test_the_winner_s_rate_falls_from_the_largest_to_the_smallest():
    rates = populate(make(PB2), population=8, n_slots=3).winner.rates
    parts = [rates[i : i + 48] for i in range(0, N_UNITS, 48)]
    means = [math.exp(sum(map(math.log, part)) / len(part)) for part in parts]
    assert means == sorted(means, reverse=True)
    assert means[0] > 10 * means[-1]


@pytest.mark.parametrize("kind", [PBT, PB2])
def test_a_study_replays_and_repeats(kind):
    first, second = (populate(kind(40, 4, ["lr"]), seed=3, population=6) for _ in range(2))
    assert first.journal.records == second.journal.records
    tail = MemoryJournal()
    replay(first.problem, first.journal.records, tail)
    assert tail.records == []
