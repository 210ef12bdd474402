"""Requests to a running study, by way of its directory."""

from __future__ import annotations

import json
import threading

import pytest

from daskhpo.engine import requests as requests_module
from daskhpo.engine.requests import StopRequestWatcher, request_stop, requested_stop


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(requests_module, "REQUEST_POLL_SECONDS", 0.01)


def test_nobody_has_asked_before_somebody_does(tmp_path):
    assert requested_stop(tmp_path, "a") is None
    request_stop(tmp_path, "a", "enough")
    assert requested_stop(tmp_path, "a") == "enough"


def test_a_request_is_for_whom_it_names(tmp_path):
    request_stop(tmp_path, "an earlier session", "enough")
    request_stop(tmp_path, "b", "too slow")
    assert requested_stop(tmp_path, "a") is None
    assert requested_stop(tmp_path, "b") == "too slow"


def test_the_first_reason_is_the_reason(tmp_path):
    request_stop(tmp_path, "a", "enough")
    request_stop(tmp_path, "a", "really")
    assert requested_stop(tmp_path, "a") == "enough"


def test_a_request_that_is_being_written_is_none_yet(tmp_path):
    request_stop(tmp_path, "a", "enough")
    path = tmp_path / "requests.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-9])
    assert requested_stop(tmp_path, "a") is None
    path.write_text(whole)
    assert requested_stop(tmp_path, "a") == "enough"


def test_a_listener_is_told_once(tmp_path):
    told, heard = [], threading.Event()

    def on_stop(reason):
        told.append(reason)
        heard.set()

    listener = StopRequestWatcher(tmp_path, "a", on_stop)
    request_stop(tmp_path, "b", "not you")
    request_stop(tmp_path, "a", "enough")
    request_stop(tmp_path, "a", "again")
    assert heard.wait(10)
    listener._thread.join(10)
    assert not listener._thread.is_alive()
    assert told == ["enough"]
    listener.close()


def test_a_listener_that_was_closed_hears_nothing(tmp_path):
    told = []
    listener = StopRequestWatcher(tmp_path, "a", told.append)
    listener.close()
    request_stop(tmp_path, "a", "enough")
    assert not listener._thread.is_alive()
    assert not told


def test_a_listener_puts_up_with_a_file_server_that_is_away(tmp_path):
    heard = threading.Event()
    listener = StopRequestWatcher(tmp_path, "a", lambda reason: heard.set())
    path = tmp_path / "requests.jsonl"
    path.unlink()
    path.mkdir()  # reading it is an error now
    assert not heard.wait(0.1)
    path.rmdir()
    path.write_text(json.dumps({"whom": "a", "stop": "enough"}) + "\n")
    assert heard.wait(10)
    listener.close()
