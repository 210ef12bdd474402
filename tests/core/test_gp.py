"""The Gaussian process, against the formulas as they stand in books."""

from __future__ import annotations

import numpy as np
import pytest

from daskhpo.core.gp import GaussianProcess, squared_distances

NOISE = 0.01


def points(n: int, seed: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).random((n, 2))


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.exp(-np.sum((x[:, None] - y) ** 2, axis=2) / 0.1)


def values(x: np.ndarray) -> np.ndarray:
    return np.sin(5 * x).sum(axis=1)


def conditioned(x: np.ndarray, y: np.ndarray) -> GaussianProcess:
    return GaussianProcess(kernel(x, x), NOISE, y)


def test_distances_are_those_of_pythagoras_and_never_negative():
    x, y = points(5, 0), points(4, 1)
    assert squared_distances(x, y) == pytest.approx(np.sum((x[:, None] - y) ** 2, axis=2))
    assert (squared_distances(1e8 + x, 1e8 + x) >= 0).all()


@pytest.mark.parametrize("n", [1, 5, 33, 150])  # the inverse is found in one piece, or by halves
def test_likelihood_and_prediction_are_those_of_the_book(n):
    x, asked = points(n, 0), points(6, 1)
    y, noisy = values(x), kernel(x, x) + NOISE * np.eye(n)
    process, cross = conditioned(x, y), kernel(x, asked)
    assert process.n_values == n
    assert process.misfit == pytest.approx(y @ np.linalg.solve(noisy, y))
    assert process.log_volume == pytest.approx(np.linalg.slogdet(noisy)[1] / 2)
    np.testing.assert_allclose(process.weights, np.linalg.solve(noisy, y), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(process.precision @ noisy, np.eye(n), atol=1e-8)
    np.testing.assert_allclose(process.mean(cross), cross.T @ np.linalg.solve(noisy, y))
    solved = np.linalg.solve(noisy, cross)
    np.testing.assert_allclose(process.solve(cross), solved, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(process.explained(cross), np.sum(cross * solved, axis=0))


@pytest.mark.parametrize("n", [0, 1, 70])
def test_to_believe_its_mean_is_to_observe_it(n):
    x, pending, asked = points(20, 0), points(n, 1), points(6, 2)
    process = conditioned(x, values(x))
    believing = process.believe(kernel(x, pending), kernel(pending, pending))
    both = np.vstack([x, pending])
    means = process.mean(kernel(x, pending))
    observed = conditioned(both, np.append(values(x), means))
    cross = kernel(both, asked)
    np.testing.assert_allclose(believing.mean(cross), process.mean(kernel(x, asked)))
    np.testing.assert_allclose(believing.mean(cross), observed.mean(cross))
    np.testing.assert_allclose(believing.explained(cross), observed.explained(cross))


def test_covariances_that_cannot_be_are_refused():
    with pytest.raises(np.linalg.LinAlgError):
        GaussianProcess(np.array([[1.0, 2.0], [2.0, 1.0]]), NOISE, np.zeros(2))
