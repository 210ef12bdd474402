"""What ranks say, and what follows from it: events in, decisions out."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest

from daskhpo.checkpoints.codec import snapshot
from daskhpo.core.errors import MetricError, RankFailed
from daskhpo.distributed.messages import CallsCounted, Raised, Returned, StateMade, UnitDone
from daskhpo.distributed.ranks import (
    CONSEQUENCE_SECONDS,
    AllReturned,
    AttemptFailed,
    Died,
    KeepListening,
    Ranks,
    ReportUnit,
)

UNIT = UnitDone({"loss": 1.0}, has_state=True, completes=False)
STATELESS = UnitDone({}, has_state=False, completes=False)
BAD = Raised("ValueError: bad", "Traceback (most recent call last):\nValueError: bad")
TORN = Raised("RuntimeError: [gloo/pair.cc] Connection closed by peer", "torn")


def heard(n: int, *said: tuple[int, Any], sharded: bool = False) -> Ranks:
    ranks = Ranks(n, sharded=sharded)
    for rank, what in said:
        ranks.hear(rank, what, 0.0)
    return ranks


def failure(ranks: Ranks, now: float = 0.0) -> Any:
    following = ranks.following(now)
    assert isinstance(following, AttemptFailed), following
    return following.error


def test_a_unit_is_reported_when_all_ranks_have_reported_it() -> None:
    ranks = heard(3, (2, STATELESS), (0, UNIT))
    assert ranks.following(0.0) == KeepListening()
    ranks.hear(1, STATELESS, 0.0)
    assert ranks.following(0.0) == ReportUnit(UNIT)
    ranks.go_ahead()
    assert ranks.following(0.0) == KeepListening()


def test_metrics_and_completion_are_those_of_rank_0() -> None:
    other = UnitDone({"loss": 5.0}, has_state=True, completes=True)
    assert heard(2, (1, other), (0, UNIT)).following(0.0) == ReportUnit(UNIT)


def test_it_is_over_when_all_have_returned() -> None:
    ranks = heard(2, (1, Returned()))
    assert (ranks.following(0.0), ranks.is_over(1), ranks.is_over(0)) == (
        KeepListening(),
        True,
        False,
    )
    ranks.hear(0, Returned(), 0.0)
    assert ranks.following(0.0) == AllReturned()


def test_a_death_after_the_return_is_none() -> None:
    ranks = heard(2, (0, Returned()), (0, Died(-signal.SIGSEGV)), (1, Returned()))
    assert ranks.following(0.0) == AllReturned()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ranks_that_report_unequally_often_are_named(order: tuple[int, int]) -> None:
    said = {0: UNIT, 1: Returned()}
    ranks = heard(2, *((rank, said[rank]) for rank in order))
    assert str(failure(ranks)).startswith(
        "rank 1 of 2 returned after 0 units, and rank 0 reports another one: report() must"
    )


def test_an_error_ends_the_attempt_at_once_with_its_traceback_and_rank() -> None:
    error = failure(heard(3, (1, BAD)))
    assert isinstance(error, RankFailed)
    assert (str(error), error.rank) == ("rank 1 of 3 raised ValueError: bad", 1)
    assert error.story == f"{BAD.traceback}\n(in rank 1 of 3)"


def test_an_error_of_ours_stays_what_it_is() -> None:
    own = MetricError("wrong")
    assert failure(heard(2, (1, Raised("MetricError: wrong", "...", own)))) is own


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (-signal.SIGKILL, "was killed by SIGKILL (out of memory?)"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-62, "was killed by signal 62"),
        (0, "exited with status 0 before its function returned"),
        (3, "exited with status 3 before its function returned"),
    ],
)
def test_a_death_says_how(status: int, text: str) -> None:
    error = failure(heard(2, (0, Died(status, "the last words\n"))))
    assert str(error) == f"rank 0 of 2 {text}"
    assert error.story == f"rank 0 of 2 {text}\nits last output:\nthe last words"


@pytest.mark.parametrize("cause", [BAD, Died(-signal.SIGKILL)])
def test_the_cause_is_named_although_its_consequence_is_heard_first(cause: Any) -> None:
    ranks = heard(3, (0, TORN))
    assert ranks.following(CONSEQUENCE_SECONDS / 2) == KeepListening()
    ranks.hear(2, cause, CONSEQUENCE_SECONDS / 2)
    error = failure(ranks, CONSEQUENCE_SECONDS / 2)
    assert error.rank == 2
    assert "rank 0 then failed: RuntimeError: [gloo" in error.story


def test_a_death_is_the_cause_of_an_error() -> None:
    assert failure(heard(2, (0, BAD), (1, Died(-signal.SIGKILL)))).rank == 1


def test_a_consequence_alone_is_an_error_after_a_while_or_if_no_other_rank_is_left() -> None:
    assert failure(heard(2, (0, TORN)), CONSEQUENCE_SECONDS).rank == 0
    assert failure(heard(2, (0, TORN), (1, TORN))).rank == 0
    assert failure(heard(2, (0, Returned()), (1, TORN))).rank == 1


@pytest.mark.parametrize(
    "headline",
    [
        "torch.distributed.DistBackendError: NCCL error",
        "torch.distributed.DistNetworkError: The client socket has failed",
        "DistStoreError: ...",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
        "RuntimeError: recvValue failed on SocketImpl",
    ],
)
def test_errors_of_a_torn_connection_are_known(headline: str) -> None:
    assert heard(2, (0, Raised(headline, ""))).following(0.0) == KeepListening()


@pytest.mark.parametrize("sharded", [False, True])
def test_a_state_of_some_ranks_only_is_kept_if_it_is_rank_0s_alone(sharded: bool) -> None:
    ranks = heard(2, (0, UNIT), (1, STATELESS), sharded=sharded)
    if sharded:
        assert "rank 1 of 2 gave no state= with unit 1" in str(failure(ranks))
    else:
        assert (ranks.following(0.0), ranks.with_state()) == (ReportUnit(UNIT), [0])
    ranks = heard(2, (0, STATELESS), (1, UNIT), sharded=sharded)
    assert "rank 0 of 2 gave no state=" in str(failure(ranks))


def test_states_are_those_that_were_made() -> None:
    state = snapshot({"w": np.zeros(3)}, 0, 1)
    ranks = heard(2, (1, StateMade(None)), (0, StateMade(state)))
    assert ranks.states == {0: state, 1: None}
    ranks = heard(2, (1, Returned(BAD)), (0, Returned(state)))
    assert list(ranks.last_states().items()) == [(0, state), (1, BAD)]


# -- a request to stop: all ranks see it at the same call ------------------------------------------


def test_ranks_stop_at_the_first_call_that_none_has_made() -> None:
    ranks = heard(3, (0, CallsCounted(5)), (2, CallsCounted(7)))
    assert ranks.stop_from() is None
    ranks.hear(1, CallsCounted(4), 0.0)
    assert ranks.stop_from() == 8


def test_ranks_that_have_returned_do_not_count() -> None:
    assert heard(2, (0, CallsCounted(2)), (1, Returned())).stop_from() == 3
    assert heard(2, (0, Returned()), (1, Returned())).stop_from() == 1
