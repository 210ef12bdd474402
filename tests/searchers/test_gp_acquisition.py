"""Acquisitions, beside scikit-optimize's and beside their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from skopt.acquisition import gaussian_ei, gaussian_lcb, gaussian_pi

from daskhpo.searchers.gp.acquisition import (
    log_expected_improvement,
    log_probability_of_improvement,
    lower_confidence_bound,
)

MEANS = np.array([-2.0, -0.3, 0.0, 0.4, 3.0])
SDS = np.array([0.5, 1.0, 0.2, 0.3, 0.7])
ALL = [
    log_expected_improvement(0.1),
    log_probability_of_improvement(0.1),
    lower_confidence_bound(1.96),
]


class Fixed:
    """A model with the same prediction whatever it is asked, as scikit-optimize asks."""

    def predict(self, points, return_std):
        return MEANS, SDS


def test_they_are_scikit_optimizes_in_logarithms():
    points = np.zeros((5, 1))
    ei, pi, lcb = (acquisition(MEANS, SDS)[0] for acquisition in ALL)
    np.testing.assert_allclose(np.exp(ei), gaussian_ei(points, Fixed(), y_opt=0.1, xi=0.0))
    np.testing.assert_allclose(np.exp(pi), gaussian_pi(points, Fixed(), y_opt=0.1, xi=0.0))
    np.testing.assert_allclose(-lcb, gaussian_lcb(points, Fixed(), kappa=1.96))


@pytest.mark.parametrize("acquisition", ALL)
def test_their_derivatives_are_their_slopes(acquisition):
    _, by_mean, by_sd = acquisition(MEANS, SDS)
    for i, at in enumerate(zip(MEANS, SDS, strict=True)):
        numeric = approx_fprime(np.array(at), lambda x: acquisition(x[:1], x[1:])[0][0], 1e-7)
        np.testing.assert_allclose([by_mean[i], by_sd[i]], numeric, rtol=1e-4)


@pytest.mark.parametrize("z", [-1e6, -1e4, -100.0, -40.0])
def test_improvement_that_is_all_but_impossible_is_still_told_apart(z):
    """h(z) -> φ(z)/z² far below: where the improvement itself is 0 in floating point."""
    value, by_mean, by_sd = log_expected_improvement(0.0)(np.array([-z]), np.ones(1))
    expected = -0.5 * z * z - 0.5 * math.log(2 * math.pi) - 2 * math.log(-z)
    assert value[0] == pytest.approx(expected, rel=1e-3)
    assert by_mean[0] == pytest.approx(z, rel=1e-2)
    assert by_sd[0] == pytest.approx(z * z, rel=1e-2)


def test_expected_improvement_has_no_step_where_its_formula_changes():
    for z in (-1.0, -1e4, -300.0):
        around = z * np.array([1 + 1e-9, 1 - 1e-9])
        values = log_expected_improvement(0.0)(-around, np.ones(2))[0]
        assert values[0] == pytest.approx(values[1], rel=1e-6)
