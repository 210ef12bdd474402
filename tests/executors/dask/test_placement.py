"""Slots for trials that run once more where there is more memory: alone, or on a larger worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daskhpo.core.commands import Interrupt, Release, Train
from daskhpo.core.events import AttemptLost, Erred, SlotsChanged
from daskhpo.core.out_of_memory import Alone, Larger, MemoryKind, OutOfMemory, Placement
from daskhpo.executors.dask import waiting
from daskhpo.executors.dask.channel import LeaseLost, Received
from daskhpo.executors.dask.placement import Placements, Site
from daskhpo.executors.dask.protocol import Happened, Hello, Job, Ready
from tests.executors.dask.test_executor import Desk, kinds

DEVICE, HOST, LIMIT = MemoryKind.DEVICE, MemoryKind.HOST, MemoryKind.LIMIT


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.inbox.close()


def hello(desk: Desk, slot: int, site: Site) -> Received:
    return desk.say(slot, Hello(f"tcp://worker-{slot}", "", site))


def launch(trial: int, placement: Placement | None = None) -> Train:
    return Train(trial, 1, {}, 0, 3, None, True, placement)


def leave(desk: Desk, slot: int, trial: int) -> list[object]:
    """The trial in a slot ends; the slot is free."""
    desk.hear(desk.say(slot, Happened(())))
    desk.executor.perform([Release(trial, 1)])
    return desk.hear(desk.say(slot, Ready()))


def running(desk: Desk) -> dict[int, int]:
    """The slots of the trials that have begun."""
    return dict(desk.executor._slot_of)


# -- what shares memory --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "kind", "shares"),
    [
        (Site("a"), Site("a"), HOST, True),
        (Site("a"), Site("b"), HOST, False),
        (Site("a", ("/0",)), Site("a", ("/1",)), HOST, True),
        (Site("a", ("/0",)), Site("a", ("/1",)), DEVICE, False),
        (Site("a", ("/0", "/1")), Site("a", ("/1",)), DEVICE, True),
        (Site("a", ("/0",)), Site("b", ("/0",)), DEVICE, False),
        (Site("a"), Site("a", ("/1",)), DEVICE, True),
    ],
)
def test_slots_of_a_machine_or_a_device_share_its_memory(one, other, kind, shares):
    assert one.shares(other, kind) is shares
    assert other.shares(one, kind) is shares


def test_what_a_trial_lacked_is_told_with_what_there_is():
    places = Placements()
    places.open(0, Site("a", memory=8, device_memory=80))
    places.open(1, Site("b", memory=16, device_memory=80))
    assert places.found(HOST, 0) == OutOfMemory(HOST, 8, True)
    assert places.found(LIMIT, 1) == OutOfMemory(LIMIT, 16, False)
    assert places.found(DEVICE, 0) == OutOfMemory(DEVICE, 80, False)
    places.open(2, Site("c"))
    assert places.found(HOST, 2) == OutOfMemory(HOST, 0, False), "of an unknown size none is larger"


# -- alone ---------------------------------------------------------------------------------------


def test_a_trial_alone_waits_for_its_neighbours_and_keeps_their_slots_closed(desk: Desk) -> None:
    desk.hear(*(hello(desk, n, Site("a")) for n in range(3)), hello(desk, 3, Site("b")))
    desk.executor.perform([launch(0), launch(1), launch(2)])
    assert running(desk) == {0: 3, 1: 2, 2: 1}
    desk.executor.perform([launch(9, Alone(HOST))])
    assert 9 not in running(desk), "slot 0 is kept for it, and 1 and 2 are in use"
    assert kinds(leave(desk, 1, 2)) == [SlotsChanged]
    desk.executor.perform([launch(3)])
    assert 3 not in running(desk), "slot 1 is closed"
    desk.hear(desk.say(2, Happened(())))
    desk.executor.perform([Release(1, 1)])
    assert running(desk)[9] == 0
    assert desk.executor._n_slots() == 2, "its own, and the one of the other machine"


def test_its_neighbours_open_again_when_it_leaves(desk: Desk) -> None:
    desk.hear(*(hello(desk, n, Site("a")) for n in range(3)))
    desk.executor.perform([launch(9, Alone(HOST))])
    (changed,) = desk.executor.poll(desk.executor.now())
    assert changed == SlotsChanged(1, changed.seconds)
    assert running(desk) == {9: 0}
    desk.hear(desk.say(0, Happened(())))
    desk.executor.perform([Release(9, 1)])
    (changed,) = desk.executor.poll(desk.executor.now())
    assert changed == SlotsChanged(3, changed.seconds)
    desk.executor.perform([launch(1), launch(2)])
    assert len(running(desk)) == 2


def test_a_launch_for_a_slot_that_was_just_closed_is_given_back(desk: Desk) -> None:
    desk.hear(hello(desk, 0, Site("a")), hello(desk, 1, Site("a")))
    desk.executor.perform([launch(9, Alone(HOST)), launch(1)])
    changed, lost = desk.executor.poll(desk.executor.now())
    assert changed == SlotsChanged(1, changed.seconds)
    assert isinstance(lost, AttemptLost)
    assert (lost.trial, lost.blame) == (1, False)


def test_on_devices_of_their_own_trials_are_alone(desk: Desk) -> None:
    desk.hear(hello(desk, 0, Site("a", ("/0",))), hello(desk, 1, Site("a", ("/1",))))
    desk.executor.perform([launch(0), launch(9, Alone(DEVICE))])
    assert running(desk) == {0: 1, 9: 0}
    assert desk.executor._n_slots() == 2


def test_two_that_run_alone_follow_one_another(desk: Desk) -> None:
    desk.hear(hello(desk, 0, Site("a")), hello(desk, 1, Site("a")))
    desk.executor.perform([launch(8, Alone(HOST)), launch(9, Alone(HOST))])
    assert running(desk) == {8: 0}
    leave(desk, 0, 8)
    assert set(running(desk)) == {9}


def test_a_worker_that_comes_to_its_machine_is_closed(desk: Desk) -> None:
    desk.hear(hello(desk, 0, Site("a")))
    desk.executor.perform([launch(9, Alone(HOST))])
    desk.hear(hello(desk, 1, Site("a")))
    desk.executor.perform([launch(1)])
    assert running(desk) == {9: 0}
    assert desk.executor._n_slots() == 1


def test_if_its_slot_is_lost_it_gets_another_one(desk: Desk) -> None:
    desk.hear(hello(desk, 0, Site("a")), hello(desk, 1, Site("a")))
    desk.executor.perform([launch(0)])
    desk.executor.perform([launch(9, Alone(HOST))])
    assert running(desk) == {0: 1}
    desk.hear(LeaseLost(0, "gone"), hello(desk, 2, Site("b")))
    assert running(desk) == {0: 1, 9: 2}


def test_one_that_is_stopped_while_it_waits_opens_the_slots(desk: Desk) -> None:
    desk.hear(hello(desk, 0, Site("a")), hello(desk, 1, Site("a")), hello(desk, 2, Site("a")))
    desk.executor.perform([launch(0)])
    desk.executor.perform([launch(9, Alone(HOST))])
    desk.executor.perform([Interrupt(9, 1, alone=True)])
    desk.executor.perform([launch(1), launch(2)])
    assert set(running(desk)) == {0, 1, 2}


# -- larger --------------------------------------------------------------------------------------


def test_a_trial_waits_for_the_smallest_worker_that_is_larger(desk: Desk) -> None:
    for slot, memory in enumerate([8, 32, 16]):
        desk.hear(hello(desk, slot, Site("a", memory=memory)))
    desk.executor.perform([launch(9, Larger(HOST, 8)), launch(0)])
    assert running(desk) == {9: 2, 0: 1}
    desk.executor.perform([launch(8, Larger(LIMIT, 8))])
    assert 8 not in running(desk), "slot 0 is too small"
    leave(desk, 1, 0)
    assert running(desk)[8] == 1


def test_if_no_larger_worker_serves_the_study_it_fails(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LARGER_SECONDS", 0.05)
    desk.hear(hello(desk, 0, Site("a", memory=8_000_000_000)))
    desk.executor.perform([launch(9, Larger(HOST, 8_000_000_000))])
    (erred,) = desk.hear()
    assert isinstance(erred, Erred)
    assert erred.error == "no worker with more than 8 GB serves the study"
    assert erred.out_of_memory == OutOfMemory(HOST, 8_000_000_000)
    desk.executor.perform([launch(1)])
    assert running(desk) == {1: 0}


def test_a_larger_worker_counts_while_its_process_is_replaced() -> None:
    places = Placements()
    places.open(0, Site("a", memory=8))
    assert places.found(HOST, 0) == OutOfMemory(HOST, 8, has_larger=False)
    places.open(1, Site("a", memory=16))
    places.close(1)
    assert places.found(HOST, 0) == OutOfMemory(HOST, 8, has_larger=True)
    assert not places.has_larger(Larger(HOST, 8))  # a trial waits for it
    assert places.largest() == (16, 0)


def test_one_that_comes_in_time_runs_it(desk: Desk) -> None:
    desk.hear(hello(desk, 0, Site("a", memory=8)))
    desk.executor.perform([launch(9, Larger(HOST, 8))])
    desk.hear(hello(desk, 1, Site("a", memory=9)))
    assert running(desk) == {9: 1}


# -- what killed a worker ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lacked", "killer"), [(HOST, "the kernel"), (LIMIT, "Dask, over its limit")]
)
def test_a_worker_that_lacked_memory_is_an_outcome_of_its_trial(
    lacked: MemoryKind, killer: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LARGER_SECONDS", 0.0)
    desk.hear(hello(desk, 0, Site("a", memory=8)), hello(desk, 1, Site("a", memory=9)))
    desk.executor.perform([launch(0)])
    slot = running(desk)[0]
    changed, erred = desk.hear(LeaseLost(slot, "worker tcp://w was lost", lacked))
    assert isinstance(changed, SlotsChanged)
    assert isinstance(erred, Erred)
    assert not erred.retry
    assert erred.error == (
        f"worker tcp://w was lost: its process was killed by {killer}, for want of memory"
    )
    assert erred.out_of_memory == OutOfMemory(lacked, 9 if slot else 8, not slot)


@pytest.mark.parametrize(("seconds", "may_come"), [(0.0, False), (60.0, True)])
def test_an_error_in_a_slot_says_how_much_memory_that_has(
    seconds: float, may_come: bool, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A larger worker may come soon after the first one."""
    monkeypatch.setattr(waiting, "LARGER_SECONDS", seconds)
    desk.hear(hello(desk, 0, Site("a", device_memory=40)))
    desk.executor.perform([launch(0)])
    full = Erred(0, 1, "CUDA out of memory", 0.0, True, False, OutOfMemory(DEVICE))
    (erred,) = desk.hear(desk.say(0, Happened((full,))))
    assert erred.out_of_memory == OutOfMemory(DEVICE, 40, may_come)
    assert desk.answered[-1] == ("Hello-0", Job)
