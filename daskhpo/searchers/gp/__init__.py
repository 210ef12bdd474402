"""Bayesian optimisation with a Gaussian process; uses scikit-optimize's kernels."""
