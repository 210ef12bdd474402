"""The Dask executor keeps the contract of executors, on real worker processes."""

from __future__ import annotations

import pytest

from daskhpo.testing.executor import ExecutorContract

pytestmark = pytest.mark.cluster


class TestDask(ExecutorContract):
    @pytest.fixture
    def where(self, client):
        return {"client": client}
