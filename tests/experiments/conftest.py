"""What the tests of the adsorption experiment share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("ase")

# The experiments are not part of the installed package.
sys.path.insert(0, str(Path(__file__).parents[2]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep these tests out of the fast tier: they import torch."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@dataclass
class FakeTrial:
    """The few things a trainable asks of its trial."""

    config: dict[str, Any]
    seed: int = 3
    id: int = 0
    resource: int = 0
    max_t: int = 9
    device: str = "cpu"
    checkpoint: Any = None
    reported: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def smoke_config() -> dict[str, Any]:
    return {
        "profile": "smoke",
        "lr": 0.01,
        "batch_size": 20,
        "embedding": 8,
        "conv_layers": 2,
        "fc_size": 16,
        "fc_layers": 2,
    }


@pytest.fixture
def make_net() -> Callable[..., Any]:
    """``make_net(config, seed=3)``: a trainable after its setup."""
    from experiments.adsorption.trainable import AdsorptionNet

    def make(config: dict[str, Any], seed: int = 3) -> AdsorptionNet:
        net = AdsorptionNet()
        net.trial = FakeTrial(config, seed)
        net.setup(config)
        return net

    return make
