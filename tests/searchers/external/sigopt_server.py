"""A small SigOpt server: the part of its REST API that a searcher needs, and random suggestions.

What it refuses is what the open source server (sigopt/sigopt-server) refuses: its validation of
experiments, parameters, suggestions and observations, said in our own words.
"""

from __future__ import annotations

import base64
import json
import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a token"


class Refused(Exception):
    """An answer with a status that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    authorization: str | None
    content_type: str | None
    body: Any


@dataclass
class Experiment:
    """One experiment, as the server keeps it."""

    id: str
    given: dict[str, Any]
    suggestions: dict[str, dict[str, Any]] = field(default_factory=dict)
    observations: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.given["parameters"]}


class SigOpt:
    """What the server knows.

    Attributes
    ----------
    asked : all requests, in order.
    busy : statuses with which the next requests are answered, whatever they ask.
    garbled : answer the next request with what is no JSON.
    """

    def __init__(self) -> None:
        self.experiments: dict[str, Experiment] = {}
        self.asked: list[Asked] = []
        self.busy: list[int] = []
        self.garbled = False
        self.address = ""

    @property
    def only(self) -> Experiment:
        (found,) = self.experiments.values()
        return found

    def answer(self, asked: Asked) -> dict[str, Any]:
        if asked.authorization != "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode():
            raise Refused(401, "Invalid authentication")
        method, body = asked.method, asked.body
        match method, asked.path.strip("/").split("/"):
            case "POST", ["v1", "experiments"]:
                return self._create(body)
            case _, ["v1", "experiments", id_, *rest] if id_ in self.experiments:
                experiment = self.experiments[id_]
                match method, rest:
                    case "POST", ["suggestions"]:
                        return _suggest(experiment, body)
                    case "DELETE", ["suggestions", number] if number in experiment.suggestions:
                        experiment.deleted.add(number)
                        return {}
                    case "POST", ["observations"]:
                        return _observe(experiment, body)
                    case "PUT", ["observations", number] if number in experiment.observations:
                        return _update(experiment, experiment.observations[number], body)
        raise Refused(404, f"there is no {method} {asked.path}")

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(body.get("name"), str) or not body["name"]:
            raise Refused(400, "Missing required json key name")
        if "project" in body and body["project"] != "known":
            raise Refused(400, f"Could not assign to project `{body['project']}`")
        (metric,) = body["metrics"]
        _check("metric", set(metric) <= {"name", "objective", "strategy", "threshold"})
        _check("objective", metric["objective"] in ("minimize", "maximize"))
        _check("strategy", metric["strategy"] in ("optimize", "store", "constraint"))
        _check("at least one parameter", body["parameters"])
        for parameter in body["parameters"]:
            _check_parameter(parameter)
        made = Experiment(str(100 + len(self.experiments)), body)
        self.experiments[made.id] = made
        return {"object": "experiment", "id": made.id, "development": False, **body}


def _check(what: str, is_right: Any) -> None:
    if not is_right:
        raise Refused(400, f"Invalid {what}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_parameter(one: dict[str, Any]) -> None:
    kind, grid, bounds = one["type"], one.get("grid"), one.get("bounds")
    transformation = one.get("transformation")
    _check("name", isinstance(one["name"], str) and one["name"])
    _check("type", kind in ("double", "int", "categorical"))
    _check("transformation", transformation in (None, "log", "none"))
    _check("transformation: only for double", transformation is None or kind == "double")
    if kind == "categorical":
        _check("bounds of a categorical", bounds is None)
        names = [value["name"] for value in one["categorical_values"]]
        _check("categorical values", len(names) > 1 and len(set(names)) == len(names))
        _check("categorical names", all(isinstance(name, str) for name in names))
        return
    _check("categorical_values of a number", one.get("categorical_values") is None)
    if grid is not None:
        _check("bounds beside a grid", bounds is None)
        _check("grid", len(set(grid)) == len(grid) > 1 and all(map(_is_number, grid)))
        low, high = min(grid), max(grid)
    else:
        low, high = bounds["min"], bounds["max"]
    _check("bounds", _is_number(low) and _is_number(high) and low < high)
    _check("bounds of an int", kind == "double" or (type(low) is type(high) is int))
    _check("bounds: must be positive for log", transformation != "log" or low > 0)


def _suggest(experiment: Experiment, body: dict[str, Any]) -> dict[str, Any]:
    _check("keys of a suggestion", set(body) <= {"assignments", "task", "metadata"})
    number = str(1000 + len(experiment.suggestions))
    draw = random.Random(len(experiment.suggestions))
    assignments = {name: _drawn(draw, one) for name, one in experiment.parameters.items()}
    made = {"id": number, "assignments": assignments, "state": "open", "object": "suggestion"}
    experiment.suggestions[number] = made
    return made | {"experiment": experiment.id}


def _drawn(draw: random.Random, one: dict[str, Any]) -> Any:
    if one["type"] == "categorical":
        return draw.choice(one["categorical_values"])["name"]
    if one.get("grid"):
        return draw.choice(one["grid"])
    low, high = one["bounds"]["min"], one["bounds"]["max"]
    if one["type"] == "int":
        return draw.randint(low, high)
    if one.get("transformation") == "log":
        return math.exp(draw.uniform(math.log(low), math.log(high)))
    return draw.uniform(low, high)


def _check_assignments(experiment: Experiment, assignments: Any) -> None:
    _check("assignments: null or empty", isinstance(assignments, dict) and assignments)
    _check("assignments: names", assignments.keys() == experiment.parameters.keys())
    for name, one in experiment.parameters.items():
        value = assignments[name]
        match one["type"]:
            case "categorical":
                names = [known["name"] for known in one["categorical_values"]]
                _check(f"assignment {name}={value!r}", value in names)
            case "int":
                _check(f"assignment {name}={value!r}", type(value) is int)
            case "double":
                _check(f"assignment {name}={value!r}", _is_number(value))
                _check(f"{name}={value!r} is not of the grid", value in one.get("grid", [value]))


def _check_values(body: dict[str, Any], known: dict[str, Any]) -> None:
    failed = body.get("failed", known.get("failed"))
    values = body["values"] if "values" in body else known.get("values")
    _check("observation: failed, with values", not (failed and values))
    _check("observation: neither failed nor with values", failed or values)
    for value in values or []:
        _check("value", value["name"] == "loss" and _is_number(value["value"]))


def _observe(experiment: Experiment, body: dict[str, Any]) -> dict[str, Any]:
    allowed = {"suggestion", "assignments", "values", "failed", "no_optimize", "metadata", "task"}
    _check("keys of an observation", set(body) <= allowed)
    body = {key: value for key, value in body.items() if value is not None}
    _check("one of suggestion, assignments", ("suggestion" in body) != ("assignments" in body))
    _check_values(body, {})
    made = {"id": str(5000 + len(experiment.observations)), "suggestion": None}
    return _set(experiment, made, body)


def _update(experiment: Experiment, known: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    allowed = {"suggestion", "assignments", "values", "failed", "no_optimize", "metadata", "task"}
    _check("keys of an observation", set(body) <= allowed)
    if known["suggestion"] is not None and "assignments" in body:
        _check("assignments beside a suggestion", body.get("suggestion", known) is None)
    _check_values(body, known)
    return _set(experiment, known, body)


def _set(experiment: Experiment, known: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    if body.get("suggestion") is not None:
        number = body["suggestion"]
        _check(f"suggestion: no {number}", number in experiment.suggestions)
        known |= {"assignments": experiment.suggestions[number]["assignments"]}
        experiment.suggestions[number]["state"] = "closed"
    elif body.get("assignments") is not None:
        _check_assignments(experiment, body["assignments"])
        known["assignments"] = body["assignments"]
    known |= {key: body[key] for key in ("suggestion", "values", "failed") if key in body}
    experiment.observations[known["id"]] = known
    return known | {"object": "observation", "experiment": experiment.id}


@contextmanager
def running() -> Iterator[SigOpt]:
    """A server on loopback, on a port of its own."""
    sigopt = SigOpt()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            headers = self.headers.get("Authorization"), self.headers.get("Content-Type")
            body = json.loads(text) if text else None
            asked = Asked(self.command, self.path, *headers, body)
            sigopt.asked.append(asked)
            try:
                if sigopt.busy:
                    raise Refused(sigopt.busy.pop(0), "Too many requests")
                status, answer = 200, json.dumps(sigopt.answer(asked))
            except Refused as refused:
                status, answer = refused.status, json.dumps({"message": str(refused)})
            if sigopt.garbled:
                answer = "<html>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer.encode())))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer.encode())

        do_POST = do_PUT = do_DELETE = do_GET = do  # noqa: N815 - the names that it looks for

        def log_message(self, *_: Any) -> None:
            """Nothing: pytest shows what is of interest."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sigopt.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield sigopt
        finally:
            server.shutdown()
            thread.join()
