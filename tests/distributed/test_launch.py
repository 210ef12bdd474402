"""Ranks in real processes: what they get, how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from daskhpo.core.commands import Release
from daskhpo.core.errors import InvalidArgument, RankFailed, ShapeMismatch
from daskhpo.core.events import Held
from daskhpo.core.types import CheckpointRef, ReuseProbability
from daskhpo.distributed import RankTrial, current_trial, launch
from daskhpo.distributed.launcher import SHARDS, parts_of
from daskhpo.executors.dask.protocol import Happened
from tests.distributed import ddp
from tests.distributed.kills import is_alive, ranks_of
from tests.executors.dask.lease_tools import Lease, erred, job, save

CERTAIN = ReuseProbability.CERTAIN
REF = CheckpointRef(7, 0, 2)


class Alone:
    """A trial that a test drives by itself."""

    id, seed, max_t, device, devices = 3, 5, 2, "cpu", ("cpu",)

    def __init__(self, checkpoint: Any = None, **config: Any) -> None:
        self.config, self.resource, self.checkpoint = config, 0, checkpoint
        self.reports: list[Any] = []
        self.states: list[Any] = []

    def report(self, metrics: Any, state: Callable[[], Any] | None = None) -> None:
        self.resource += 1
        self.reports.append(metrics)
        self.states.append(None if state is None else state())

    def should_stop(self) -> bool:
        return False

    def complete(self) -> None: ...

    def remaining_walltime(self) -> None: ...


@pytest.fixture
def lease() -> Iterator[Callable[..., Lease]]:
    """Make leases, and end them; no rank may be left."""
    made: list[Lease] = []

    def make(*args: Any, **options: Any) -> Lease:
        made.append(Lease(*args, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert not ranks_of(psutil.Process())


def saved(slot: Lease, ref: CheckpointRef) -> Any:
    """Let a trial be saved, as at a pause; return its state."""
    said = slot.do(save(ref, CERTAIN))
    assert isinstance(said, Happened), said
    [held] = said.events
    assert isinstance(held, Held), held
    return slot.checkpoints.restore(ref, None)[0]


def in_two(function: Any, **options: Any) -> Any:
    """A trial's function that launches another one in two ranks."""
    return lambda config, trial: launch(function, trial, 2, **options)


# -- what a rank gets, and what comes back ---------------------------------------------------------


def looks_around(config: Any, trial: RankTrial) -> None:
    assert threading.current_thread() is threading.main_thread()
    assert current_trial() is trial
    assert (trial.id, trial.seed, trial.device, trial.world_size) == (3, 5, "cpu", 2)
    assert os.environ["RANK"] == os.environ["LOCAL_RANK"] == str(trial.rank)
    assert (config, trial.config) == ({"lr": 0.5}, {"lr": 0.5})
    assert trial.checkpoint["weights"].tolist() == [1.0, 2.0]
    os.kill(os.getpid(), signal.SIGTERM)  # as Slurm may send it to all processes of a job
    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    child.start()
    child.terminate()  # an ordinary process ends by it
    child.join(10)
    assert child.exitcode == -signal.SIGTERM
    print(f"I am {trial!r}")
    for _ in range(trial.resource, trial.max_t):
        weights = np.full(3, trial.rank + trial.resource)
        trial.report(
            {"loss": np.float32(trial.rank)}, state=lambda weights=weights: {"weights": weights}
        )
    assert trial.checkpoint is None


@pytest.mark.slow
def test_ranks_get_what_a_trial_gets_and_rank_0s_report_counts(
    capfd: pytest.CaptureFixture[str],
) -> None:
    trial = Alone({"weights": np.array([1.0, 2.0])}, lr=0.5)
    launch(looks_around, trial, 2)  # type: ignore[arg-type]
    assert trial.reports == [{"loss": 0.0}, {"loss": 0.0}]
    assert [state["weights"].tolist() for state in trial.states] == [[0, 0, 0], [1, 1, 1]]
    printed = sorted(capfd.readouterr().out.splitlines())
    assert printed == [
        f"[trial 3 rank {rank}] I am <trial 3 at resource 0 of 2, rank {rank} of 2>"
        for rank in range(2)
    ]
    assert not ranks_of(psutil.Process())


def keeps_parts(config: Any, trial: RankTrial) -> None:
    part = trial.checkpoint or {"rank": trial.rank, "units": 0}
    for _ in range(trial.resource, trial.max_t):
        part["units"] += 1
        trial.report({"loss": part["units"], "rank": part["rank"]}, state=lambda: part)


