"""Schedulers on recorded learning curves, in virtual time."""
