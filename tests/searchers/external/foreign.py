"""The environment of libraries that cannot live beside daskhpo's; `make foreign` makes it."""

from __future__ import annotations

from pathlib import Path

from tests.searchers.external.shared import unless

PYTHON = Path(__file__).parents[3] / ".venv-foreign/bin/python"

needs_foreign = unless(PYTHON.exists(), f"there is no {PYTHON}; `make foreign` makes it")