@pytest.mark.slow
def test_each_rank_gets_its_own_part_of_a_sharded_state_back(lease: Callable[..., Lease]) -> None:
    slot = lease(in_two(keeps_parts, sharded=True), max_t=3)
    slot.train(until=2)
    assert saved(slot, REF) == {SHARDS: [{"rank": 0, "units": 2}, {"rank": 1, "units": 2}]}
    slot.do(Release(0, 1))
    [step] = slot.train(until=3, state=REF).steps
    assert (step.resource, step.metrics) == (3, {"loss": 3, "rank": 0})


PARTS = {SHARDS: [{"w": 1}, {"w": 2}]}


def test_parts_are_for_as_many_ranks_unless_a_function_says_how() -> None:
    assert parts_of(PARTS, 2, None) == [{"w": 1}, {"w": 2}]
    with pytest.raises(ShapeMismatch, match="parts of 2 ranks, and 3 are to continue it"):
        parts_of(PARTS, 3, None)
    with pytest.raises(ShapeMismatch, match="reshard returned 2 parts for 3 ranks"):
        parts_of(PARTS, 3, lambda parts, n: parts)
    joined = parts_of(PARTS, 1, lambda parts, n: [{"w": sum(part["w"] for part in parts)}] * n)
    assert joined == [{"w": 3}]
    with pytest.raises(ShapeMismatch, match="a state of rank 0 alone"):
        parts_of({"w": 1}, 2, None)


def test_a_sharded_state_of_other_ranks_is_refused_before_anything_starts() -> None:
    with pytest.raises(ShapeMismatch, match="parts of 2 ranks, and 4"):
        launch(keeps_parts, Alone(PARTS), 4, sharded=True)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_sharded_state_is_refused_by_ranks_that_share_one() -> None:
    with pytest.raises(ShapeMismatch, match=r"has 2 parts.*sharded=True"):
        launch(keeps_parts, Alone(PARTS), 2)  # type: ignore[arg-type]
    assert not ranks_of(psutil.Process())


def test_more_ranks_than_gpus_are_refused() -> None:
    trial = Alone()
    trial.devices = ("cuda:0", "cuda:1")  # type: ignore[assignment]
    with pytest.raises(InvalidArgument, match=r"resources=\{'gpu': 3\}"):
        launch(keeps_parts, trial, 3)  # type: ignore[arg-type]


# -- ends ------------------------------------------------------------------------------------------


def fails(config: Any, trial: RankTrial) -> None:
    trial.report({"loss": 1.0}, state=lambda: {})
    if trial.rank == 1:
        match config["how"]:
            case "raise":
                raise ValueError("bad weights")
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "return":
                return
    while config["how"] != "return":  # in a collective, as it were
        signal.pause()
    trial.report({"loss": 1.0}, state=lambda: {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("raise", "rank 1 of 2 raised ValueError: bad weights"),
        ("exit", "rank 1 of 2 exited with status 3"),
        ("kill", "rank 1 of 2 was killed by SIGKILL"),
        ("return", "rank 1 of 2 returned after 1 units, and rank 0 reports another one"),
    ],
)
def test_a_rank_that_fails_ends_all_at_once(how: str, error: str) -> None:
    trial = Alone(how=how)
    with pytest.raises(RankFailed, match=error) as caught:
        launch(fails, trial, 2)  # type: ignore[arg-type]
    assert trial.reports == [{"loss": 1.0}]
    assert not ranks_of(psutil.Process())
    if how == "raise":
        assert 'raise ValueError("bad weights")' in caught.value.story
        assert "daskhpo/distributed" not in caught.value.story


def reports_wrongly(config: Any, trial: RankTrial) -> None:
    match config["wrong"]:
        case "metric":
            trial.report({"loss": "small"})
        case "name":
            trial.report({"mistake": 1.0})
        case "state":
            trial.report({"loss": 1.0}, state={"w": 1})  # type: ignore[arg-type]
        case "kind":
            trial.report({"loss": 1.0}, state=lambda: {"w": print})
        case "raises":
            try:
                trial.report({"loss": 1.0}, state=lambda: {"w": 1 // 0})
            except BaseException:
                signal.pause()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "error", "is_fatal"),
    [
        ("metric", "reported 'loss': 'small', a str", True),
        ("name", "the study's metric 'loss' is missing", True),
        ("state", "report(state=dict) must be callable", True),
        ("kind", "builtin_function_or_method", True),
        ("raises", "ZeroDivisionError", False),
    ],
)
def test_a_wrong_report_is_the_error_that_it_is_in_one_process(
    lease: Callable[..., Lease], wrong: str, error: str, is_fatal: bool
) -> None:
    slot = lease(in_two(reports_wrongly))
    said = slot.do(job(config={"wrong": wrong}))
    if wrong in ("kind", "raises"):  # the report was good
        said = slot.do(save(CheckpointRef(7, 0, 1), CERTAIN))
    failed = erred(said)
    assert error in failed.error
    assert failed.fatal is is_fatal
    assert not ranks_of(psutil.Process())


