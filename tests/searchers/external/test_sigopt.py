"""SigOpt's REST API over HTTP: a server of ours on loopback, and what its own client sends."""

from __future__ import annotations

import copy
import json
import logging
import socket
import subprocess
import textwrap

import pytest

from daskhpo.core.errors import OptimiserLost
from daskhpo.core.types import Status, Trial
from daskhpo.searchers import SigOptSearch
from daskhpo.searchers.external import sigopt as module
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space
from daskhpo.testing.searcher import search
from tests.searchers.external.foreign import PYTHON, needs_foreign
from tests.searchers.external.shared import EVERY_KIND, ExternalContract, report, start
from tests.searchers.external.sigopt_server import TOKEN, running

SPACE = Space({"x": Real(0.0, 1.0), "units": Ordinal([8, 16, 64]), "kind": Categorical([1, True])})


@pytest.fixture
def server():
    with running() as server:
        yield server


@pytest.fixture
def searcher(server):
    searcher = SigOptSearch(server.address, TOKEN)
    searcher.setup(SPACE, 0)
    return searcher


@pytest.mark.slow
class TestContract(ExternalContract):
    @pytest.fixture
    def make(self, server):
        return lambda **options: SigOptSearch(server.address, TOKEN, **options)

    def test_a_copy_goes_on_like_the_original(self, ready, server):
        """It cannot: both go on with the one experiment, each with suggestions of its own."""
        searcher = ready()
        search(searcher, 3)
        twin = copy.deepcopy(searcher)
        search(twin, 3, first=3)
        search(searcher, 3, first=3)
        assert len(server.only.observations) == 9
        assert searcher.error is twin.error is None


def observed(server):
    """What the server knows of each observation."""
    found = server.only.observations.values()
    return [(one["suggestion"], one.get("failed"), one.get("values")) for one in found]


def losses(*values):
    return [{"name": "loss", "value": value} for value in values]


def test_making_a_study_makes_no_experiment(server, searcher):
    assert server.asked == []
    searcher.suggest(0)
    assert len(server.experiments) == 1


def test_an_experiment_says_the_space_in_sigopts_words(server):
    searcher = SigOptSearch(server.address, TOKEN, project="known")
    searcher.setup(EVERY_KIND, 0)
    searcher.suggest(0)
    assert server.only.given["project"] == "known"
    assert server.only.given["metrics"] == [
        {"name": "loss", "objective": "minimize", "strategy": "optimize"}
    ]
    assert server.only.given["parameters"] == [
        {
            "name": "lr",
            "type": "double",
            "bounds": {"min": 1e-6, "max": 1e-1},
            "transformation": "log",
        },
        {"name": "shift", "type": "double", "bounds": {"min": -3.0, "max": 5.0}},
        {"name": "fc size (α)", "type": "int", "bounds": {"min": -2, "max": 3}},
        {
            "name": "layers",
            "type": "double",
            "bounds": {"min": 0.5, "max": 1000.5},
            "transformation": "log",
        },
        {"name": "momentum", "type": "double", "grid": [0.0, 0.5, 0.9, 0.99]},
        {"name": "batch_size", "type": "double", "grid": [16.0, 64.0, 1024.0]},
        {
            "name": "norm",
            "type": "categorical",
            "categorical_values": [{"name": str(number)} for number in range(6)],
        },
    ]


def test_a_trial_is_an_observation_that_is_updated_while_it_goes_on(server, searcher):
    config = start(searcher, 0)
    report(searcher, 0, config, loss=3.0, resource=1)
    assert observed(server) == [("1000", False, losses(3.0))]
    report(searcher, 0, config, loss=3.0, resource=3)
    trial = report(searcher, 0, config, loss=2.0, resource=9)
    searcher.on_end(trial._replace(status=Status.COMPLETED))
    assert observed(server) == [("1000", False, losses(2.0))]
    sent = [(asked.method, asked.path.rpartition("/100")[2]) for asked in server.asked[1:]]
    assert sent == [
        ("POST", "/suggestions"),
        ("POST", "/observations"),
        ("PUT", "/observations/5000"),  # and none for what the server knows
    ]


def test_a_failed_trial_is_an_observation_that_says_so(server, searcher):
    for number, loss in enumerate([None, 4.0]):
        config = start(searcher, number)
        if loss is not None:
            report(searcher, number, config, loss)
        searcher.on_end(Trial(number, config, Status.FAILED, until=1))
    assert observed(server) == [("1000", True, None), ("1001", True, None)]


def test_a_trial_that_it_did_not_suggest_has_assignments_of_its_own(server, searcher):
    searcher.on_start(0, {"x": 0.5, "units": 16, "kind": True})
    report(searcher, 0, {"x": 0.5, "units": 16, "kind": True}, loss=1.0)
    searcher.suggest(1)
    (known,) = server.only.observations.values()
    assert known["assignments"] == {"x": 0.5, "units": 16.0, "kind": "1"}
    assert known["suggestion"] is None


def test_a_configuration_that_changed_before_its_first_report_leaves_its_suggestion(
    server, searcher
):
    start(searcher, 0)
    changed = {"x": 0.25, "units": 64, "kind": 1}
    report(searcher, 0, changed, loss=1.0)
    assert server.only.deleted == {"1000"}
    assert observed(server) == [(None, False, losses(1.0))]


def test_a_configuration_that_changed_later_is_told_with_the_next_loss(server, searcher):
    report(searcher, 0, start(searcher, 0), loss=2.0)
    changed = {"x": 0.25, "units": 64, "kind": 1}
    report(searcher, 0, changed, loss=1.0, resource=2)
    report(searcher, 0, changed, loss=0.5, resource=3)
    (known,) = server.only.observations.values()
    assert known["assignments"] == {"x": 0.25, "units": 64.0, "kind": "0"}
    assert observed(server) == [(None, False, losses(0.5))]


