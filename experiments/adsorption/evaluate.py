"""Errors in eV of a network on a part of the data, of a trial on the test part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from experiments.adsorption.data import Dataset, load
from experiments.adsorption.model import build

BATCH = 256  # structures per batch without gradients


@torch.no_grad()
def mean_absolute_error(net: nn.Module, data: Dataset, part: str) -> float:
    """Return the MAE in eV on one part of the data; leave the network in eval mode.

    ``part``: ``"train"``, ``"validation"`` or ``"test"``.
    """
    net.eval()
    structures = data.parts[part]
    total = torch.zeros((), device=structures.device, dtype=torch.float64)
    for first in range(0, len(structures), BATCH):
        batch = data.batch(structures[first : first + BATCH])
        total += (net(batch) - batch.target).abs().sum()
    return float(total) / len(structures) * data.std


def test_error(  # not a test, despite its name (for pytest and ruff)
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    device: str = "cpu",  # noqa: PT028
) -> float:
    """Return the MAE in eV on the test part, with the best epoch's weights of a state.

    Use it once, for the trial that a study chose by its validation error.
    """
    net = build(config)
    net.load_state_dict(state["best"]["model"])
    return mean_absolute_error(net.to(device), load(config, device), "test")


test_error.__test__ = False  # type: ignore[attr-defined]
