"""Workers of the embedded cluster that end are started again, and not for ever."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from daskhpo import Study
from daskhpo.core.errors import NoSuitableWorkers
from daskhpo.executors.dask import respawn
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(respawn, "CHECK_WORKERS_SECONDS", 0.1)


def a_study(train: Any, folder: Path) -> Study:
    return Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), storage=folder, name="s")


def test_a_worker_that_was_terminated_is_replaced(tmp_path: Path) -> None:
    def train(config: Any, trial: Any) -> None:
        trial.report({"loss": 1.0, "process": os.getpid()})
        if trial.id == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    result = a_study(train, tmp_path).run(num_trials=4, max_concurrent=1, progress=False)
    assert (result.trials().status == "completed").all()
    assert result.trials().process.nunique() == 2


def test_workers_that_end_again_and_again_end_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: Any, trial: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        trial.report(1.0)

    monkeypatch.setattr(respawn, "MAX_RESPAWNS", 1)
    study = a_study(train, tmp_path)
    with pytest.raises(NoSuitableWorkers, match="ended 2 times in a row"):
        study.run(num_trials=99, max_concurrent=1, progress=False)
