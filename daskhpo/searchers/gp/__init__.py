"""Bayesian optimisation with a Gaussian process, on scikit-optimize's kernels."""
