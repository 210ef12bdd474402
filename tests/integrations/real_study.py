"""A study with ASHA on real worker processes, of which one is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from daskhpo import Study
from daskhpo.schedulers import ASHA
from daskhpo.space import Real
from tests.integrations.script import run


def check_study(train: Callable[[Any, Any], Any], folder: Path, wait_for: Any, metric: str) -> None:
    """Every trial must have reported what an undisturbed one of its configuration does."""
    study = Study(
        train,
        {"lr": Real(0.01, 0.2, log=True)},
        metric,
        scheduler=ASHA(max_t=5, grace_period=1, reduction_factor=2, variant="promotion"),
        storage=folder,
        name="study",
    )
    with Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        pids = client.run(os.getpid)
        handle = study.start(6, client=client, checkpoint="every:1", progress=False)
        journal = folder / "study/journal.jsonl"
        wait_for(lambda: journal.read_text().count('"reported"') >= 2, "two reports")
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        result = handle.wait()
    assert not result.failed_trials()
    assert result.num_trials == 6
    history = result.history()
    assert history["attempt"].max() > 1
    assert history["resource"].max() >= 2  # six trials need not bring one to the end
    for number, reports in history.groupby("trial"):
        expected = run(train, result.trial(int(str(number))).config)
        found = reports.sort_values("resource")[metric].tolist()
        assert found == pytest.approx([float(e[metric]) for e in expected[: len(found)]], rel=1e-4)
