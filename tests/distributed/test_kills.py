"""Ranks that are killed at random moments; ``python -m tests.distributed.kills`` does it often."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed import LocalCluster

from tests.distributed import exchange
from tests.distributed.kills import Killer, check, run


@pytest.mark.slow
@pytest.mark.cluster
def test_no_unit_and_no_process_is_left_of_ranks_that_are_killed(tmp_path: Path) -> None:
    killer = Killer(seed=1, window=1.0)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = run(exchange, str(tmp_path), cluster, trials=3, batches=2000, killer=killer)
        check(exchange, result, killer)
    assert len(killer.hits) + killer.n_late == 3
    assert killer.hits
