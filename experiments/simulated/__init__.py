"""Comparison of schedulers on recorded learning curves, in virtual time."""
