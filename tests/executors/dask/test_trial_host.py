"""The worker's side of a slot on a scripted channel: commands in, messages out, no cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from daskhpo.checkpoints.codec import snapshot
from daskhpo.core.commands import Delete, Flush, Interrupt, Release, Write
from daskhpo.core.errors import CheckpointMissing
from daskhpo.core.events import Dropped, Held, Saved, Trained
from daskhpo.core.types import CheckpointRef, ReuseProbability
from daskhpo.executors.dask import trial_host
from daskhpo.executors.dask.protocol import (
    Bye,
    CutOff,
    Exit,
    Flushed,
    Happened,
    Hello,
    Peer,
    Ready,
    Refused,
    Unreadable,
)
from daskhpo.trainable import Trainable
from tests.executors.dask.lease_tools import Lease, erred, job, save

REF = CheckpointRef(7, 0, 2)
PEER = Peer("tcp://other", 3)


class Count(Trainable):
    """Counts its units; remembers what is done with its objects."""

    log: list[str]

    def setup(self, config: Any) -> None:
        self.n = 0
        self.log.append("setup")

    def step(self) -> dict[str, float]:
        self.n += 1
        return {"loss": 1 / self.n, "n": self.n}

    def save_checkpoint(self) -> Any:
        return {"n": self.n}

    def load_checkpoint(self, state: Any) -> None:
        self.n = state["n"]

    def cleanup(self) -> None:
        self.log.append("cleanup")


class Reusable(Count):
    def reset_config(self, config: Any) -> bool:
        self.n = 0
        self.log.append("reset")
        return True


def count(config: Any, trial: Any) -> None:
    """Do the same as a function."""
    n = trial.checkpoint["n"] if trial.checkpoint else 0
    while n < trial.max_t:
        n += 1
        trial.report({"loss": 1 / n, "n": n}, state=lambda n=n: {"n": n})


@pytest.fixture(autouse=True)
def log() -> list[str]:
    Count.log = []
    return Count.log


def resources(trained: Trained) -> list[int]:
    return [step.resource for step in trained.steps]


@pytest.fixture(params=[Count, count], ids=["class", "function"])
def trainable(request: pytest.FixtureRequest) -> Any:
    return request.param


# -- training ------------------------------------------------------------------------------------


def test_a_segment_is_reported_unit_by_unit_at_its_end(
    lease: Callable[..., Lease], trainable: Any
) -> None:
    slot = lease(trainable)
    first = slot.train(until=3)
    assert resources(first) == [1, 2, 3]
    assert [step.metrics["n"] for step in first.steps] == [1, 2, 3]
    assert not first.ended
    assert not first.preempted
    assert first.seconds >= first.steps[-1].seconds >= first.steps[0].seconds
    then = slot.train(until=5, launch=False)
    assert [step.metrics["n"] for step in then.steps] == [4, 5]


def test_units_of_a_long_segment_are_sent_ahead(
    lease: Callable[..., Lease], trainable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_host, "LIVE_SECONDS", 0.0)
    slot = lease(trainable)
    assert resources(slot.train(until=3)) == [1, 2, 3]
    assert [resources(live) for live in slot.channel.live] == [[1], [2]]  # the last one is reported


def test_a_function_that_returns_ends_its_trial(lease: Callable[..., Lease]) -> None:
    def short(config: Any, trial: Any) -> None:
        trial.report({"loss": 1.0})

    trained = lease(short).train(until=9)
    assert trained.ended
    assert resources(trained) == [1]


def test_a_function_that_returns_without_a_report_has_failed(lease: Callable[..., Lease]) -> None:
    error = erred(lease(lambda config, trial: None).do(job()))
    assert "without a report" in error.error
    assert not error.retry


def test_a_function_that_reports_after_its_end_is_stopped(lease: Callable[..., Lease]) -> None:
    threads: list[threading.Thread] = []

    def endless(config: Any, trial: Any) -> None:
        threads.append(threading.current_thread())
        while True:
            trial.report({"loss": 1.0})

    slot = lease(endless, max_t=2)
    assert resources(slot.train(until=2)) == [1, 2]
    slot.do(Release(0, 1))
    assert not threads[0].is_alive()


def test_a_function_may_do_something_after_its_last_report(lease: Callable[..., Lease]) -> None:
    done = []

    def train(config: Any, trial: Any) -> None:
        for _ in range(trial.max_t):
            trial.report({"loss": 1.0})
        done.append("closed its files")

    slot = lease(train, max_t=2)
    slot.train(until=2)
    slot.do(Release(0, 1))
    assert done == ["closed its files"]


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("raised", [ValueError("bad"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_the_users_code_raises_fails_its_trial_alone(
    lease: Callable[..., Lease], raised: BaseException
) -> None:
    def train(config: Any, trial: Any) -> None:
        trial.report({"loss": 1.0})
        if config.get("bad"):
            raise raised
        trial.report({"loss": 1.0})

    slot = lease(train)
    said = slot.do(job(0, 5, config={"bad": True}))
    assert resources(said.events[0]) == [1]  # nothing that was reported is lost
    error = erred(said)
    assert (error.retry, error.fatal) == (True, False)
    assert type(raised).__name__ in error.error
    assert "test_trial_host.py" in error.error
    assert "daskhpo/executors/dask/" not in error.error
    assert resources(slot.train(1, until=2)) == [1, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_not_finite_fails_the_trial_for_good(
    lease: Callable[..., Lease], value: float
) -> None:
    def train(config: Any, trial: Any) -> None:
        trial.report({"loss": 1.0})
        try:
            trial.report({"loss": value})
        except Exception:
            trial.report({"loss": 0.0})  # users' handlers must not hide it

    said = lease(train).do(job(0, 5))
    assert resources(said.events[0]) == [1]
    error = erred(said)
    assert error.error == f"loss={value} at resource 2 is not finite"
    assert not error.retry


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"accuracy": 1.0}, "'loss' is missing from a report, which has ['accuracy']"),
        ({"loss": "low"}, "report a dict of names to numbers"),
        ({"loss": 1.0, "per_class": [1, 2]}, "flat, no lists"),
        ("low", "a str; report a dict"),
        ({"loss": 1.0, "seconds": 3}, "'seconds' is reserved"),
    ],
)
def test_metrics_that_every_trial_would_report_wrongly_end_the_study(
    lease: Callable[..., Lease], metrics: Any, message: str
) -> None:
    error = erred(lease(lambda config, trial: trial.report(metrics)).do(job()))
    assert (error.retry, error.fatal) == (False, True)
    assert message in error.error


def test_a_state_that_is_not_callable_ends_the_study(lease: Callable[..., Lease]) -> None:
    def train(config: Any, trial: Any) -> None:
        trial.report({"loss": 1.0}, state={"n": 1})

    error = erred(lease(train).do(job()))
    assert error.fatal
    assert "must be callable" in error.error


def test_a_checkpoint_error_that_the_users_code_raises_is_its_failure(
    lease: Callable[..., Lease],
) -> None:
    def train(config: Any, trial: Any) -> None:
        raise CheckpointMissing("my own file")

    assert "my own file" in erred(lease(train).do(job())).error


class Block:
    """A large part of a trial's memory."""

    alive = 0

    def __init__(self) -> None:
        Block.alive += 1

    def __del__(self) -> None:
        Block.alive -= 1


