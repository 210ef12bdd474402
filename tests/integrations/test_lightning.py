"""Lightning's trainer in a trial: reports, resumption to the bit, ranks, real workers."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("lightning")

from tests.integrations.lightning_net import loaders, quiet, train
from tests.integrations.script import ScriptedTrial, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Lightning's advice
]


@pytest.mark.parametrize("stops", [(1,), (2, 3), (1, 2, 3, 4)])
def test_a_resumed_trial_reports_what_an_undisturbed_one_does(stops: tuple[int, ...]) -> None:
    undisturbed = run(train, {"lr": 0.05})
    assert len(undisturbed) == 5
    assert len({report["val_loss"] for report in undisturbed}) == 5
    assert run(train, {"lr": 0.05}, *stops) == undisturbed
