"""A program that runs a study whose store is a disk of its own: too small, or read-only later on.

A program of its own because it mounts that disk, and does so in a namespace of its own:

    unshare --map-root-user --mount python small_disk.py SCENE FOLDER
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from daskhpo import Study
from daskhpo.checkpoints import STORE, CheckpointPolicy
from daskhpo.core.events import Saved, SaveFailed
from tests.executors.dask.test_states import Turns, Walker, is_undisturbed, records

POLICY = CheckpointPolicy("rung", memory=0)  # nothing stays in memory: each state is read back


def a_study(folder: Path, max_t: int) -> Study:
    """Trials that take turns; a state takes 84 kB, and is written faster than a unit is trained."""
    return Study(
        Walker,
        {"seconds": 0.1, "size": 10_000},
        "loss",
        scheduler=Turns(max_t),
        storage=folder,
        name="study",
    )


def check(study: Study, max_t: int, error: str) -> None:
    """All trials came to their end as if nothing had been wrong, which the journal tells."""
    result = study.result()
    assert (result.trials().status == "completed").all()
    assert is_undisturbed(study, max_t)
    errors = {unsaved.error for unsaved in records(study, SaveFailed)}
    assert errors, "no write failed: the test shows nothing"
    assert all("CheckpointNotWritten" in each and error in each for each in errors), errors
    assert any("CheckpointNotWritten" in (trial.error or "") for trial in trials(study))


def trials(study: Study) -> list[Any]:
    """What is known of each trial."""
    result = study.result()
    return [result.trial(number) for number in result.trials().trial]


def full(folder: Path, client: Client) -> None:
    """A disk that has room for three states of four."""
    study = a_study(folder, 4)
    study.run(num_trials=4, client=client, checkpoint=POLICY, progress=False)
    check(study, 4, "No space left on device")
    assert records(study, Saved)
    assert not list((study.path / STORE).rglob("*.partial"))


def read_only(folder: Path, client: Client) -> None:
    """A disk that is read-only in the second session, where the trials train further."""
    a_study(folder, 2).run(num_trials=3, client=client, checkpoint=POLICY, progress=False)
    disk = folder / "study" / STORE
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    study = a_study(folder, 2)
    n_saved = len(records(study, Saved))
    study.extend(6, client=client, checkpoint=POLICY, progress=False)
    check(study, 2, "Read-only file system")
    assert len(records(study, Saved)) == n_saved


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    disk = folder / "study" / STORE
    disk.mkdir(parents=True)
    size = {"full": "300k", "read_only": "9m"}[sys.argv[1]]
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], check=True)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        {"full": full, "read_only": read_only}[sys.argv[1]](folder, client)
