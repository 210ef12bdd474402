"""scikit-optimize."""

from __future__ import annotations

from statistics import fmean, median

import pytest
from sklearn.ensemble import BaggingRegressor
from skopt.learning import ExtraTreesRegressor, GaussianProcessRegressor, RandomForestRegressor

from daskhpo.core.random import rng
from daskhpo.core.types import Status, Trial
from daskhpo.searchers import RandomSearch, SkoptSearch
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space
from tests.searchers.external.shared import (
    EVERY_KIND,
    ExternalContract,
    regret,
    report,
    start,
    taught,
)
from tests.searchers.external.test_optuna import without


@pytest.mark.slow
class TestGp(ExternalContract):
    n, n_study = 8, 12

    @pytest.fixture
    def make(self):
        return lambda **options: SkoptSearch(n_initial_points=4, **options)


@pytest.mark.slow
class TestExtraTrees(ExternalContract):
    n = 16

    @pytest.fixture
    def make(self):
        return lambda **options: SkoptSearch("ET", "EI", **options)


@pytest.mark.slow
class TestRegressorObject(ExternalContract):
    n = 12

    @pytest.fixture
    def make(self):
        forest = RandomForestRegressor(n_estimators=10, min_samples_leaf=2)
        return lambda **options: SkoptSearch(forest, "LCB", 5, **options)


SPACE = Space({"x": Real(0.0, 1.0), "units": Ordinal([8, 16, 64]), "kind": Categorical([1, True])})


def ready(*arguments, space=SPACE, **options):
    searcher = SkoptSearch(*arguments, **options)
    searcher.setup(space, 0)
    return searcher


def finish(searcher, number, config, loss):
    trial = report(searcher, number, config, loss)
    searcher.on_end(trial._replace(status=Status.COMPLETED))


def known(searcher):
    """Points and losses that the model was last fitted to."""
    optimizer = searcher._optimiser._optimizer
    return dict(zip(map(tuple, optimizer.Xi), optimizer.yi, strict=True))


def test_skopt_is_given_indices_and_the_running_best():
    searcher = ready(n_initial_points=1)
    start(searcher, 9)  # it is made
    searcher.on_start(0, {"x": 0.25, "units": 64, "kind": True})
    report(searcher, 0, {"x": 0.25, "units": 64, "kind": True}, loss=3.0, resource=1)
    report(searcher, 0, {"x": 0.25, "units": 64, "kind": True}, loss=2.0, resource=3)
    start(searcher, 1)
    assert known(searcher)[0.25, 2, "1"] == 2.0


def test_a_running_trial_counts_as_the_best_so_far_and_a_failed_one_as_the_worst():
    searcher = ready(n_initial_points=2)
    configs = [start(searcher, number) for number in range(4)]
    finish(searcher, 0, configs[0], loss=1.0)
    finish(searcher, 1, configs[1], loss=5.0)
    searcher.on_end(Trial(2, configs[2], Status.FAILED, until=1))
    start(searcher, 4)
    assert list(known(searcher).values()) == [1.0, 5.0, 5.0, 1.0]
    finish(searcher, 3, configs[3], loss=2.0)
    start(searcher, 5)
    assert list(known(searcher).values()) == [1.0, 5.0, 5.0, 2.0, 1.0]


def test_the_model_waits_for_losses_not_for_proposals():
    searcher = ready(n_initial_points=3)
    configs = [start(searcher, number) for number in range(6)]
    for number in range(2):
        finish(searcher, number, configs[number], loss=float(number))
    start(searcher, 6)
    assert not searcher._optimiser._optimizer.models
    finish(searcher, 2, configs[2], loss=2.0)
    start(searcher, 7)
    assert searcher._optimiser._optimizer.models


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["GP", "ET"])
def test_parallel_trials_never_share_a_configuration(estimator):
    space = Space({"a": Integer(1, 5), "b": Ordinal([1, 2]), "c": Categorical(["x", None, 3])})
    searcher = ready(estimator, "EI", n_initial_points=4, space=space)
    configs = [start(searcher, number) for number in range(4)]
    for number, config in enumerate(configs):
        finish(searcher, number, config, loss=float(number))
    configs += [start(searcher, number) for number in range(4, 25)]
    assert len({tuple(config.values()) for config in configs}) == 25  # of 30 that there are


