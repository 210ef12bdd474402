"""What becomes of trials' states: in workers' memory, on the way to others, in the store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskhpo import Study, Trainable
from daskhpo.checkpoints import STORE, CheckpointPolicy, ZarrStore
from daskhpo.core.events import Dropped, Launched, Record, Reported, Saved, SaveFailed
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import Pause, Resume, Start, Status, Stop, Wait
from daskhpo.engine.session import study_records

pytestmark = pytest.mark.cluster


class Turns(Scheduler):
    """Everybody trains one unit at a time, the least trained first."""

    def __init__(self, max_t: int) -> None:
        self.max_t = max_t

    def __repr__(self) -> str:
        return f"Turns({self.max_t})"

    def next_action(self, trials: Any, can_start: bool) -> Any:
        if can_start:
            return Start(until=1)
        paused = [trial for trial in trials.values() if trial.status is Status.PAUSED]
        if not paused:
            return Wait()
        trial = min(paused, key=lambda trial: (trial.resource, trial.id))
        return Resume(trial.id, trial.resource + 1)

    def on_launch(self, trial: Any) -> None:
        pass

    def on_report(self, trial: Any, report: Any) -> Any:
        return Stop("trained") if report.resource == self.max_t else Pause()

    def on_end(self, trial: Any) -> None:
        pass


class Walker(Trainable):
    """A unit takes ``config["seconds"]``; says in which process it ran; checks its own state."""

    def setup(self, config: Any) -> None:
        self.config = config
        self.walk = np.zeros(config["size"])
        self.random = np.random.default_rng(self.trial.seed)

    def step(self) -> dict[str, Any]:
        time.sleep(self.config["seconds"])
        self.walk += self.random.normal(size=len(self.walk))
        return {"loss": abs(float(self.walk.mean())), "pid": os.getpid()}

    def save_checkpoint(self) -> Any:
        return {"walk": self.walk, "random": self.random.bit_generator.state}

    def load_checkpoint(self, state: Any) -> None:
        self.walk = state["walk"]  # as it comes: it must be ours alone
        self.random.bit_generator.state = state["random"]


def walk(config: Any, trial: Any) -> None:
    """The same as a function."""
    walker = Walker()
    walker.trial = trial
    walker.setup(config)
    if trial.checkpoint is not None:
        walker.load_checkpoint(trial.checkpoint)
    for _ in range(trial.resource, trial.max_t):
        trial.report(walker.step(), state=walker.save_checkpoint)


@pytest.fixture
def study(tmp_path: Path) -> Any:
    """Makes a study of trials that take turns."""

    def make(trainable: Any = Walker, max_t: int = 4, seconds: float = 0.0) -> Study:
        return Study(
            trainable,
            {"seconds": seconds, "size": 10_000},
            "loss",
            scheduler=Turns(max_t),
            storage=tmp_path,
            name="study",
        )

    return make


def records(study: Study, *kinds: type[Record]) -> list[Any]:
    return [record for record in study_records(study.path) if isinstance(record, kinds)]


def is_undisturbed(study: Study, max_t: int = 4) -> bool:
    """Whether every trial has walked as if nobody had ever moved it."""
    history = study.result().history()
    for trial in study.result().trials().trial:
        alone = Walker()
        alone.trial = type("Alone", (), {"seed": seed_of(study, trial)})()
        alone.setup({"seconds": 0.0, "size": 10_000})
        losses = [alone.step()["loss"] for _ in range(max_t)]
        if list(history[history.trial == trial].sort_values("resource").loss) != losses:
            return False
    return True


def seed_of(study: Study, trial: int) -> int:
    from daskhpo.core.random import trial_seed

    return trial_seed(study.problem.seed, trial)


# -- in memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", [Walker, walk])
def test_paused_trials_go_on_from_memory_wherever_they_are_and_no_file_is_written(
    client: Client, study: Any, trainable: Any
) -> None:
    study = study(trainable, seconds=0.03)  # an odd number takes turns: the slots change
    result = study.run(num_trials=7, client=client, progress=False)
    assert (result.trials().status == "completed").all()
    assert result.cost()["retrained_units"] == 0
    assert {saved.ref.resource for saved in records(study, Saved)} == {4}  # of the best at its end
    pids = result.history().groupby("trial").pid.nunique()
    assert (pids == 2).any()  # some were moved from one worker's memory to the other
    assert is_undisturbed(study)


@pytest.mark.parametrize("how", ["tls", "inproc"])
def test_states_move_over_other_connections_than_plain_tcp(study: Any, how: str) -> None:
    from distributed.security import Security

    options: dict[str, Any] = {"processes": False} if how == "inproc" else {}
    if how == "tls":
        options = {"security": Security.temporary(), "protocol": "tls"}
    study = study(seconds=0.03)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", **options
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        result = study.run(num_trials=6, client=client, progress=False)
    assert result.cost()["retrained_units"] == 0
    assert is_undisturbed(study)


def test_what_a_dead_worker_held_is_trained_again_and_counted(
    own_cluster: Any, study: Any, wait_for: Any
) -> None:
    study = study(seconds=0.05, max_t=6)
    handle = study.start(num_trials=8, client=own_cluster, progress=False)
    wait_for(lambda: len(records(study, Reported)) > 12, "some reports")
    pid = int(study.result().history().pid.iloc[-1])
    os.kill(pid, signal.SIGKILL)
    result = handle.wait()
    assert (result.trials().status == "completed").all()
    assert records(study, Dropped)
    assert result.cost()["retrained_units"] > 0
    assert is_undisturbed(study, 6)


def test_memory_has_a_cap(client: Client, study: Any) -> None:
    study = study()  # a state takes 84 kB
    policy = CheckpointPolicy(memory=200_000)
    result = study.run(num_trials=6, client=client, checkpoint=policy, progress=False)
    assert {dropped.reason for dropped in records(study, Dropped)} >= {
        "not worth a write when it had to leave memory"
    }
    assert result.cost()["retrained_units"] > 0
    assert is_undisturbed(study)


def test_what_is_worth_a_file_is_written_when_memory_is_short(client: Client, study: Any) -> None:
    study = study(seconds=0.8, max_t=2)  # with a chance of 1 in 5: 160 ms, more than a write takes
    policy = CheckpointPolicy(memory=100_000)  # one state
    result = study.run(num_trials=6, client=client, checkpoint=policy, progress=False)
    assert result.cost()["retrained_units"] == 0
    assert any(saved.ref.resource < 2 for saved in records(study, Saved))
    assert is_undisturbed(study, 2)


# -- before a worker goes ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["retire", "SIGTERM"])
def test_a_worker_that_goes_in_good_order_writes_what_it_holds(
    own_cluster: Any, study: Any, wait_for: Any, how: str
) -> None:
    study = study(seconds=0.3, max_t=3)
    with Client(own_cluster, set_as_default=False) as client:
        handle = study.start(num_trials=8, client=client, progress=False)
        wait_for(lambda: len(records(study, Reported)) >= 8, "all trials to have paused")
        pids = client.run(os.getpid)
        address, pid = next(iter(pids.items()))
        if how == "retire":
            client.retire_workers([address])
        else:
            os.kill(pid, signal.SIGTERM)
        result = handle.wait()
    assert (result.trials().status == "completed").all()
    assert any(saved.ref.resource < 3 for saved in records(study, Saved))
    # all that was lost is what ran there just then, and went on before its state was written
    assert result.cost()["retrained_units"] <= 2
    assert is_undisturbed(study, 3)


class Hurried(Walker):
    """Its job ends soon."""

    def setup(self, config: Any) -> None:
        super().setup(config)
        os.environ["SLURM_JOB_END_TIME"] = str(int(time.time()) + 28)


def test_before_a_job_ends_what_may_be_needed_is_written(own_cluster: Any, study: Any) -> None:
    study = study(Hurried, seconds=0.3, max_t=3)
    policy = CheckpointPolicy(durability=1e9)  # nothing but the job's end is a reason
    result = study.run(num_trials=8, client=own_cluster, checkpoint=policy, progress=False)
    assert any(saved.ref.resource < 3 for saved in records(study, Saved))
    assert result.cost()["retrained_units"] == 0
    assert is_undisturbed(study, 3)


def test_a_study_that_stops_writes_what_may_be_needed_and_goes_on_without_training_again(
    client: Client, study: Any
) -> None:
    study = study(seconds=0.2, max_t=3)
    study.run(num_trials=12, time_budget=2.0, client=client, progress=False)
    assert not (study.result().trials().status == "completed").all()
    assert records(study, Saved)
    result = study.resume(client=client, progress=False)
    assert (result.trials().status == "completed").all()
    assert result.cost()["retrained_units"] == 0
    assert is_undisturbed(study, 3)


def test_the_best_trials_state_is_there_at_the_end_though_it_only_paused(
    client: Client, make_study: Any
) -> None:
    from daskhpo.schedulers import SuccessiveHalving

    def train(config: Any, trial: Any) -> None:
        for n in range(trial.resource + 1, trial.max_t + 1):
            trial.report({"loss": config["x"] + n}, state=lambda n=n: {"n": n})  # ever worse

    study = make_study(train, SuccessiveHalving(9))
    result = study.run(num_trials=9, client=client, progress=False)
    assert result.checkpoint()["n"] == result.best_trial.checkpoint.resource


# -- policies ------------------------------------------------------------------------------------


def test_every_n_units_a_checkpoint_is_written(client: Client, make_study: Any) -> None:
    from daskhpo.schedulers import FIFO

    def train(config: Any, trial: Any) -> None:
        for n in range(trial.resource + 1, trial.max_t + 1):
            time.sleep(0.05)
            trial.report({"loss": 1 / n}, state=lambda n=n: {"n": n})

    study = make_study(train, FIFO(7))
    result = study.run(num_trials=1, client=client, checkpoint="every:2", progress=False)
    assert [saved.ref.resource for saved in records(study, Saved)] == [2, 4, 6, 7]
    assert result.checkpoint() == {"n": 7}
    assert result.cost()["stored_files"] == 1  # superseded ones are deleted
    assert len(ZarrStore(study.path / "checkpoints.zarr").list()) == 1


def test_a_budget_is_kept_and_never_fails_a_study(client: Client, study: Any) -> None:
    study = study()
    policy = CheckpointPolicy("rung", max_files=3)
    result = study.run(num_trials=6, client=client, checkpoint=policy, progress=False)
    assert (result.trials().status == "completed").all()
    assert result.cost()["stored_files"] <= 3
    assert len(ZarrStore(study.path / "checkpoints.zarr").list()) <= 3
    assert is_undisturbed(study)


def test_staging_takes_states_on_their_way_and_is_empty_afterwards(
    client: Client, study: Any, tmp_path: Path
) -> None:
    study = study()
    staging = tmp_path / "node"
    staging.mkdir()
    policy = CheckpointPolicy("rung", staging=str(staging))
    result = study.run(num_trials=6, client=client, checkpoint=policy, progress=False)
    assert result.cost()["checkpoint_files"] >= 6  # a state may be overtaken by the next one
    assert is_undisturbed(study)
    assert list(staging.iterdir()) == []


# -- faults --------------------------------------------------------------------------------------


class Cramped(Walker):
    """Its process cannot write files as large as its state."""

    def setup(self, config: Any) -> None:
        import resource

        super().setup(config)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))


def test_a_disk_that_takes_no_more_costs_no_trial(own_cluster: Any, study: Any) -> None:
    study = study(Cramped)
    result = study.run(num_trials=4, client=own_cluster, checkpoint="rung", progress=False)
    assert (result.trials().status == "completed").all()
    assert result.cost()["checkpoint_files"] == 0
    errors = {unsaved.error for unsaved in records(study, SaveFailed)}
    assert errors
    assert all("File too large" in error for error in errors)
    assert "CheckpointNotWritten" in result.trial(0).error
    assert is_undisturbed(study)


@pytest.mark.parametrize("scene", ["full", "read_only"])
def test_a_study_survives_a_disk_that_refuses(scene: str, tmp_path: Path) -> None:
    in_a_namespace = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run(
            [*in_a_namespace, "mount", "-t", "tmpfs", "none", str(tmp_path)],
            capture_output=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a disk of its own cannot be mounted here: {error}")
    program = Path(__file__).with_name("small_disk.py")
    done = subprocess.run(
        [*in_a_namespace, sys.executable, str(program), scene, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_store_that_vanishes_while_the_study_runs_costs_no_trial(
    client: Client, study: Any, wait_for: Any, tmp_path: Path
) -> None:
    study = study(seconds=0.05, max_t=6)
    policy = CheckpointPolicy("rung", memory=0)  # each state is read back from the store
    handle = study.start(num_trials=5, client=client, checkpoint=policy, progress=False)
    wait_for(lambda: len(records(study, Saved)) > 8, "some checkpoints")
    (study.path / STORE).rename(tmp_path / "elsewhere")
    result = handle.wait()
    assert (result.trials().status == "completed").all()
    assert result.cost()["retrained_units"] > 0
    errors = [result.trial(number).error or "" for number in result.trials().trial]
    assert any("CheckpointMissing" in error for error in errors)
    assert is_undisturbed(study, 6)


def damaged(path: Path, how: str) -> None:
    if how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "flipped":
        data = bytearray(path.read_bytes())
        data[-1000] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize("also_previous", [False, True])
def test_a_trial_whose_checkpoint_is_damaged_falls_back(
    client: Client, study: Any, how: str, also_previous: bool
) -> None:
    study = study(seconds=0.1, max_t=4)
    for _ in range(20):  # sessions, until some trial has two checkpoints in the store
        study.start(
            2, 0.3, client=client, checkpoint="rung", progress=False, if_exists="resume"
        ).wait()
        rows = [ref for ref in study.result().checkpoints() if ref.trial == 0]
        if len(rows) == 2:
            break
    older, newer = sorted(rows, key=lambda ref: ref.resource)
    assert newer.resource < 4
    folder = study.path / "checkpoints.zarr"
    for ref in (newer, older) if also_previous else (newer,):
        damaged(folder / ref.array / f"{ref.id}.0", how)
    n_before = len(records(study, Launched))
    result = study.resume(num_trials=2, client=client, progress=False)
    launches = [r for r in records(study, Launched)[n_before:] if r.trial == 0]
    begun = [launched.resource for launched in launches][: 3 if also_previous else 2]
    assert begun == [newer.resource, older.resource, 0][: len(begun)]
    assert (result.trials().status == "completed").all()
    name = "CheckpointMissing" if how == "missing" else "CheckpointCorrupt"
    assert name in result.trial(0).error
    assert is_undisturbed(study)


def test_what_a_killed_session_left_behind_is_cleaned_at_resume(client: Client, study: Any) -> None:
    study = study(seconds=0.1)
    study.run(num_trials=4, time_budget=0.5, client=client, checkpoint="rung", progress=False)
    store = ZarrStore(study.path / "checkpoints.zarr")
    (ref, *_) = study.result().checkpoints()
    orphan = store.path / ref.array / "9999.0"
    orphan.write_bytes((store.path / ref.array / f"{ref.id}.0").read_bytes())
    (store.path / ref.array / "9998.0.abc.partial").write_bytes(b"half")
    result = study.resume(client=client, progress=False)
    assert not orphan.exists()
    assert not list(store.path.rglob("*.partial"))
    assert {ref.id for ref in store.list()} == {ref.id for ref in result.checkpoints()}
    assert is_undisturbed(study)