def outgrow_once(trial: int) -> dict[str, Any]:
    """Metrics of a unit: the blocks that earlier trials left; trial 0 runs out of memory."""
    left, block = Block.alive, Block()
    if trial == 0:
        raise MemoryError("no room for another block")
    del block
    return {"loss": 1.0, "left": left}


class Outgrows(Trainable):
    def setup(self, config: Any) -> None:
        pass

    def step(self) -> dict[str, Any]:
        return outgrow_once(self.trial.id)


def outgrows(config: Any, trial: Any) -> None:
    trial.report(outgrow_once(trial.id))


@pytest.mark.parametrize("trainable", [Outgrows, outgrows], ids=["class", "function"])
def test_what_a_failed_trial_held_is_free_before_the_next_one_begins(
    lease: Callable[..., Lease], trainable: Any
) -> None:
    slot = lease(trainable)
    assert "MemoryError: no room for another block" in erred(slot.do(job(0))).error
    assert slot.train(1).steps[0].metrics["left"] == 0


# -- states --------------------------------------------------------------------------------------


def test_a_saved_state_is_held_and_its_trial_goes_on_from_it_here(
    lease: Callable[..., Lease], trainable: Any
) -> None:
    slot = lease(trainable)
    slot.train(until=2)
    said = slot.do(save(REF))
    (held,) = said.events
    assert held == Held(0, 1, REF, held.seconds)
    assert isinstance(slot.do(Release(0, 1)), Ready)
    slot.train(1, until=1)  # another trial in between
    trained = slot.train(0, until=4, state=REF)
    assert [step.metrics["n"] for step in trained.steps] == [3, 4]
    assert resources(trained) == [3, 4]


