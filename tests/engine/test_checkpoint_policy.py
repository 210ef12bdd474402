"""The policy: what users may ask for, what is taken, and what goes first."""

from __future__ import annotations

from types import MappingProxyType
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Continue,
    Pause,
    ReuseProbability,
    Status,
    Stop,
    Trial,
    WritePolicy,
)
from daskhpo.engine.checkpoint_policy import (
    check_policy,
    eviction_candidate,
    is_full,
    n_retained,
    next_checkpoint,
    reuse_probability,
)

# -- what users ask for --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auto", "rung", "end", "never"])
def test_a_name_is_a_policy(name):
    assert check_policy(name) == CheckpointPolicy(write=name)


@pytest.mark.parametrize(("text", "every"), [("every:1", 1), ("every:25", 25)])
def test_every_takes_a_number_of_units(text, every):
    assert check_policy(text) == CheckpointPolicy("every", every=every)


def test_a_policy_in_full_is_itself():
    policy = CheckpointPolicy(
        "every",
        every=2,
        keep_best=0,
        max_bytes=1,
        max_files=1,
        durability=0.5,
        memory=0,
        staging="$TMPDIR",
    )
    assert check_policy(policy) == policy
    assert check_policy(check_policy("every:3")) == check_policy("every:3")


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1000", 1000),
        ("7 b", 7),
        ("500 MB", 500 * 10**6),
        ("2GB", 2 * 10**9),
        ("1.5 kB", 1500),
        (" 3 TB ", 3 * 10**12),
        ("1e3 KB", 10**6),
        ("2 KiB", 2048),
        ("0.5 MiB", 2**19),
        ("4 gib", 2**32),
        ("1 TiB", 2**40),
    ],
)
@pytest.mark.parametrize("name", ["max_bytes", "memory"])
def test_sizes_may_be_texts(name, text, n_bytes):
    assert getattr(check_policy(CheckpointPolicy(**{name: text})), name) == n_bytes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"checkpoint=None must be a name, such as 'auto', or a CheckpointPolicy"),
        (3, r"checkpoint=3 must be a name"),
        (CheckpointPolicy("every", every=2.0), r"every=2\.0 must be an int of"),
        (CheckpointPolicy(keep_best=True), r"keep_best=True must be an int of"),
        (CheckpointPolicy(max_files="3"), r"max_files='3' must be an int of"),
        (CheckpointPolicy(max_bytes=2e9), r"max_bytes=2000000000\.0 must be an int of"),
    ],
)
def test_what_is_no_policy_at_all_is_a_type_error(given, message):
    with pytest.raises(TypeError, match=message):
        check_policy(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "always",
            r"checkpoint='always' must be one of 'auto', 'rung', 'end', 'never' or 'every:N' "
            r"\(also after every N units\)",
        ),
        ("", r"checkpoint='' must be one of 'auto'"),
        ("Auto", r"checkpoint='Auto' must be one of 'auto'"),
        (
            "every:",
            r"checkpoint='every:' must say after how many units: 'every:N', such as",
        ),
        ("every:x", r"checkpoint='every:x' must say after how many units: 'every:N'"),
        ("every:1.5", r"checkpoint='every:1\.5' must say after how many units: 'every:N'"),
        ("every:-1", r"checkpoint='every:-1' must say after how many units: 'every:N'"),
        ("every: 2", r"checkpoint='every: 2' must say after how many units: 'every:N'"),
        (
            "rung:5",
            r"checkpoint='rung:5' must be one of 'auto', 'rung', 'end', 'never' or",
        ),
        ("every:0", r"every=0 must be at least 1"),
        (CheckpointPolicy("every", every=0), r"every=0 must be at least 1"),
        (CheckpointPolicy("auto", every=5), r"every=5 is allowed with write='every' only"),
        (CheckpointPolicy(keep_best=-1), r"keep_best=-1 must be at least 0"),
        (CheckpointPolicy(max_files=0), r"max_files=0 must be at least 1"),
        (CheckpointPolicy(max_bytes=0), r"max_bytes=0 must be at least 1"),
        (CheckpointPolicy(memory=-1), r"memory=-1 must be at least 0"),
        (CheckpointPolicy(memory="-1 GB"), r"memory=-1000000000 must be at least 0"),
        (CheckpointPolicy(durability=0), r"durability=0 must be above 0"),
        (CheckpointPolicy(durability=float("nan")), r"durability=nan must be finite"),
        (CheckpointPolicy(durability="1"), r"durability='1' must be a number above 0"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_what_is(given, message):
    with pytest.raises(ValueError, match=message):
        check_policy(given)


@pytest.mark.parametrize("text", ["", "GB", "2 XB", "2 G", "two GB", "2 GB 3", "nan GB", "inf GB"])
@pytest.mark.parametrize("name", ["max_bytes", "memory"])
def test_a_text_that_is_no_size_is_refused_with_examples(name, text):
    with pytest.raises(ValueError, match=rf"{name}='{text}' must be .* such as '500 MB' or '2 GB'"):
        check_policy(CheckpointPolicy(**{name: text}))


# -- what is taken -------------------------------------------------------------------------------

S, R, P = ReuseProbability.CERTAIN, ReuseProbability.LIKELY, ReuseProbability.UNLIKELY


@pytest.mark.parametrize(
    ("write", "hands_over", "real_pause", "poor_pause", "goes_on", "ends_kept"),
    [
        ("auto", S, R, P, None, S),
        ("every", S, S, S, None, S),
        ("rung", S, S, S, S, S),
        ("end", S, S, S, None, S),
        ("never", None, None, None, None, None),
    ],
)
def test_the_chance_of_a_state_follows_from_the_policy_and_the_decision(
    write, hands_over, real_pause, poor_pause, goes_on, ends_kept
):
    policy = CheckpointPolicy(write)
    for kept in (True, False):
        assert reuse_probability(policy, None, kept) is hands_over
        assert reuse_probability(policy, Pause(keep=True), kept) is real_pause
        assert reuse_probability(policy, Pause(keep=False), kept) is poor_pause
        assert reuse_probability(policy, Continue(9), kept) is goes_on
    assert reuse_probability(policy, Stop("x"), retained=True) is ends_kept
    assert reuse_probability(policy, Stop("x"), retained=False) is None


@pytest.mark.parametrize(
    ("write", "n"),
    [("auto", 1), ("every", 1), ("rung", float("inf")), ("end", float("inf")), ("never", 0)],
)
def test_a_policy_says_of_how_many_ended_trials_a_checkpoint_is_kept(write, n):
    assert n_retained(CheckpointPolicy(write)) == n
    assert n_retained(CheckpointPolicy(write, keep_best=5)) == 5
    assert n_retained(CheckpointPolicy(write, keep_best=0)) == 0


def test_every_policy_is_in_these_tables():
    assert set(get_args(WritePolicy)) == {"auto", "every", "rung", "end", "never"}


@given(every=st.none() | st.integers(1, 20), resource=st.integers(0, 99), length=st.integers(1, 99))
def test_training_stops_at_multiples_of_every_and_at_the_segments_end(every, resource, length):
    until = resource + length
    policy = CheckpointPolicy("auto" if every is None else "every", every)
    stops = [until] if every is None else [*range(0, until, every), until]
    assert next_checkpoint(policy, resource, until) == min(
        stop for stop in stops if stop > resource
    )


# -- budgets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_bytes", "n_files", "full"),
    [(0, 0, False), (900, 9, False), (901, 0, True), (0, 10, True), (1001, 11, True)],
)
def test_a_budget_is_full_above_nine_tenths(n_bytes, n_files, full):
    assert is_full(CheckpointPolicy(max_bytes=1000, max_files=10), n_bytes, n_files) is full


