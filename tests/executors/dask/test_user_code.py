"""Each point at which the user's code gets control, or gives it back, has a defined outcome."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from daskhpo.core.commands import Release
from daskhpo.core.events import Erred, Held, Trained
from daskhpo.core.types import CheckpointRef, ReuseProbability
from daskhpo.executors.dask import runners
from daskhpo.executors.dask.protocol import Happened
from daskhpo.trainable import Trainable
from tests.executors.dask.lease_tools import Lease, erred, job, save

REF = CheckpointRef(7, 0, 2)


# -- a function that returns early -----------------------------------------------------------------


def test_the_state_of_a_function_that_returned_is_saved(lease: Callable[..., Lease]) -> None:
    def train(config: Any, trial: Any) -> None:
        done: list[int] = []
        while len(done) < 2:  # its own early stopping
            done.append(1)
            trial.report({"loss": 1.0}, state=lambda: {"n": len(done)})

    slot = lease(train)
    assert slot.train(until=9).ended
    said = slot.do(save(REF, ReuseProbability.CERTAIN))
    assert isinstance(said, Happened)
    [held] = said.events
    assert isinstance(held, Held)
    assert held.ref == REF
    assert slot.checkpoints.restore(REF, None)[0] == {"n": 2}
    slot.do(Release(0, 1))
    assert slot.train(trial=1, until=9).ended  # the slot lives


def test_a_state_that_no_longer_can_be_made_fails_the_trial(lease: Callable[..., Lease]) -> None:
    def train(config: Any, trial: Any) -> None:
        model: dict[str, int] = {}
        trial.report({"loss": 1.0}, state=lambda: model["weights"])

    slot = lease(train)
    assert slot.train(until=9).ended
    assert "KeyError: 'weights'" in erred(slot.do(save(REF))).error


def test_a_function_that_does_not_look_at_its_state_is_warned_of(
    lease: Callable[..., Lease],
) -> None:
    def forgets(config: Any, trial: Any) -> None:
        while True:
            trial.report({"loss": 1.0}, state=lambda: {"n": 1})

    def reads(config: Any, trial: Any) -> None:
        assert trial.checkpoint in (None, {"n": 1})
        forgets(config, trial)

    for train, n_warnings in ((reads, 0), (forgets, 1)):
        slot = lease(train)
        slot.train(until=2)
        slot.do(save(REF, ReuseProbability.CERTAIN))
        slot.do(Release(0, 1))
        assert slot.channel.warnings == []  # a first launch
        slot.train(until=5, state=REF)
        assert len(slot.channel.warnings) == n_warnings
    assert "did not read trial.checkpoint" in slot.channel.warnings[0]


def test_a_trial_knows_all_devices_of_its_slot(lease: Callable[..., Lease]) -> None:
    def train(config: Any, trial: Any) -> None:
        seen.append((trial.device, trial.devices))
        trial.report(1.0)

    seen: list[Any] = []
    for device, n in (("cpu", 1), ("cuda:0", 1), ("cuda:2", 3)):
        lease(train, device=device, n_devices=n).train()
    assert seen == [
        ("cpu", ("cpu",)),
        ("cuda:0", ("cuda:0",)),
        ("cuda:2", ("cuda:2", "cuda:3", "cuda:4")),
    ]


# -- one value, and an end of its own --------------------------------------------------------------


def test_a_function_of_the_configuration_alone_returns_its_value(
    lease: Callable[..., Lease],
) -> None:
    for returned in (0.5, {"loss": 0.5, "size": 3}):
        trained = lease(lambda config, returned=returned: returned, max_t=1).train(until=1)
        assert [step.metrics["loss"] for step in trained.steps] == [0.5]
    trained = lease(lambda config, trial: 0.5).train(until=9)
    assert ([step.metrics for step in trained.steps], trained.ended) == ([{"loss": 0.5}], True)


def test_a_value_that_is_returned_after_reports_is_none(lease: Callable[..., Lease]) -> None:
    def train(config: Any, trial: Any) -> float:
        trial.report(1.0)
        return 2.0

    trained = lease(train).train(until=9)
    assert [step.metrics for step in trained.steps] == [{"loss": 1.0}]


def test_a_class_may_report_the_metric_alone_and_complete_its_trial(
    lease: Callable[..., Lease],
) -> None:
    class Stops(Recorded):
        def step(self) -> float:
            if self.trial.resource == 2:
                self.trial.complete()
            return 0.5

    Recorded.log, Recorded.raises = [], ""
    trained = lease(Stops, verify_reuse=True).train(until=9)
    assert [step.resource for step in trained.steps] == [1, 2, 3]
    assert trained.ended


def test_a_function_may_complete_its_trial_too(lease: Callable[..., Lease]) -> None:
    def train(config: Any, trial: Any) -> None:
        while True:
            if trial.resource == 2:
                trial.complete()
            trial.report(0.5)

    slot = lease(train)
    assert slot.train(until=9).ended
    slot.do(Release(0, 1))
    assert slot.train(trial=1, until=9).ended


# -- code that catches what ends it ----------------------------------------------------------------


def final_report(config: Any, trial: Any) -> None:
    try:
        for _ in range(trial.max_t):
            trial.report({"loss": 1.0})
    finally:
        trial.report({"loss": 2.0})


def final_report_and_error(config: Any, trial: Any) -> None:
    try:
        for _ in range(trial.max_t):
            trial.report({"loss": 1.0})
    finally:
        raise ValueError("the log cannot be closed")


def bare_except(config: Any, trial: Any) -> None:
    for _ in range(trial.max_t):
        try:
            trial.report({"loss": 1.0})
        except:  # noqa: E722
            continue


def asks(config: Any, trial: Any) -> None:
    while not trial.should_stop():
        try:
            trial.report({"loss": 1.0})
        except BaseException:
            continue


@pytest.mark.parametrize("train", [final_report, final_report_and_error, bare_except, asks])
@pytest.mark.parametrize("until", [2, 9])
def test_a_stopped_function_ends_whatever_it_catches(
    train: Any, until: int, lease: Callable[..., Lease]
) -> None:
    slot = lease(train, max_t=9)
    assert [step.resource for step in slot.train(until=until).steps] == [*range(1, until + 1)]
    slot.do(Release(0, 1))
    assert not any(thread.name == "trial-0" for thread in threading.enumerate())
    assert slot.shutdown.reason is None
    slot.train(trial=1, until=1)


def test_a_function_that_never_ends_costs_its_process_and_nothing_else(
    lease: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "STOP_SECONDS", 0.1)
    leave = threading.Event()

    def train(config: Any, trial: Any) -> None:
        while not leave.is_set():
            try:
                trial.report({"loss": 1.0})
            except BaseException:
                leave.wait(0.01)

    for max_t in (9, 2):  # stopped, and trained to the end
        leave.clear()
        slot = lease(train, max_t=max_t)
        slot.train(until=2)
        slot.do(Release(0, 1))
        assert slot.shutdown.reason is not None
        assert "trial 0 was stopped, but its code still runs" in slot.shutdown.reason
        assert slot.shutdown.restart
        leave.set()


@pytest.mark.parametrize("wrong", [{"score": 1.0}, {"loss": "low"}, [1.0], {"loss": 10**400}])
def test_a_report_that_is_wrong_ends_the_study_also_if_the_code_catches_the_error(
    wrong: Any, lease: Callable[..., Lease]
) -> None:
    def train(config: Any, trial: Any) -> None:
        for _ in range(trial.max_t):
            try:
                trial.report(wrong)
            except BaseException:
                continue

    error = erred(lease(train, max_t=3).do(job(until=3)))
    assert error.fatal
    assert "loss" in error.error


def test_a_metric_that_is_not_finite_fails_the_trial_also_if_the_code_catches_that(
    lease: Callable[..., Lease],
) -> None:
    def train(config: Any, trial: Any) -> None:
        trial.report({"loss": 1.0})
        try:
            trial.report({"loss": float("nan")})
        except BaseException:
            trial.report({"loss": 1.0})

    said = lease(train).do(job(until=9))
    assert isinstance(said, Happened)
    trained, error = said.events
    assert isinstance(trained, Trained)
    assert [step.resource for step in trained.steps] == [1]
    assert isinstance(error, Erred)
    assert "loss=nan at resource 2" in error.error


@pytest.mark.parametrize("error", [OSError("no such file"), SystemExit(3), KeyboardInterrupt()])
def test_what_state_raises_is_the_trials_error_also_if_the_code_would_catch_it(
    error: BaseException, lease: Callable[..., Lease]
) -> None:
    caught: list[BaseException] = []

    def fail() -> Any:
        raise error

    def train(config: Any, trial: Any) -> None:
        for _ in range(trial.max_t):
            try:
                trial.report({"loss": 1.0}, state=fail)
            except Exception as error:
                caught.append(error)

    slot = lease(train, max_t=9)
    slot.train(until=2)
    said = erred(slot.do(save(REF)))
    assert type(error).__name__ in said.error
    assert caught == []


# -- objects are cleaned up -----------------------------------------------------------------------


class Recorded(Trainable):
    log: list[str]
    raises: str

    def say(self, what: str) -> None:
        self.log.append(what)
        if self.raises == what:
            raise RuntimeError(f"{what} failed")

    def setup(self, config: Any) -> None:
        self.say("setup")

    def step(self) -> dict[str, float]:
        self.say("step")
        return {"loss": 1.0}

    def save_checkpoint(self) -> Any:
        self.say("save")
        return {"n": 1}

    def load_checkpoint(self, state: Any) -> None:
        self.say("load")

    def reset_config(self, config: Any) -> bool:
        self.say("reset")
        return self.raises != "setup"  # else a new object is set up

    def cleanup(self) -> None:
        self.log.append("cleanup")


@pytest.mark.parametrize("raises", ["setup", "step", "save", "load", "reset"])
@pytest.mark.parametrize("verify", [False, True])
def test_each_object_that_was_set_up_is_cleaned_up_once(
    raises: str, verify: bool, lease: Callable[..., Lease]
) -> None:
    Recorded.log, Recorded.raises = [], ""
    slot = lease(Recorded, verify_reuse=verify)
    slot.train(until=2)
    slot.do(save(REF, ReuseProbability.CERTAIN))
    Recorded.raises = raises if raises != "save" else ""
    slot.do(job(trial=1, until=1, state=REF if raises == "load" else None))
    Recorded.raises = raises
    if raises == "save":
        slot.do(save(CheckpointRef(8, 1, 1)))
    Recorded.raises = ""
    assert f"{raises} failed" in erred(slot.channel.said[-1]).error
    slot.train(trial=2, until=1)
    slot.host.close()
    assert Recorded.log.count("setup") == Recorded.log.count("cleanup")


# -- texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["t\udce9l\udce9.csv", "x" * 10**7], ids=["surrogate", "endless"])
def test_the_text_of_an_error_arrives_whatever_it_holds(
    text: str, lease: Callable[..., Lease]
) -> None:
    def train(config: Any, trial: Any) -> None:
        raise ValueError(f"cannot parse {text}, sorry")

    error = erred(lease(train).do(job())).error
    error.encode()
    assert "cannot parse" in error
    assert error.endswith("sorry")
    assert len(error) < 60_000


def test_an_exception_without_a_text_is_an_error_too(lease: Callable[..., Lease]) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise TypeError("no text")

    def train(config: Any, trial: Any) -> None:
        raise Odd

    error = erred(lease(train).do(job())).error
    assert "Odd" in error
    assert traceback.__name__ not in error
