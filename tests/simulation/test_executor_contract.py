"""The simulated executor keeps the contract of executors, with curves in the place of trials."""

from __future__ import annotations

import pytest

from daskhpo.testing.executor import ExecutorContract, LearnerCurve
from daskhpo.virtual.executor import SimulatedExecutor


class TestSimulated(ExecutorContract):
    trains = False

    @pytest.fixture
    def where(self):
        def executor(session):
            n_slots = session.options.max_concurrent or 3
            return SimulatedExecutor(
                LearnerCurve, session.objective, n_slots, began_at=session.began_at
            )

        return {"executor": executor}