def test_a_trial_without_a_state_holds_none(lease: Callable[..., Lease]) -> None:
    slot = lease(lambda config, trial: [trial.report({"loss": 1.0}) for _ in range(9)])
    slot.train(until=2)
    (held,) = slot.do(save(REF)).events
    assert held == Held(0, 1, None, held.seconds)


def test_a_state_in_another_workers_memory_is_fetched(
    lease: Callable[..., Lease], trainable: Any
) -> None:
    slot = lease(trainable)
    slot.channel.peers[PEER, REF.id] = snapshot({"n": 2}, 0, 2), 30.0
    trained = slot.train(until=3, state=REF, peer=PEER)
    assert [step.metrics["n"] for step in trained.steps] == [3]


@pytest.mark.parametrize("lost", [OSError("gone"), None], ids=["peer gone", "state gone"])
def test_a_state_that_the_peer_lost_is_read_from_the_store(
    lease: Callable[..., Lease], trainable: Any, lost: OSError | None
) -> None:
    slot = lease(trainable)
    if lost is not None:
        slot.channel.peers[PEER, REF.id] = lost
    committed = slot.store.write(REF, {"n": 2})
    trained = slot.train(until=3, state=committed, peer=PEER)
    assert [step.metrics["n"] for step in trained.steps] == [3]


def test_a_state_that_is_nowhere_is_said_to_be_unreadable(lease: Callable[..., Lease]) -> None:
    slot = lease(Count)
    said = slot.do(job(until=3, state=REF, peer=PEER))
    assert isinstance(said, Unreadable)
    assert said.ref == REF
    assert "only in a worker's memory" in said.reason
    assert resources(slot.train(1)) == [1]  # the slot is as good as before


def test_a_damaged_state_is_said_to_be_unreadable(lease: Callable[..., Lease]) -> None:
    slot = lease(Count)
    committed = slot.store.write(REF, {"n": 2})
    slot.store._rows[committed.array, REF.id][1].buffer[-1] ^= 1
    said = slot.do(job(until=3, state=committed))
    assert isinstance(said, Unreadable)
    assert "CheckpointCorrupt" in said.reason


def test_a_state_that_no_checkpoint_can_hold_ends_the_study(lease: Callable[..., Lease]) -> None:
    def train(config: Any, trial: Any) -> None:
        while True:
            trial.report({"loss": 1.0}, state=lambda: {"model": object()})

    slot = lease(train)
    slot.train(until=1)
    error = erred(slot.do(save(REF)))
    assert (error.retry, error.fatal) == (False, True)


def test_a_state_that_cannot_be_made_fails_the_trial(lease: Callable[..., Lease]) -> None:
    class Broken(Count):
        def save_checkpoint(self) -> Any:
            raise RuntimeError("out of memory")

    slot = lease(Broken)
    slot.train(until=1)
    error = erred(slot.do(save(REF)))
    assert (error.retry, error.fatal) == (True, False)
    assert "out of memory" in error.error


