"""Errors in eV: of a network on a part of the data, of a trial's best epoch on the test part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from experiments.adsorption.data import Dataset, load
from experiments.adsorption.model import build

BATCH = 256  # structures at a time where no gradient is needed


@torch.no_grad()
def mean_absolute_error(net: nn.Module, data: Dataset, part: str) -> float:
    """MAE in eV on ``"train"``, ``"validation"`` or ``"test"``; leaves the network in eval mode."""
    net.eval()
    structures = data.parts[part]
    total = torch.zeros((), device=structures.device, dtype=torch.float64)
    for first in range(0, len(structures), BATCH):
        batch = data.batch(structures[first : first + BATCH])
        total += (net(batch) - batch.target).abs().sum()
    return float(total) / len(structures) * data.std


def test_error(  # not a test, whatever its name says to pytest and ruff
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    device: str = "cpu",  # noqa: PT028
) -> float:
    """MAE in eV on the test part, with the weights of the best epoch in a trial's checkpoint.

    Read it once, for the trial that a study chose on validation.
    """
    net = build(config)
    net.load_state_dict(state["best"]["model"])
    return mean_absolute_error(net.to(device), load(config, device), "test")


test_error.__test__ = False  # type: ignore[attr-defined]
