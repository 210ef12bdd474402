"""A browser for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import Browser, chromium

collect_ignore = ["run_notebook.py"]  # a program, which needs Jupyter


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running