def leaves_a_note(config: Any, trial: RankTrial) -> None:
    try:
        for _ in range(trial.resource, trial.max_t):
            trial.report({"loss": 1.0}, state=lambda: {"rank": trial.rank})
    finally:
        (Path(config["folder"]) / f"{trial.rank}").write_text(f"{trial.resource}")


@pytest.mark.slow
def test_a_trial_that_is_stopped_leaves_all_its_ranks_in_good_order(
    lease: Callable[..., Lease], tmp_path: Path
) -> None:
    slot = lease(in_two(leaves_a_note))
    slot.train(until=3, config={"folder": str(tmp_path)})
    assert len(ranks_of(psutil.Process())) == 2
    slot.do(Release(0, 1))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "2", "1": "2"}
    assert not ranks_of(psutil.Process())


def returns_early(config: Any, trial: RankTrial) -> None:
    done: list[int] = []
    while len(done) < 2:
        done.append(1)
        trial.report({"loss": 1.0}, state=lambda: {"n": len(done)})
    done.append(1)


@pytest.mark.slow
def test_the_state_with_which_ranks_return_early_is_kept(lease: Callable[..., Lease]) -> None:
    slot = lease(in_two(returns_early))
    assert slot.train(until=9).ended
    assert not ranks_of(psutil.Process())
    assert saved(slot, REF) == {"n": 3}


def waits_for_the_end(config: Any, trial: RankTrial) -> None:
    calls, folder = 0, Path(config["folder"])
    while not trial.should_stop():
        calls += 1
        (folder / "begun").touch()
        time.sleep(0.003 * trial.rank)  # one is faster
    assert trial.should_stop()
    (folder / f"{trial.rank}").write_text(f"{calls}")
    trial.report({"loss": 1.0}, state=lambda: {})


@pytest.mark.slow
def test_all_ranks_see_a_request_to_stop_at_the_same_call(
    lease: Callable[..., Lease], tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    slot = lease(in_two(waits_for_the_end))
    thread = threading.Thread(
        target=lambda: (
            wait_for((tmp_path / "begun").exists, "a rank") and slot.shutdown.start("its job ends")
        )
    )
    thread.start()
    trained = slot.train(until=9, config={"folder": str(tmp_path)})
    thread.join()
    assert trained.preempted
    calls = [(tmp_path / f"{rank}").read_text() for rank in range(2)]
    assert calls[0] == calls[1]
    assert int(calls[0]) > 0


LAUNCHES = """
import os, time
from daskhpo.distributed import launch
from tests.distributed.test_launch import Alone

def sleeps(config, trial):
    trial.report({"loss": os.getpid()})
    time.sleep(1000)

class Prints(Alone):
    def report(self, metrics, state=None):
        print("reported", flush=True)

launch(sleeps, Prints(), 2)
"""


@pytest.mark.slow
def test_ranks_end_with_the_process_of_their_trial(
    wait_for: Callable[..., Any],
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHES],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ranks = ranks_of(psutil.Process(process.pid))
        assert len(ranks) == 2
        process.kill()
        wait_for(lambda: not any(map(is_alive, ranks)), "the end of the ranks", 5.0)


# -- torch -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ddp_trains_as_one_process_does_and_continues_with_any_number_of_ranks(
    lease: Callable[..., Lease],
) -> None:
    def losses(trained: Any) -> list[float]:
        return [step.metrics["loss"] for step in trained.steps]

    config = {"lr": 0.05, "batches": 4, "ranks": 2}
    whole = losses(lease(ddp.train, max_t=4).train(until=4, config=config))
    slot = lease(ddp.in_ranks, max_t=4)
    first = slot.train(until=2, config=config)
    assert losses(first) == pytest.approx(whole[:2], rel=1e-6)
    saved(slot, REF)
    slot.do(Release(0, 1))
    for ranks in (1, 2):
        rest = slot.train(until=4, state=REF, config=config | {"ranks": ranks})
        assert [step.metrics["ranks"] for step in rest.steps] == [ranks, ranks]
        assert losses(rest) == pytest.approx(whole[2:], rel=1e-6)
        slot.do(Release(0, 1))
