"""Order of the tests when several processes run them, plain zarr on every store, and warnings.

Each process runs a file at a time, the longest first.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as `nohup make test &` begins in a script
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests interrupt their children

# What tests let daskhpo run is not remembered in the user's home.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="daskhpo-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

TIERS = ("slurm", "cluster", "slow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first: dict[Path, int] = {}  # the tier of a file's longest tests
    for item in items:
        for tier in range(first.get(item.path, len(TIERS))):
            if item.get_closest_marker(TIERS[tier]):
                first[item.path] = tier
                break
    items.sort(key=lambda item: first.get(item.path, len(TIERS)))


@pytest.fixture(autouse=True)
def plain_zarr_opens_every_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check each store in the test's folder at its end; not if the test breaks its metadata."""
    if "tmp_path" not in request.fixturenames or request.node.get_closest_marker("breaks_zarr"):
        yield
        return
    folder = request.getfixturevalue("tmp_path")
    yield
    if any(folder.rglob("zarr.json")):  # zarr takes half a second to import
        from tests.plain_zarr import check, stores_in

        for store in stores_in(folder):
            check(store)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What daskhpo warns of. Dask silences the handlers of its loggers, pytest's among them."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    heard: list[str] = []
    listener = Listener(logging.WARNING)
    logging.getLogger("daskhpo").addHandler(listener)
    yield heard
    logging.getLogger("daskhpo").removeHandler(listener)
