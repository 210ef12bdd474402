"""The conda package: its names, its build and tests, offline bundles, and ``make conda``."""
