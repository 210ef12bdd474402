from __future__ import annotations

import pytest

from daskhpo.checkpoints import ZarrStore
from daskhpo.checkpoints.cache import StateCache
from tests.checkpoints.caching import SIZE, Gate, Notes


@pytest.fixture
def store(tmp_path):
    return ZarrStore(tmp_path / "store" / "checkpoints")


@pytest.fixture
def gate(store):
    gate = Gate(store)
    yield gate
    gate.open.set()


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def residents_of(notes):
    made = []

    def make(store, n_states=100, **kwargs):
        made.append(StateCache(store, notes, capacity=n_states * SIZE, **kwargs))
        return made[-1]

    yield make
    for one in made:
        if isinstance(one._store, Gate):
            one._store.open.set()
        one.close()
