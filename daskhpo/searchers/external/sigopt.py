"""The searcher that uses a SigOpt server, through its public REST API."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from daskhpo.core.arguments import check_number, check_text, optional, unprintable
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.errors import InvalidArgument, OptimiserLost
from daskhpo.core.space import Space
from daskhpo.core.types import Config
from daskhpo.searchers.external.adapter import (
    AskTellSearcher,
    Optimiser,
    TrialOutcome,
    nearest,
    place,
)

METRIC = "loss"
BUSY = {429, 503}  # HTTP status codes after which a request may be repeated
WAITS = (1.0, 5.0, 20.0)  # seconds before each retry


class SigOptSearch(AskTellSearcher):
    """A SigOpt server, through version 1 of its REST API; no library is needed.

    The hosted service is closed; its server is open source (``sigopt/sigopt-server``).

    Parameters
    ----------
    address : URL of the server, such as ``"http://sigopt.example.org:8000"``.
    token : API token of a client; it is never recorded.
    project : id of the experiment's project; None: none.
    points_to_evaluate : configurations to try first, in this order.
    timeout : seconds for each answer.

    Notes
    -----
    Each session of a study is one experiment, which minimises ``loss``. ``Real`` becomes a double,
    ``Integer`` an int (a logarithmic one a double, rounded), ``Ordinal`` a double with a grid.
    ``Categorical`` has the indices of its values as names. A trial's loss is its running best, at
    any resource: one observation, updated when the trial continues. A failed trial becomes a
    failed observation. Trials of earlier sessions become observations with their own assignments.
    The server draws its own random numbers: suggestions differ between runs with the same seed.
    ``address``, ``token``, ``project`` and ``timeout`` are not part of a study's definition.

    Raises
    ------
    OptimiserLost : (when the study runs) the server cannot be reached, or refuses the experiment.
    """

    def __init__(
        self,
        address: str,
        token: str,
        project: str | None = None,
        points_to_evaluate: Sequence[Config] | None = None,
        timeout: float = 60.0,
    ) -> None:
        super().__init__(points_to_evaluate)
        self.address = check_text("address", address)
        if urlsplit(address).scheme not in ("http", "https"):
            raise InvalidArgument(f"address={address!r} must begin with http:// or https://")
        if not isinstance(token, str) or not token.strip() or unprintable(token):
            raise InvalidArgument("token is not given: give an API token of the server, one line")
        self.token = token
        self.project = optional(check_text, "project", project)
        self.timeout = check_number("timeout", timeout, above=0, why="seconds")

    def described(self) -> list[str]:
        return []

    def optimiser(self, space: Space, seed: int) -> Optimiser:
        return _SigOpt(Api(self.address, self.token, self.timeout), self.project, space)


class Api:
    """Requests as SigOpt's Python client sends them: JSON, basic authentication."""

    def __init__(self, address: str, token: str, timeout: float) -> None:
        self._root = address.rstrip("/") + "/v1/"
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(f"{token}:".encode()).decode(),
            "Content-Type": "application/json",
        }
        self._timeout = timeout

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Send a request and return the answer's JSON object.

        Raises
        ------
        OptimiserLost : the request failed, or was refused.
        """
        url = self._root + path
        data = None if body is None else json.dumps(body).encode()
        request = Request(url, data, self._headers, method=method)
        for wait in [*WAITS, None]:
            try:
                with urlopen(request, timeout=self._timeout) as answer:
                    found: dict[str, Any] = json.loads(answer.read() or b"{}")
                    return found
            except HTTPError as error:
                with error:
                    text = error.read().decode(errors="replace")[:500]
                if error.code not in BUSY or wait is None:
                    raise OptimiserLost(f"{method} {url}: {error.code}: {text}") from None
                time.sleep(wait)
            except (OSError, HTTPException, ValueError) as error:
                raise OptimiserLost(f"{method} {url}: {error}") from error
        raise AssertionError("the last try returned or raised")


@dataclass(frozen=True, slots=True)
class _Known:
    """A trial on the server: its ids, and the values sent last."""

    assignments: Mapping[str, Any]
    suggestion: str | None = None
    observation: str | None = None
    loss: float | None = None


class _SigOpt(Optimiser):
    """An experiment on the server; handles are :class:`_Known`."""

    def __init__(self, api: Api, project: str | None, space: Space) -> None:
        self._api, self._space = api, space
        experiment = {
            "name": "daskhpo",
            "parameters": [_parameter(name, domain) for name, domain in space.domains.items()],
            "metrics": [{"name": METRIC, "objective": "minimize", "strategy": "optimize"}],
        }
        if project is not None:
            experiment["project"] = project
        self._path = f"experiments/{api.request('POST', 'experiments', experiment)['id']}"

    def ask(self) -> tuple[_Known, dict[str, Any]]:
        suggestion = self._api.request("POST", f"{self._path}/suggestions", {})
        assigned = suggestion["assignments"]
        domains = self._space.domains.items()
        config = {name: nearest(domain, assigned[name]) for name, domain in domains}
        return _Known(self._assignments(config), suggestion=suggestion["id"]), config

    def tell(self, handle: _Known | None, config: Config, outcome: TrialOutcome) -> _Known:
        assignments, loss = self._assignments(config), outcome.loss
        known = handle or _Known(assignments)
        changed = known.assignments != assignments
        values = None if loss is None else [{"name": METRIC, "value": loss}]
        body: dict[str, Any] = {"failed": loss is None, "values": values}
        if known.observation is not None:
            if changed:
                body |= {"suggestion": None, "assignments": assignments}
            if changed or known.loss != loss:
                self._api.request("PUT", f"{self._path}/observations/{known.observation}", body)
            return replace(known, assignments=assignments, loss=loss)
        if known.suggestion is not None and changed:
            self._api.request("DELETE", f"{self._path}/suggestions/{known.suggestion}")
        if known.suggestion is not None and not changed:
            body["suggestion"] = known.suggestion
        else:
            body["assignments"] = assignments
        observation = self._api.request("POST", f"{self._path}/observations", body)
        return replace(known, assignments=assignments, observation=observation["id"], loss=loss)

    def _assignments(self, config: Config) -> dict[str, Any]:
        domains = self._space.domains.items()
        return {name: _param(domain, config[name]) for name, domain in domains}


def _parameter(name: str, domain: Domain) -> dict[str, Any]:
    match domain:
        case Real(low, high, log):
            found: dict[str, Any] = {"type": "double", "bounds": {"min": low, "max": high}}
        case Integer(low, high, False as log):
            found = {"type": "int", "bounds": {"min": low, "max": high}}
        case Integer(low, high, log):  # each int has half a unit on both sides
            found = {"type": "double", "bounds": {"min": low - 0.5, "max": high + 0.5}}
        case Ordinal(values=values):
            found, log = {"type": "double", "grid": [float(value) for value in values]}, False
        case Categorical(values=values):
            names = [{"name": str(number)} for number in range(len(values))]
            found, log = {"type": "categorical", "categorical_values": names}, False
        case _:
            raise ValueError(f"SigOpt cannot search {domain!r}")
    return {"name": name, **found, **({"transformation": "log"} if log else {})}


def _param(domain: Domain, value: Any) -> Any:
    match domain:
        case Integer(log=False):
            return int(value)
        case Categorical():
            return str(place(domain, value))
        case _:
            return float(value)