def test_each_budget_counts_alone_and_without_one_nothing_is_full():
    assert not is_full(CheckpointPolicy(), 10**15, 10**9)
    assert is_full(CheckpointPolicy(max_bytes=10), 10, 0)
    assert is_full(CheckpointPolicy(max_files=10), 0, 10)


def test_a_budget_of_one_file_holds_one():
    policy = CheckpointPolicy(max_files=1)
    assert [is_full(policy, 0, n_files) for n_files in (0, 1, 2)] == [False, False, True]


def a_trial(number, resource=1, best_loss=1.0, checkpoint=True, previous=False, ended=False):
    def ref(row):
        return CheckpointRef(row, number, resource, "a", 10, 1)

    return Trial(
        number,
        {},
        Status.STOPPED if ended else Status.PAUSED,
        until=resource,
        resource=resource,
        checkpoint=ref(2 * number + 1) if checkpoint else None,
        previous=ref(2 * number) if previous else None,
        best_loss=best_loss,
    )


def in_order(living, ended, chances=MappingProxyType({})):
    """Who gives up what, one after another: (number, whether the previous one)."""
    living, ended = ({trial.id: trial for trial in trials} for trials in (living, ended))
    order = []
    while (found := eviction_candidate(living.values(), ended.values(), chances)) is not None:
        trial = (living | ended)[found.trial]
        previous = found == trial.previous
        order.append((trial.id, previous))
        left = trial._replace(previous=None)
        if not previous:
            left = left._replace(checkpoint=None)
        (ended if trial.status.ended else living)[trial.id] = left
    return order


def test_first_go_spare_ones_then_the_shortest_and_worst_then_those_that_have_ended():
    living = [
        a_trial(0, resource=9, best_loss=5.0, previous=True),
        a_trial(1, resource=3, best_loss=1.0, previous=True),
        a_trial(2, resource=3, best_loss=2.0),
        a_trial(3, resource=1, best_loss=0.1),
        a_trial(4, resource=9, best_loss=0.2),
        a_trial(5, resource=1, best_loss=0.0, checkpoint=False),
    ]
    ended = [
        a_trial(6, best_loss=0.5, ended=True),
        a_trial(7, best_loss=9.0, ended=True),
        a_trial(8, best_loss=0.1, ended=True, checkpoint=False),
    ]
    spare = [(1, True), (0, True)]
    assert in_order(living, ended) == [
        *spare,
        *[(number, False) for number in (3, 2, 1, 0, 4)],
        *[(number, False) for number in (7, 6)],
    ]


def test_of_equals_the_trial_that_began_last_goes_first():
    living = [a_trial(number) for number in range(3)]
    ended = [a_trial(number, ended=True) for number in (3, 4)]
    assert [number for number, _ in in_order(living, ended)] == [2, 1, 0, 4, 3]


def test_where_there_is_no_checkpoint_none_can_go():
    assert eviction_candidate([], [], {}) is None
    living, ended = [a_trial(0, checkpoint=False)], [a_trial(1, checkpoint=False)]
    assert eviction_candidate(living, ended, {}) is None


def test_training_counts_as_much_as_the_chance_that_it_is_continued():
    living = [
        a_trial(0, resource=9, best_loss=0.1),
        a_trial(1, resource=3, best_loss=0.3),
        a_trial(2, resource=3, best_loss=0.2),
        a_trial(3, resource=1, best_loss=0.4, previous=True),
    ]
    chances = {0: 0.1, 1: 0.8, 2: 0.4}  # 0.9, 2.4, 1.2 and, of the last one, 1 units
    order = [(3, True), *[(number, False) for number in (0, 3, 2, 1)]]
    assert in_order(living, [], chances) == order
