"""The forest: when it is fitted, when it is trusted, and what it chooses."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest

from daskhpo.core.random import rng
from daskhpo.core.types import Choose, Report, Start, Status, Trial
from daskhpo.searchers import ForestSearch, GPSearch
from daskhpo.searchers.forest.model import LEAST_Z, Rows, fit
from daskhpo.searchers.forest.search import (
    N_CANDIDATES,
    N_NEW,
    TAKEN,
    _Candidates,
    _Pool,
    features,
    keys,
)
from daskhpo.searchers.gp.encoding import Encoding
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space
from daskhpo.testing.searcher import SearcherContract, a_space

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})


class TestContract(SearcherContract):
    @pytest.fixture
    def make(self):
        return ForestSearch


def ready(space=PLANE, seed=0, **options):
    searcher = ForestSearch(**options)
    searcher.setup(space, seed)
    return searcher


def bowl(config):
    return (config["x"] - 0.3) ** 2 + (config["y"] - 0.8) ** 2


def tell(searcher, trial, config, loss, resource=1):
    searcher.on_start(trial, config)
    running = Trial(trial, config, Status.RUNNING, until=resource, resource=resource)
    searcher.observe(running, Report(resource, (loss,), loss))
    return running


def study(searcher):
    """Let the searcher learn; return the numbers of rows of its lessons."""
    learnt = []
    while (lesson := searcher.lesson()) is not None:
        searcher.learn(forest := lesson())
        learnt.append(forest.n_rows)
    return learnt


def told(n=60, function=bowl, seed=1, space=PLANE, **options):
    """A searcher with results of random trials, which has learnt."""
    searcher = ready(space, **options)
    generator = np.random.default_rng(seed)
    for trial in range(n):
        config = space.sample(generator)
        tell(searcher, trial, config, function(config))
    study(searcher)
    return searcher


def choice(resource=1, paused=None, margin=0.0, can_go=lambda trial: True):
    return Choose(Start(1), resource, paused or {}, can_go, margin)


# -- learning ------------------------------------------------------------------------------------


def test_the_forest_is_fitted_first_with_a_few_rows_and_then_when_they_grew_by_a_fifth():
    searcher, learnt = ready(), []
    for trial in range(20):
        config = searcher.explore(trial)
        tell(searcher, trial, config, bowl(config))
        learnt += study(searcher)
    assert learnt == [8, 10, 12, 15, 18]


def test_a_lesson_that_was_missed_is_not_caught_up_with():
    searcher = ready()
    for trial in range(16):
        config = searcher.explore(trial)
        tell(searcher, trial, config, bowl(config))
    assert study(searcher) == [15]  # with the rows that there were when it became due


def test_a_lesson_is_a_computation_of_its_own():
    searcher = told()
    for trial in range(60, 80):
        tell(searcher, trial, config := searcher.explore(trial), bowl(config))
    lesson = searcher.lesson()
    tell(searcher, 80, {"x": 0.5, "y": 0.5}, -1.0)
    before = searcher.choose(81, choice())
    forest = lesson()
    assert forest.n_rows == 70
    assert searcher.choose(81, choice()) == before  # not learnt yet
    searcher.learn(forest)
    assert searcher.choose(81, choice()) != before


def test_a_space_without_hyperparameters_is_never_learnt():
    searcher = ready(Space({"lr": 0.1}))
    for trial in range(50):
        tell(searcher, trial, searcher.suggest(trial), 1.0)
    assert not searcher.trusted
    assert searcher.lesson() is None
    assert searcher.choose(50, choice()) == {"lr": 0.1}


def noise(seed):
    """A function whose values have nothing to do with the configuration."""
    values = iter(np.random.default_rng(seed).random(1000).tolist())
    return lambda config: next(values)


def test_a_model_is_trusted_until_it_can_be_tested():
    assert ready().trusted
    assert told(55, noise(0)).trusted
    assert sum(told(80, noise(seed), seed).trusted for seed in range(8)) <= 2
    assert all(told(80, seed=seed).trusted for seed in range(3))


def test_without_trust_every_suggestion_is_random():
    untrusted = [told(80, noise(seed), seed) for seed in range(4)]
    searcher = next(searcher for searcher in untrusted if not searcher.trusted)
    assert [searcher.suggest(n) for n in range(80, 90)] == [
        searcher.explore(n) for n in range(80, 90)
    ]


def rows(n, loss, repeats=1, seed=0):
    generator = np.random.default_rng(seed)
    points = generator.random((n, 3))
    config = np.repeat(np.arange(n), repeats)
    return Rows(points, config, np.ones(len(config)), loss(points, generator)[config])


def test_repeated_configurations_do_not_vouch_for_each_other():
    def anything(points, generator):
        return generator.random(len(points))

    trusted = [fit(rows(30, anything, 4, seed), rng(seed, "t")).trusted for seed in range(10)]
    assert sum(trusted) <= 3  # by chance one in fifteen is; as if there were 120, one in three


def test_losses_of_failed_trials_rank_last():
    def fails(points, generator):
        return np.where(points[:, 0] < 0.5, math.inf, points[:, 1])

    forest = fit(rows(100, fails), rng(0, "t"))
    good, bad = forest.score(np.array([[0.9, 0.1, 0.5], [0.1, 0.1, 0.5]]), 1)
    assert forest.trusted
    assert good < bad
    assert LEAST_Z > 0


def test_a_failed_trial_counts_and_a_retry_replaces_it():
    searcher = ready()
    for trial in range(4):
        config = searcher.explore(trial)
        searcher.on_start(trial, config)
        searcher.on_end(Trial(trial, config, Status.FAILED, until=3))
    assert [row.loss for row in searcher._rows.values()] == [math.inf] * 4
    tell(searcher, 0, searcher.explore(0), 0.5, resource=3)
    assert [row.loss for row in searcher._rows.values()] == [0.5, *[math.inf] * 3]


def test_a_trial_whose_state_could_not_be_saved_keeps_its_result():
    searcher = ready()
    trial = tell(searcher, 0, searcher.explore(0), 0.5)
    searcher.on_end(trial._replace(status=Status.FAILED))
    assert [row.loss for row in searcher._rows.values()] == [0.5]


# -- choosing ------------------------------------------------------------------------------------


def test_it_chooses_better_than_at_random():
    losses, drawn = [], []
    for seed in range(3):
        searcher = told(60, seed=seed)
        for trial in range(60, 70):
            drawn.append(bowl(searcher.explore(trial)))
            losses.append(bowl(chosen := searcher.choose(trial, choice())))
            searcher.on_start(trial, chosen)
    assert np.median(losses) < 0.2 * np.median(drawn)


def test_a_choice_stands_until_something_happens():
    searcher = told()
    first = searcher.choose(60, choice())
    assert searcher.choose(60, choice()) == first
    searcher.on_start(60, first)
    assert searcher.choose(61, choice()) != first


def test_before_the_first_fit_a_choice_is_random():
    searcher = ready()
    assert searcher.choose(3, choice(paused={0: 3})) == searcher.explore(3)


def test_points_to_evaluate_come_before_any_choice():
    searcher = told(points_to_evaluate=[{"x": 0.5, "y": 0.5}, {"x": 0.1, "y": 0.1}])
    assert searcher.choose(1, choice(paused={2: 3})) == {"x": 0.1, "y": 0.1}


def test_the_candidates_that_replace_taken_ones_are_scored_in_small_parts():
    scored, tried, drawn = [], set(), []
    generator = np.random.default_rng(0)

    def draw(number, n):
        drawn.append((number, n))
        return _Candidates(points := generator.random((n, 1)), points)

    def score(inputs):
        scored.append(len(inputs))
        return inputs[:, 0]

    pool, taken = _Pool(draw, score), []
    for _ in range(3 * TAKEN + 1):
        value, unit = pool.best(tried)
        taken.append(value)
        tried |= set(keys(unit[None]))
    assert drawn == [(0, N_CANDIDATES), (1, N_NEW), (2, N_NEW), (3, N_NEW)]
    assert scored[0] == N_CANDIDATES
    assert max(scored[1:]) <= math.ceil(N_NEW / TAKEN)
    assert sum(scored) == N_CANDIDATES + 3 * N_NEW
    assert len(set(taken)) == len(taken)


def test_a_small_space_is_not_repeated_until_it_was_tried_in_full():
    space = Space({"a": Categorical(["u", "v", "w"]), "b": Ordinal([1, 10, 100]), "c": 3})
    searcher = ready(space)
    configs = []
    for trial in range(15):
        config = searcher.choose(trial, choice())
        configs.append(tuple(config.values()))
        tell(searcher, trial, config, config["b"] + ord(config["a"]))
        study(searcher)
    model = configs[8:]  # the first eight are random
    first = [config for config in model if config not in configs[:8]]
    assert model[: len(first)] == first
    assert len(set(configs)) == 9


def at(x, y, searcher, trial, loss):
    return tell(searcher, trial, {"x": x, "y": y}, loss)


def rescuing():
    """A searcher that has seen two paused trials, 100 near the bottom and 101 far from it."""
    searcher = told(100)
    at(0.31, 0.79, searcher, 100, 0.2)
    at(0.9, 0.1, searcher, 101, 0.9)
    return searcher


def test_a_paused_trial_is_chosen_if_its_score_is_better_by_the_margin():
    searcher = rescuing()
    paused = {100: 3, 101: 3}
    assert searcher.choose(102, choice(paused=paused, margin=-9.0)) == 100
    assert isinstance(searcher.choose(102, choice(paused=paused, margin=9.0)), dict)


def test_a_paused_trial_whose_state_is_being_taken_waits():
    searcher = rescuing()
    paused = {100: 3, 101: 3}
    busy = choice(paused=paused, margin=-9.0, can_go=lambda trial: trial != 100)
    assert searcher.choose(102, busy) == 101
    assert searcher.choose(102, choice(paused=paused, margin=-9.0)) == 100


def test_only_trials_that_are_offered_are_chosen():
    searcher = rescuing()
    assert searcher.choose(102, choice(paused={100: 3, 101: 3}, margin=-9.0)) == 100
    assert searcher.choose(102, choice(paused={101: 3}, margin=-9.0)) == 101
    assert isinstance(searcher.choose(102, choice(margin=-9.0)), dict)


def test_a_trial_that_paused_again_is_offered_at_its_next_rung():
    searcher = rescuing()
    assert searcher.choose(102, choice(paused={100: 3}, margin=-9.0)) == 100
    assert isinstance(searcher.choose(102, choice(margin=-9.0)), dict)  # it runs
    at(0.31, 0.79, searcher, 100, 0.1)
    assert searcher.choose(103, choice(paused={100: 9}, margin=-9.0)) == 100


def test_scores_are_those_that_are_compared():
    searcher = rescuing()
    good, bad = searcher.score([{"x": 0.31, "y": 0.79}, {"x": 0.9, "y": 0.1}], 3)
    assert good < bad
    new = searcher.choose(102, choice(3, {101: 3}))
    (score,) = searcher.score([new], 3)
    assert searcher.choose(102, choice(3, {101: 3}, score - bad + 1e-6)) == new
    assert searcher.choose(102, choice(3, {101: 3}, score - bad - 1e-6)) == 101
    assert ready().score([new], 3) is None


def test_the_better_a_paused_trial_is_ranked_the_larger_is_its_chance():
    searcher = told()
    paused = {}
    for trial, x in enumerate(np.linspace(0.3, 1.0, 40).tolist(), start=100):
        at(x, 0.8, searcher, trial, bowl({"x": x, "y": 0.8}))
        paused[trial] = 3
    trials = [Trial(number, {}, Status.PAUSED, until=1, resource=1) for number in (*paused, 7)]
    *chances, other = searcher.chances(trials, offered := choice(paused=paused))
    scores = searcher.score([{"x": x, "y": 0.8} for x in np.linspace(0.3, 1.0, 40)], 3)
    ranked = [chances[n] for n in np.argsort(scores, kind="stable")]
    assert ranked == sorted(ranked, reverse=True)
    assert ranked[0] == 0.8
    assert ranked[-1] == 0.08
    assert other == 0.0  # it is not among those that the model may choose
    by_loss = replace(offered, chance=lambda trial: 0.2)
    assert searcher.chances(trials, by_loss) == [max(0.2, chance) for chance in (*chances, other)]


def test_before_the_first_fit_all_paused_trials_have_the_same_chance():
    trials = [Trial(number, {}, Status.PAUSED, until=1, resource=1) for number in (0, 1)]
    assert ready().chances(trials, choice(paused={0: 3, 1: 3})) == [1.0, 1.0]


def test_asking_for_chances_changes_no_choice():
    one, other = rescuing(), rescuing()
    paused = {100: 3, 101: 3}
    trials = [Trial(number, {}, Status.PAUSED, until=1, resource=1) for number in paused]
    one.chances(trials, choice(paused=paused))
    both = [s.choose(102, choice(paused=paused, margin=-9.0)) for s in (one, other)]
    assert both == [100, 100]


def test_a_copy_has_the_forest():
    searcher = told()
    assert copy.deepcopy(searcher).choose(60, choice()) == searcher.choose(60, choice())


# -- what it sees --------------------------------------------------------------------------------


def test_categories_have_columns_of_their_own_and_ordinals_their_places():
    space = Space(
        {
            "two": Categorical(["a", "b"]),
            "three": Categorical(["a", "b", "c"]),
            "size": Ordinal([1, 10, 1000]),
            "layers": Integer(1, 4),
            "fixed": "x",
        }
    )
    config = {"two": "b", "three": "c", "size": 10, "layers": 4, "fixed": "x"}
    encoding = Encoding(space)
    (row,) = features(encoding, np.array([encoding.unit(config)]))
    assert row[:5].tolist() == [1.0, 0.0, 0.0, 1.0, 0.5]
    assert len(row) == 6


def test_equal_configurations_have_equal_keys():
    encoding = Encoding(a_space())
    generator = np.random.default_rng(0)
    points = generator.random((200, 4))
    configs = [encoding.config(point) for point in points]
    again = np.array([encoding.unit(config) for config in configs])
    assert keys(features(encoding, points)) == keys(features(encoding, again))


def test_a_category_of_many_values_has_one_column():
    encoding = Encoding(Space({"word": Categorical([f"w{i}" for i in range(5000)])}))
    assert features(encoding, np.array([[0.5]])).shape == (1, 1)


# -- warm start ----------------------------------------------------------------------------------


def test_a_warm_start_teaches_before_the_first_trial():
    past = [(config, bowl(config)) for config in (ready().explore(n) for n in range(100))]
    searcher = ready(warm_start=past, seed=1)
    assert study(searcher) == [84]
    assert bowl(searcher.choose(0, choice())) < 0.1
    assert "<100 results" in repr(searcher)


def test_a_warm_start_of_another_space_is_refused():
    with pytest.raises(ValueError, match="warm_start: its configurations lack"):
        ready(warm_start=[({"z": 1.0}, 0.5)])
    assert isinstance(GPSearch(warm_start=[({"z": 1.0}, 0.5)]), GPSearch)
