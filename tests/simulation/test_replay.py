"""The lean replay of curves counts what the tables of a comparison do."""

from __future__ import annotations

import math

import pytest

from daskhpo.core.objective import Mode, Objective
from daskhpo.schedulers import ASHA, FIFO, AsyncHyperband, Hyperband, MedianStopping
from daskhpo.simulation.compare import compare_schedulers
from daskhpo.simulation.curves import CurveTable, RecordedCurve
from daskhpo.virtual.replay import replay


def a_table(mode: Mode) -> CurveTable:
    """Curves of different lengths and paces; every seventh ends in a failure."""
    sign, curves = (1 if mode == "min" else -1), []
    for i in range(40):
        values = [sign * (i * 7 % 40 / 40 + 1 / r) for r in range(1, 4 + i % 7)]
        values += [math.nan] * (i % 7 == 3)
        curves.append(RecordedCurve(values, [(3.0 + i % 5) * (r + 1) for r in range(len(values))]))
    return CurveTable(Objective("loss", mode), tuple({"x": i} for i in range(40)), tuple(curves))


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    "scheduler",
    [FIFO(9), ASHA(9), AsyncHyperband(9), Hyperband(9), MedianStopping(FIFO(9))],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_a_replay_is_one_row_of_the_comparison(scheduler, mode):
    table = a_table(mode)
    target = table.objective.value(0.5)
    frame = compare_schedulers(table, {"one": scheduler}, [3], seeds=4, target=target)
    for order, row in enumerate(frame.to_dict("records")):
        found = replay(table.curves, table.objective, scheduler, 3, order, target)
        assert found.seconds_to_target == row["seconds_to_target"]
        assert found.slot_seconds == pytest.approx(row["device_seconds"])
        assert found.beyond == pytest.approx(row["beyond"])
