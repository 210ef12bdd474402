from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm import accounting
from tests.slurm.slurm import Slurm, missing


def _need(reason: str | None) -> None:
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have Slurm: {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm with three nodes; its commands find it by this process's environment."""
    _need(missing())
    running = Slurm(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="session")
def _slurm_with_accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    _need(missing() or accounting.missing())
    running = Slurm(tmp_path_factory.mktemp("accounts"), n_nodes=1, accounts=True)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def slurm_with_accounts(
    _slurm_with_accounts: Slurm, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Slurm]:
    """Another Slurm, of one node, which keeps accounts; this test's commands find it."""
    for name, value in _slurm_with_accounts.environment.items():
        monkeypatch.setenv(name, value)
    yield _slurm_with_accounts
    _slurm_with_accounts.cancel_all()
    _slurm_with_accounts.wait_for_nodes()


@pytest.fixture(autouse=True)
def no_jobs_are_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds all nodes free."""
    yield
    if "slurm" in request.fixturenames:
        running = request.getfixturevalue("slurm")
        running.cancel_all()
        running.wait_for_nodes()
