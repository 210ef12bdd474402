"""A few disturbed studies, in about a minute; ``make chaos N=...`` runs more."""

from __future__ import annotations

import pytest

from tests.chaos.runner import Outcome, disturbed

SEEDS = (1, 2, 3)


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_disturbed_study_loses_nothing(seed: int) -> None:
    outcome = disturbed(seed, 1)
    assert outcome.problems == {}
    assert outcome.n_sessions >= 1
    assert sum(outcome.faults.values()) >= 1


def test_the_table_counts_what_happened() -> None:
    total = Outcome()
    for faults in ({"kill worker": 2}, {"kill worker": 1, "interrupt": 1}):
        one = Outcome(1, 3)
        one.faults.update(faults)
        total.add(one)
    total.report("hangs", "seed 7")
    table = total.table()
    for row in ("studies | 2", "sessions | 6", "kill worker | 3", "**hangs** | 1"):
        assert f"| {row} |" in table
    assert "| **reports lost** | 0 |" in table
