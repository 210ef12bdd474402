from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm.slurm import Slurm, missing


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm with three nodes; its commands find it by this process's environment."""
    if (reason := missing()) is not None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have Slurm: {reason}")
        pytest.skip(reason)
    running = Slurm(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture(autouse=True)
def no_jobs_are_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds all nodes free."""
    yield
    if "slurm" in request.fixturenames:
        running = request.getfixturevalue("slurm")
        running.cancel_all()
        running.wait_for_nodes()