def test_a_state_whose_shapes_do_not_fit_another_trial_names_them(
    lease: Callable[..., Lease],
) -> None:
    import numpy as np

    class Layer(Count):
        def setup(self, config: Any) -> None:
            self.n, self.weights = 0, np.zeros(config["width"])

        def save_checkpoint(self) -> Any:
            return {"weights": self.weights}

        def load_checkpoint(self, state: Any) -> None:
            self.weights += state["weights"]

    slot = lease(Layer)
    committed = slot.store.write(REF, {"weights": np.zeros(3)})
    error = erred(slot.do(job(1, 3, config={"width": 5}, state=committed)))
    assert error.fatal
    assert "(5,) here and (3,) there" in error.error


def test_orders_write_and_discard_states_meanwhile(lease: Callable[..., Lease]) -> None:
    slot = lease(Count)
    slot.train(until=2)
    slot.do(save(REF, ReuseProbability.UNLIKELY))
    slot.host.on_order(Write(REF))
    assert isinstance(slot.do(Flush((), write=False)), Flushed)
    assert [type(event) for event in slot.channel.notes] == [Saved, Dropped]
    slot.train(until=2)
    other = CheckpointRef(8, 0, 2)
    slot.do(save(other))
    slot.host.on_order(Delete(other))
    assert slot.checkpoints.get(other.id) is None


def test_a_flush_writes_what_is_named_and_drops_the_rest(lease: Callable[..., Lease]) -> None:
    slot = lease(Count)
    slot.train(until=2)
    other = CheckpointRef(8, 0, 2)
    slot.do(save(REF))
    slot.do(save(other))
    assert isinstance(slot.do(Flush((other.id,), write=False)), Flushed)
    kinds = {
        (type(e), e.ref.id if isinstance(e, Saved) else e.checkpoint_id) for e in slot.channel.notes
    }
    assert kinds == {(Saved, 8), (Dropped, 8), (Dropped, 7)}
    assert [ref.id for ref in slot.store.list()] == [8]


# -- reuse of objects ----------------------------------------------------------------------------


def test_an_object_is_reset_for_the_next_trial_and_cleaned_up_at_last(
    lease: Callable[..., Lease], log: list[str]
) -> None:
    slot = lease(Reusable)
    slot.train(0, until=2)
    slot.do(Release(0, 1))
    assert slot.train(1, until=1).steps[0].metrics["n"] == 1
    slot.host.close()
    assert log == ["setup", "reset", "cleanup"]


def test_without_reuse_each_trial_has_its_own_object(
    lease: Callable[..., Lease], log: list[str]
) -> None:
    slot = lease(Reusable, reuse=False)
    slot.train(0)
    slot.train(1)
    slot.host.close()
    assert log == ["setup", "cleanup", "setup", "cleanup"]


def test_an_object_that_was_not_reset_well_ends_the_study(lease: Callable[..., Lease]) -> None:
    class Forgetful(Count):
        def reset_config(self, config: Any) -> bool:
            return True  # n stays

    slot = lease(Forgetful, verify_reuse=True)
    slot.train(0, until=2)
    error = erred(slot.do(job(1, 2)))
    assert error.fatal
    assert "differs from a new one in loss" in error.error
    assert "n: 3 against 1" in error.error


def test_an_object_that_was_reset_well_passes_the_comparison(
    lease: Callable[..., Lease], log: list[str]
) -> None:
    slot = lease(Reusable, verify_reuse=True)
    slot.train(0, until=2)
    assert resources(slot.train(1, until=2)) == [1, 2]
    assert log == ["setup", "reset", "setup", "cleanup"]  # the second one was for comparison


def test_a_cleanup_that_raises_harms_no_other_trial(lease: Callable[..., Lease]) -> None:
    class Untidy(Count):
        def cleanup(self) -> None:
            raise RuntimeError("still open")

    slot = lease(Untidy)
    slot.train(0)
    assert resources(slot.train(1)) == [1]


# -- interruption and the worker's end -----------------------------------------------------------


