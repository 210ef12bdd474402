"""The broker: who gets which worker."""

from __future__ import annotations

import pytest

from daskhpo.executors.dask.broker import Broker


class Study:
    """A tenant that takes what it is given, and gives back when it is told to leave."""

    def __init__(self, max_slots: float = float("inf"), wanted: float = float("inf")) -> None:
        self.max_slots, self.wanted = max_slots, wanted
        self.workers: list[str] = []
        self.asked_back: list[str] = []
        self.idle: set[str] = set()

    def can_use(self, worker: object) -> bool:
        return worker != "weak"

    def is_idle(self, worker: str) -> bool:
        return worker in self.idle

    def take(self, worker: str) -> None:
        self.workers.append(worker)

    def give_back(self, worker: str) -> None:
        self.asked_back.append(worker)


@pytest.fixture
def workers() -> dict[str, str]:
    return {"a": "strong", "b": "strong"}


def leave(broker: Broker, study: Study, worker: str) -> None:
    study.workers.remove(worker)
    broker.release(worker)


def test_a_worker_that_goes_is_asked_back_and_given_to_nobody(workers: dict[str, str]) -> None:
    broker, study = Broker(workers), Study()
    broker.join(study)
    broker.retire("a")
    broker.retire("a")
    assert study.asked_back == ["a"]
    leave(broker, study, "a")
    assert study.workers == ["b"]
    broker.share()
    assert study.workers == ["b"]


def test_a_worker_that_comes_at_the_address_of_one_that_went_is_given_out(
    workers: dict[str, str],
) -> None:
    broker, study = Broker(workers), Study()
    broker.join(study)
    broker.retire("a")
    del workers["a"]
    leave(broker, study, "a")
    broker.forget("a")
    workers["a"] = "strong"
    broker.share()
    assert study.workers == ["b", "a"]


def test_a_worker_that_goes_breaks_its_promise_to_another_study(workers: dict[str, str]) -> None:
    broker, first, second = Broker(workers), Study(), Study()
    broker.join(first)
    broker.join(second)
    (promised,) = first.asked_back
    broker.retire(promised)
    leave(broker, first, promised)
    assert second.workers == []


def test_a_worker_that_is_not_needed_is_freed_and_taken_again_when_it_is_wanted(
    workers: dict[str, str],
) -> None:
    broker, study = Broker(workers), Study(wanted=1)
    broker.join(study)
    broker.spare("b")
    assert study.asked_back == ["b"]
    leave(broker, study, "b")
    broker.share()
    assert not broker.is_held("b")
    study.wanted = 2
    broker.share()
    assert study.workers == ["a", "b"]


def test_a_worker_that_one_study_does_not_need_goes_to_another_that_does(
    workers: dict[str, str],
) -> None:
    broker, first, second = Broker(workers), Study(wanted=1), Study(max_slots=0, wanted=0)
    broker.join(first)
    broker.join(second)
    broker.spare("b")
    second.max_slots = second.wanted = 1
    leave(broker, first, "b")
    assert second.workers == ["b"]


def test_a_worker_that_is_promised_or_goes_is_not_freed_a_second_time(
    workers: dict[str, str],
) -> None:
    broker, study = Broker(workers), Study()
    broker.join(study)
    broker.retire("a")
    broker.spare("a")
    broker.join(Study(wanted=1))
    assert study.asked_back == ["a", "b"]
    broker.spare("b")
    assert study.asked_back == ["a", "b"]


def test_what_is_wanted_is_the_sum_over_all_studies(workers: dict[str, str]) -> None:
    broker = Broker(workers)
    assert broker.wanted == 0
    broker.join(Study(wanted=2))
    broker.join(Study(wanted=3))
    assert broker.wanted == 5


def test_a_worker_is_idle_if_nobody_has_it_or_its_study_runs_nothing_there(
    workers: dict[str, str],
) -> None:
    broker, study = Broker(workers), Study(max_slots=1)
    broker.join(study)
    assert not broker.is_idle("a")
    assert broker.is_idle("b")
    study.idle = {"a"}
    assert broker.is_idle("a")
