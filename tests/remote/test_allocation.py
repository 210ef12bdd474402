"""Worker steps as processes: which are restarted, and how they end."""

from __future__ import annotations

import time

import pytest
from distributed import LocalCluster

from daskhpo import Study
from daskhpo.cluster.supply import SUPPLY
from daskhpo.core.errors import NoSuitableWorkers
from daskhpo.remote import allocation
from daskhpo.remote.allocation import RESTART_SECONDS, StepSupervisor
from daskhpo.schedulers import FIFO
from daskhpo.space import Real


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr(allocation, "STEP_POLL_SECONDS", 0.01)
    monkeypatch.setattr(allocation, "END_SECONDS", 0.0)
    monkeypatch.setattr(allocation, "RESTART_SECONDS", [0.01 * s for s in RESTART_SECONDS])


def supervised(*commands):
    """Steps that run these commands of a shell."""
    return StepSupervisor([["sh", "-c", command] for command in commands])


def test_a_step_that_fails_is_restarted_five_times_and_the_others_run_on(tmp_path, caplog):
    log = tmp_path / "log"
    steps = supervised(f"echo started >> {log}; exit 3", "exec sleep 600")
    deadline = time.monotonic() + 60
    while "worker step 0 failed with exit code 3, too often" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    steps.stop_restarting()
    assert log.read_text().count("started") == 1 + len(RESTART_SECONDS) == 6
    assert caplog.text.count("failed with exit code 3: restarted in") == len(RESTART_SECONDS)
    assert caplog.text.count("too often") == 1
    assert not steps.outlook().is_hopeless  # the other one runs
    steps.close()  # the second one runs until then


def test_a_step_that_ends_well_is_not_restarted(tmp_path, caplog):
    log = tmp_path / "log"
    steps = supervised(f"echo ended >> {log}", f"until [ -e {log} ]; do :; done; exit 3")
    deadline = time.monotonic() + 60
    while "worker step 1 failed with exit code 3, too often" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    steps.stop_restarting()
    steps.close()
    assert log.read_text() == "ended\n"
    assert steps.outlook().is_hopeless
    assert "every worker step of this job has ended; worker step 1" in steps.outlook().why


def test_pauses_between_restarts_grow():
    assert sorted(RESTART_SECONDS) == list(RESTART_SECONDS)
    assert RESTART_SECONDS[-1] >= 10 * RESTART_SECONDS[0]


@pytest.mark.cluster
def test_a_job_whose_steps_all_fail_ends(tmp_path, monkeypatch):
    """Nothing else can bring a worker; the study ends with what a step said."""
    steps = supervised("exit 3", "exit 4")
    deadline = time.monotonic() + 60
    while not steps.outlook().is_hopeless:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    steps.stop_restarting()
    steps.close()
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        cluster.scheduler.extensions[SUPPLY] = steps
        study = Study(
            lambda config: 1.0,
            {"x": Real(0, 1)},
            "loss",
            scheduler=FIFO(1),
            storage=tmp_path,
            name="s",
        )
        with pytest.raises(NoSuitableWorkers, match="every worker step of this job has ended"):
            study.run(num_trials=1, client=cluster, progress=False)
