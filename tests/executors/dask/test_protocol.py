"""Messages on the wire: what is sent is what arrives."""

from __future__ import annotations

import dataclasses
import types
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskhpo.core.events import Dropped, Erred, Step, Trained
from daskhpo.executors.dask import protocol
from daskhpo.executors.dask.protocol import Call, arrived, trained_at
from daskhpo.executors.dask.wire import Codec

CODECS = {
    "Call": (protocol.CALLS, protocol.Call),
    "LeaseCommand": (protocol.COMMANDS, protocol.LeaseCommand),
    "LeaseNews": (protocol.NEWS, protocol.LeaseNews),
    "LeaseOrder": (protocol.ORDERS, protocol.LeaseOrder),
    "ClientMessage": (protocol.CLIENT_MESSAGES, protocol.ClientMessage),
}
PLAIN = {
    int: st.integers(),
    float: st.floats(allow_nan=False) | st.integers(),
    str: st.text(st.characters(exclude_categories=[])),  # lone surrogates, too
    bool: st.booleans(),
    Any: st.none() | st.booleans() | st.text(max_size=3) | st.tuples(st.integers(-5, 5)),
}


@cache
def values(kind: Any) -> st.SearchStrategy[Any]:
    """Make values of a message's type, from the type alone."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of([values(member) for member in args])
    if kind is types.NoneType:
        return st.none()
    if origin is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is not None:
        return st.dictionaries(st.text(max_size=3), values(args[1]), max_size=3)
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        return st.builds(kind, **{name: values(of) for name, of in get_type_hints(kind).items()})
    if kind in PLAIN:
        return PLAIN[kind]
    return st.sampled_from(list(kind))  # an enum


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_message_comes_back_from_the_wire(name: str, data: st.DataObject) -> None:
    codec, kind = CODECS[name]
    message = data.draw(values(kind))
    assert codec.decode(codec.encode(message)) == message


@given(st.lists(st.builds(Call, st.just(protocol.Ready()), st.just(()), st.booleans())), st.data())
def test_a_stream_may_be_cut_anywhere(sent: list[Call], data: st.DataObject) -> None:
    stream = b"".join(map(protocol.CALLS.encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    read = protocol.CALLS.reader()
    got = [
        call
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for call in read(stream[begin:end])
    ]
    assert got == sent


def test_a_message_may_be_larger_than_msgpacks_usual_limit() -> None:
    message = Call(protocol.CannotLoad("w", "x" * 110_000_000), (), leaving=False)
    assert protocol.CALLS.decode(protocol.CALLS.encode(message)) == message


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**400, -(10**400)])
def test_an_int_of_any_size_is_carried_exactly(value: int) -> None:
    steps = (Step(1, {"flops": value}, 0.0),)
    live = protocol.Live(0, Trained(0, 1, steps, 0.0))
    assert protocol.NEWS.decode(protocol.NEWS.encode(live)) == live


def test_what_no_message_can_hold_is_named() -> None:
    live = protocol.Live(0, Trained(0, 1, (Step(1, {"loss": {1.0}}, 0.0),), 0.0))  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"cannot hold \{1.0\}, a set"):
        protocol.NEWS.encode(live)


def test_only_dataclasses_are_messages() -> None:
    with pytest.raises(TypeError, match="no message"):
        Codec(int)


def test_the_name_of_a_message_tells_it_from_others_with_the_same_fields() -> None:
    first, second = (
        protocol.CALLS.encode(Call(message, (), leaving=False))
        for message in (protocol.Ready(), protocol.Bye())
    )
    assert first != second


def test_units_arrive_at_the_studys_time_as_old_as_they_were_and_in_order() -> None:
    steps = (Step(1, {"loss": 1.0}, 1000.0), Step(2, {"loss": 1.0}, 1003.0))
    sent = Trained(0, 1, steps, 1004.0, ended=True)
    event = trained_at(sent, 50.0, not_before=0.0)
    assert [step.seconds for step in event.steps] == [46.0, 49.0]
    assert (event.seconds, event.ended) == (50.0, True)
    late = trained_at(sent, 50.0, not_before=47.5)
    assert [step.seconds for step in late.steps] == [47.5, 49.0]


def test_other_events_have_the_time_of_their_arrival() -> None:
    assert arrived(Erred(0, 1, "E", 1004.0, fatal=True), 50.0) == Erred(0, 1, "E", 50.0, fatal=True)
    assert arrived(Dropped(0, 1, 3, "full", 9.0), 50.0) == Dropped(0, 1, 3, "full", 50.0)
