from __future__ import annotations

import pytest

from daskhpo.checkpoints import MemoryStore
from daskhpo.testing.stores import CheckpointStoreContract


class TestMemoryStore(CheckpointStoreContract):
    @pytest.fixture
    def store(self):
        return MemoryStore()

    @pytest.fixture
    def other(self):
        return MemoryStore()