def test_a_busy_server_is_asked_again(server, searcher, monkeypatch):
    monkeypatch.setattr(module, "WAITS", (0.01, 0.01, 0.01))
    server.busy = [429, 503, 429]
    assert SPACE.complete(searcher.suggest(0))
    assert [asked.path for asked in server.asked[:4]] == ["/v1/experiments"] * 4
    assert len(server.experiments) == 1


def test_one_that_stays_busy_is_given_up(server, searcher, monkeypatch, caplog):
    monkeypatch.setattr(module, "WAITS", (0.01,))
    searcher.suggest(0)
    server.busy = [429] * 9
    with caplog.at_level(logging.ERROR):
        assert SPACE.complete(searcher.suggest(1))
    assert "429: " in searcher.error
    assert "Too many requests" in searcher.error
    assert len(caplog.records) == 1


@pytest.mark.parametrize("status", [500, 502, 504])
def test_what_may_have_been_done_is_not_asked_for_twice(server, searcher, status):
    searcher.suggest(0)
    server.busy = [status]
    n_asked = len(server.asked)
    searcher.suggest(1)
    assert f"{status}: " in searcher.error
    assert len(server.asked) == n_asked + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"token": "wrong"}, "401: .*Invalid authentication"), ({"project": "x"}, "400: .*project")],
)
def test_a_refused_experiment_is_an_error(server, options, message):
    searcher = SigOptSearch(server.address, **({"token": TOKEN} | options))
    searcher.setup(SPACE, 0)
    with pytest.raises(OptimiserLost, match=message):
        searcher.suggest(0)


def test_a_server_that_is_not_there_is_an_error():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        searcher = SigOptSearch(f"http://127.0.0.1:{unused.getsockname()[1]}", TOKEN)
        searcher.setup(SPACE, 0)
        with pytest.raises(OptimiserLost, match=r"POST http://127\.0\.0\.1:.*refused"):
            searcher.suggest(0)


def test_an_answer_that_is_no_json_is_an_error(server, searcher):
    server.garbled = True
    with pytest.raises(OptimiserLost, match=r"POST http://.*/v1/experiments: "):
        searcher.suggest(0)


def test_neither_address_nor_token_is_part_of_a_study():
    assert repr(SigOptSearch("https://sigopt.example.org", "secret")) == "SigOptSearch()"


@pytest.mark.parametrize(
    ("address", "token", "message"),
    [
        ("sigopt.example.org", TOKEN, "must begin with http:// or https://"),
        ("http://sigopt.example.org", "", "token is not given"),
    ],
)
def test_a_wrong_address_or_no_token_is_refused(address, token, message):
    with pytest.raises(ValueError, match=message):
        SigOptSearch(address, token)


THEIRS = """
import json, sys
from sigopt.interface import Connection

address, token, said = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
connection = Connection(client_token=token)
connection.set_api_url(address)
experiment = connection.experiments().create(**said["experiment"])
experiment = connection.experiments(experiment.id)
first, second = experiment.suggestions().create(), experiment.suggestions().create()
assert set(first.assignments) == {"x", "units", "kind"}, first
one = experiment.observations().create(suggestion=first.id, **said["one"])
assert one.suggestion == first.id, one
experiment.observations(one.id).update(**said["better"])
experiment.observations(one.id).update(**said["changed"])
experiment.suggestions(second.id).delete()
experiment.observations().create(**said["other"])
failed = experiment.observations().create(**said["failed"])
assert failed.failed is True, failed
"""


@pytest.mark.slow
@needs_foreign
def test_sigopts_own_client_sends_the_same(server, tmp_path):
    ours = SigOptSearch(server.address, TOKEN)
    ours.setup(SPACE, 0)
    first, _ = start(ours, 0), start(ours, 1)
    changed = {"x": 0.25, "units": 64, "kind": 1}
    other = {"x": 0.5, "units": 16, "kind": True}
    report(ours, 0, first, loss=3.0)
    report(ours, 0, first, loss=2.0, resource=2)
    report(ours, 0, changed, loss=1.0, resource=3)
    report(ours, 1, other, loss=4.0)
    ours.on_start(2, other)
    ours.on_end(Trial(2, other, Status.FAILED, until=1))
    sent = list(server.asked)
    assert ours.error is None

    bodies = [asked.body for asked in sent]
    del bodies[3]["suggestion"]  # the client gets that from the server, as we did
    names = ["experiment", None, None, "one", "better", "changed", None, "other", "failed"]
    said = {name: body for name, body in zip(names, bodies, strict=True) if name}
    script = tmp_path / "theirs.py"
    script.write_text(textwrap.dedent(THEIRS))
    arguments = [str(PYTHON), str(script), server.address, TOKEN, json.dumps(said)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    bodies[3]["suggestion"] = sent[3].body["suggestion"] = "1000"
    theirs = server.asked[len(sent) :]
    assert [plain(asked, "101") for asked in theirs] == [plain(asked, "100") for asked in sent]


def plain(asked, experiment):
    """A request for comparison: without the ids that the server gave."""
    path = asked.path.replace(f"/experiments/{experiment}", "/experiments/ID")
    for number in ("5000", "1001"):
        path = path.replace(number, "N")
    return asked.method, path, asked.authorization, asked.body, asked.body and asked.content_type


def test_the_values_of_an_integer_on_a_logarithmic_scale_are_rounded(server):
    searcher = SigOptSearch(server.address, TOKEN)
    searcher.setup(Space({"n": Integer(1, 4, log=True)}), 0)
    found = {searcher.suggest(number)["n"] for number in range(40)}
    assert found == {1, 2, 3, 4}