def test_a_space_that_was_tried_whole_is_drawn_from_at_random():
    space = Space({"a": Ordinal([1, 2]), "b": Categorical(["x", "y"])})
    searcher = ready(n_initial_points=2, space=space)
    configs = []
    for number in range(7):
        configs.append(start(searcher, number))
        finish(searcher, number, configs[-1], loss=float(number))
    assert len({tuple(config.values()) for config in configs[:4]}) == 4
    assert searcher.error is None


@pytest.mark.parametrize("generator", ["random", "sobol", "halton", "hammersly", "lhs", "grid"])
def test_the_first_proposals_are_those_of_the_generator(generator):
    searcher = ready(initial_point_generator=generator)
    configs = [start(searcher, number) for number in range(10)]
    assert len({config["x"] for config in configs}) > 1
    assert len({type(config["kind"]) for config in configs}) == 2
    if generator == "lhs":  # one in each tenth
        assert sorted(int(config["x"] * 10) for config in configs) == list(range(10))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "acq_func"), [("GP", "gp_hedge"), ("RF", "PI"), ("ET", "LCB"), ("GBRT", "EI")]
)
def test_every_model_and_every_acquisition_function_learns(estimator, acq_func):
    losses = regret(SkoptSearch(estimator, acq_func), 30)
    assert median(losses[-10:]) < 0.7 * fmean(losses[:10])  # some are explorations


@pytest.mark.slow
def test_it_learns_from_an_earlier_session():
    at_random = fmean(regret(RandomSearch(), 30))
    assert taught(SkoptSearch(), 40, n_proposals=5) < 0.6 * at_random


@pytest.mark.slow
def test_a_regressor_without_a_seed_gets_that_of_the_study():
    forest = ExtraTreesRegressor(n_estimators=5)
    found = []
    for _ in range(2):
        searcher = ready(forest, "EI", n_initial_points=3, space=EVERY_KIND)
        for number in range(6):
            config = start(searcher, number)
            finish(searcher, number, config, loss=float(rng(0, "loss", number).random()))
        found.append(config)
    assert found[0] == found[1]
    assert forest.random_state is None


def test_its_repr_is_one_line_that_names_the_regressor():
    forest = RandomForestRegressor(n_estimators=20, min_samples_leaf=2, max_depth=3)
    assert repr(SkoptSearch(forest, "LCB")) == (
        "SkoptSearch(base_estimator=RandomForestRegressor(max_depth=3, min_samples_leaf=2, "
        "n_estimators=20), acq_func='LCB', n_initial_points=10, "
        "initial_point_generator='random', acq_optimizer='auto')"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_estimator": "SVM"}, r"base_estimator='SVM' must be one of \['GP', 'RF', 'ET', 'GB"),
        ({"base_estimator": BaggingRegressor()}, "cannot say how sure it is: its predict must"),
        ({"acq_func": "EIps"}, "acq_func='EIps' needs the seconds of each trial"),
        ({"acq_func": "PIps"}, "acq_func='PIps' needs the seconds of each trial"),
        ({"acq_func": "MES"}, "acq_func='MES' draws from numpy's global generator"),
        ({"acq_func": "PVRS"}, "acq_func='PVRS' takes minutes"),
        ({"acq_func": "UCB"}, r"acq_func='UCB' must be 'LCB', 'EI', 'PI' or 'gp_hedge'"),
        ({"n_initial_points": 0}, "n_initial_points=0 must be at least 1"),
        (
            {"initial_point_generator": "latin"},
            "initial_point_generator='latin' must be 'random', 'sobol'",
        ),
        ({"acq_optimizer": "adam"}, "acq_optimizer='adam' must be 'auto'"),
        ({"base_estimator": "RF", "acq_optimizer": "lbfgs"}, "'lbfgs' needs gradients"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(options, message):
    with pytest.raises(ValueError, match=message):
        SkoptSearch(**options)


def test_a_class_is_no_regressor():
    with pytest.raises(TypeError, match="or a regressor object"):
        SkoptSearch(GaussianProcessRegressor)


def test_without_the_library_an_error_says_what_to_install():
    run = without("skopt", "from daskhpo.searchers import SkoptSearch; SkoptSearch()")
    assert "MissingLibrary: skopt is not installed" in run.stderr
    assert "pip install scikit-optimize" in run.stderr