def test_an_interrupted_trial_stops_between_two_units(
    lease: Callable[..., Lease], trainable: Any
) -> None:
    slot = lease(trainable)
    slot.train(until=2)
    slot.host.on_order(Interrupt(0, 1))
    trained = slot.train(until=50, launch=False)
    assert trained.preempted
    assert trained.steps == ()
    slot.host.on_order(Interrupt(1, 2))  # another attempt
    assert not slot.train(1, until=3).preempted


def test_code_sees_that_it_will_be_preempted(lease: Callable[..., Lease]) -> None:
    seen = []

    def train(config: Any, trial: Any) -> None:
        while True:
            if trial.resource == 1:
                slot.host.on_order(Interrupt(0, 1))
            seen.append(trial.should_stop())
            trial.report({"loss": 1.0})

    slot = lease(train)
    trained = slot.train(until=9)
    assert trained.preempted
    assert resources(trained) == [1, 2]
    assert seen == [False, True]


def test_a_trial_is_refused_when_no_time_is_left(lease: Callable[..., Lease]) -> None:
    slot = lease(Count)
    slot.shutdown.seconds_left = -1.0
    assert isinstance(slot.do(job()), Refused)
    assert slot.shutdown.started


def test_a_unit_that_would_not_be_done_in_time_is_not_begun(
    lease: Callable[..., Lease], trainable: Any
) -> None:
    slot = lease(trainable)
    slot.train(until=2)
    slot.shutdown.seconds_left = 0.0
    trained = slot.train(until=5, launch=False)
    assert trained.preempted
    assert slot.shutdown.reason == "its Slurm job ends before another unit of training would"
    (held,) = slot.do(save(REF)).events
    assert held.ref == REF


def test_code_that_raises_while_its_worker_is_terminated_was_cut_off(
    lease: Callable[..., Lease],
) -> None:
    def train(config: Any, trial: Any) -> None:
        trial.report({"loss": 1.0})
        slot.shutdown.signalled = True
        raise RuntimeError("DataLoader worker was killed by signal: Terminated")

    slot = lease(train)
    said = slot.do(job(until=5))
    assert isinstance(said, CutOff)
    assert resources(said.trained) == [1]
    assert "DataLoader" in said.error


def test_the_end_of_the_worker_is_announced_to_the_study(lease: Callable[..., Lease]) -> None:
    slot = lease(Count)
    slot.host.on_shutdown()
    assert slot.channel.n_leaving == 1


# -- the whole life of a lease -------------------------------------------------------------------


def test_a_lease_says_hello_and_does_as_it_is_told_until_exit(
    lease: Callable[..., Lease], log: list[str]
) -> None:
    slot = lease(Count, job(until=2), Release(0, 1), Exit())
    slot.host.serve("tcp://me", "4711")
    assert [type(said) for said in slot.channel.said] == [Hello, Happened, Ready]
    assert slot.channel.said[0] == Hello("tcp://me", "4711")
    assert log == ["setup", "cleanup"]


def test_a_lease_that_must_write_says_bye_when_all_is_written(lease: Callable[..., Lease]) -> None:
    slot = lease(Count, job(until=2), save(REF), Release(0, 1), Exit((REF.id,), write=True))
    slot.host.serve("tcp://me", "")
    assert isinstance(slot.channel.said[-1], Bye)
    assert [type(note) for note in slot.channel.notes] == [Saved, Dropped]
    assert [ref.id for ref in slot.store.list()] == [REF.id]


def test_a_lease_whose_study_is_gone_writes_nothing_and_cleans_up(
    lease: Callable[..., Lease], log: list[str]
) -> None:
    class Last(Count):
        def step(self) -> dict[str, float]:
            slot.channel.is_gone = self.n == 2
            return super().step()

    slot = lease(Last, job(until=2), save(REF), job(until=3, launch=False))
    with pytest.raises(ConnectionError):
        slot.host.serve("tcp://me", "")
    assert slot.store.list() == []
    assert log == ["setup", "cleanup"]
