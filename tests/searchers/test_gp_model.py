"""The Gaussian process, beside scikit-optimize's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from skopt.learning import GaussianProcessRegressor
from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from daskhpo.searchers.gp.blas import one_thread
from daskhpo.searchers.gp.dataset import Observation, most_telling
from daskhpo.searchers.gp.model import Hyperparameters, Likelihood, Posterior, fit, standardised
from daskhpo.searchers.gp.surrogate import Fitted

HYPER = Hyperparameters(np.array([0.3, 0.5, 0.9]), 1.7, 1e-2)
ORDERED = np.zeros(3, bool)
ONE_CATEGORY = np.array([False, True, False])


@pytest.fixture(autouse=True)
def alone():
    with one_thread():
        yield


def data(n=30):
    generator = np.random.default_rng(0)
    features = generator.random((n, 3))
    return features, np.sin(5 * features).sum(axis=1) + 0.1 * generator.standard_normal(n)


def theirs(features, losses):
    kernel = ConstantKernel(1.7) * Matern([0.3, 0.5, 0.9], nu=2.5) + WhiteKernel(1e-2)
    return GaussianProcessRegressor(kernel, optimizer=None).fit(features, losses)


def test_it_predicts_as_scikit_optimize_does():
    features, losses = data()
    points = np.random.default_rng(1).random((100, 3))
    mean, sd = Posterior(features, losses, ORDERED, HYPER).predict(points)
    expected, total = theirs(features, losses).predict(points, return_std=True)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    np.testing.assert_allclose(Posterior(features, losses, ORDERED, HYPER).mean(points), mean)
    np.testing.assert_allclose(sd**2 + HYPER.noise, total**2, rtol=1e-5)


def test_its_likelihood_differs_from_scikit_optimizes_by_the_prior_alone():
    features, losses = data()
    likelihood = Likelihood(features, losses, ORDERED)
    regressor = theirs(features, losses)

    def difference(theta):
        by_them = regressor.log_marginal_likelihood(np.r_[theta[3], theta[:3], theta[4]])
        z = (theta - likelihood.median) / np.array([1.0, 1.0, 1.0, 1.5, 3.0])
        return likelihood(theta)[0] + by_them - 0.5 * z @ z

    thetas = [HYPER.logs, HYPER.logs + 0.3, HYPER.logs - [0.5, 1.0, 0.2, 0.1, 2.0]]
    constants = [difference(theta) for theta in thetas]
    assert constants == pytest.approx([-0.5 * 30 * np.log(2 * np.pi)] * 3, rel=1e-6)


def test_the_gradient_of_the_likelihood_is_its_slope():
    likelihood = Likelihood(*data(), ORDERED)
    _, gradient = likelihood(HYPER.logs)
    numeric = approx_fprime(HYPER.logs, lambda theta: likelihood(theta)[0], 1e-7)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4)


def test_a_fit_finds_which_features_matter_and_how_noisy_losses_are():
    generator = np.random.default_rng(2)
    features = generator.random((80, 3))
    losses = standardised(np.sin(6 * features[:, 2]) + 0.1 * generator.standard_normal(80))
    found = fit(features, losses, ORDERED)
    assert found.lengths[2] < 1 < min(found.lengths[:2])
    assert found.noise == pytest.approx(0.1**2 / 0.5, rel=0.5)


def test_the_slopes_of_a_prediction_are_right():
    posterior = Posterior(*data(), ORDERED, HYPER)
    points = np.random.default_rng(3).random((4, 3))
    mean, sd, d_mean, d_sd = posterior.slopes(points)
    np.testing.assert_allclose(np.stack([mean, sd]), np.stack(posterior.predict(points)))
    for i, point in enumerate(points):
        for which, slope in enumerate((d_mean, d_sd)):
            numeric = approx_fprime(
                point, lambda x, which=which: posterior.predict(x[None])[which][0], 1e-7
            )
            np.testing.assert_allclose(slope[i], numeric, rtol=1e-4, atol=1e-6)


def test_different_categories_are_one_apart():
    """A column of numbers gives what a column for each category would."""
    features, losses = data()
    places = np.random.default_rng(5).integers(4, size=(100, 1))
    numbered = np.c_[features[:, :1], places[:30], features[:, 2:]]
    flags = np.eye(4) / np.sqrt(2.0)
    one_hot = np.c_[features[:, :1], flags[places[:30, 0]], features[:, 2:]]
    same = Hyperparameters(np.array([0.3, *[0.5] * 4, 0.9]), 1.7, 1e-2)
    ours = Posterior(numbered, losses, ONE_CATEGORY, HYPER)
    theirs = Posterior(one_hot, losses, np.zeros(6, bool), same)
    reals = np.random.default_rng(6).random((100, 2))
    points = np.c_[reals[:, :1], places, reals[:, 1:]]
    wide = np.c_[reals[:, :1], flags[places[:, 0]], reals[:, 1:]]
    np.testing.assert_allclose(ours.predict(points), theirs.predict(wide), rtol=1e-6)
    np.testing.assert_allclose(ours.mean(points), theirs.mean(wide), rtol=1e-6)
    *_, d_mean, d_sd = ours.slopes(points)
    *_, wide_mean, wide_sd = theirs.slopes(wide)
    np.testing.assert_allclose(d_mean[:, [0, 2]], wide_mean[:, [0, 5]], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(d_sd[:, [0, 2]], wide_sd[:, [0, 5]], rtol=1e-5, atol=1e-9)
    assert not d_mean[:, 1].any()
    believed = ours.believe(points[:5]).predict(points[5:])
    expected = theirs.believe(wide[:5]).predict(wide[5:])
    np.testing.assert_allclose(believed, expected, rtol=1e-6)


def test_the_likelihood_counts_equal_categories():
    features, losses = data()
    features[:, 1] = np.random.default_rng(5).integers(4, size=30)
    likelihood = Likelihood(features, losses, ONE_CATEGORY)
    value, gradient = likelihood(HYPER.logs)
    numeric = approx_fprime(HYPER.logs, lambda theta: likelihood(theta)[0], 1e-7)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4)
    features[:, 1] = 7 - 2 * features[:, 1]  # other numbers for the same categories
    assert Likelihood(features, losses, ONE_CATEGORY)(HYPER.logs)[0] == pytest.approx(value)


def test_believing_its_own_mean_is_conditioning_on_it():
    features, losses = data()
    posterior = Posterior(features, losses, ORDERED, HYPER)
    believed, points = np.random.default_rng(4).random((2, 20, 3))
    means, _ = posterior.predict(believed)
    anew = Posterior(np.r_[features, believed], np.r_[losses, means], ORDERED, HYPER)
    extended = posterior.believe(believed)
    np.testing.assert_allclose(extended.predict(points), anew.predict(points), rtol=1e-6)
    np.testing.assert_allclose(extended.predict(points)[0], posterior.predict(points)[0])
    assert (extended.predict(points)[1] < posterior.predict(points)[1]).all()


def test_hyperparameters_are_fitted_on_a_schedule_that_grows():
    features, losses = data()
    fitted, changes, before = Fitted(), [], None
    for n in range(95, 150):
        found = fitted.to(features, losses, ORDERED, n)
        if found is not before:
            changes.append(n)
        before = found
    assert changes == [95, 96, 97, 98, 99, 100, 110, 121, 134, 148]


def test_standardised_losses_keep_their_order_and_draw_in_the_worst():
    losses = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 5.0, 100.0])
    y = standardised(losses)
    assert (np.diff(y) > 0)[:-1].all()
    assert y.mean() == pytest.approx(0)
    assert y.std() == pytest.approx(1)
    assert y.max() < 3
    one, other = (standardised([*losses[:-1], worst]) for worst in (1e30, 1e9))
    np.testing.assert_array_equal(one, other)
    assert standardised([2.0, 2.0]).tolist() == [0.0, 0.0]


# -- which rows a model takes --------------------------------------------------------------------


def test_few_rows_are_all_taken():
    assert most_telling([Observation((0.5,), 1, 1.0)] * 3, 3).tolist() == [0, 1, 2]


def test_of_many_rows_the_best_of_each_resource_and_some_of_the_others_are_taken():
    rows = [Observation((0.5,), 1, float(loss)) for loss in range(80)]
    rows += [Observation((0.5,), 9, 100.0 + loss) for loss in range(20)]
    kept = most_telling(rows, 20)
    assert len(set(kept.tolist())) == 20
    assert set(range(8)) | {80, 81} <= set(kept.tolist())  # ten best: a tenth of each resource
    others = [i for i in kept.tolist() if i not in {*range(8), 80, 81}]
    assert min(others) < 20
    assert max(others) == 99
