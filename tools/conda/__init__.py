"""The conda package: names, build, tests, offline bundles, ``make conda``."""
