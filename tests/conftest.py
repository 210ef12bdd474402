"""Shares the tests out among processes: a file to each, and a Slurm to two of them."""

from __future__ import annotations

from pathlib import Path

import pytest

TIERS = ("slurm", "cluster", "slow")  # the longest first, so that all processes end together
OWN_SLURM = "test_cluster.py"  # half of the time of all tests of Slurm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first: dict[Path, int] = {}  # the tier of a file's longest tests
    for item in items:
        for tier in range(first.get(item.path, len(TIERS))):
            if item.get_closest_marker(TIERS[tier]):
                first[item.path] = tier
                break
        shared = item.get_closest_marker("slurm") and item.path.name != OWN_SLURM
        item.add_marker(pytest.mark.xdist_group("slurm" if shared else str(item.path)))
    items.sort(key=lambda item: first.get(item.path, len(TIERS)))
