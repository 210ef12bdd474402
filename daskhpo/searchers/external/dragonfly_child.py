"""The child process of ``DragonflySearch``.

It runs in another Python, without daskhpo. It reads one JSON object per line and answers each with
one; the protocol is in docs/how-to/external-optimisers.md.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from typing import Any


class Dragonfly:
    """Dragonfly's Gaussian process bandit in ask and tell mode, with refits.

    In this mode Dragonfly never refits its model and never forgets an outcome. So a new bandit is
    created from all outcomes once ``build_new_model_every`` (a Dragonfly option) of them are new.
    In between, new points are added to the model, and its hyperparameters stay the same.
    """

    def __init__(self, seed: int, space: list[dict[str, Any]], options: dict[str, Any]) -> None:
        import numpy
        from dragonfly.exd.cp_domain_utils import load_config
        from dragonfly.exd.experiment_caller import CPFunctionCaller
        from dragonfly.opt.gp_bandit import CPGPBandit, get_all_cp_gp_bandit_args
        from dragonfly.utils.option_handler import load_options

        numpy.random.seed(seed)  # noqa: NPY002 - Dragonfly uses the global generator
        self.space = space
        known = get_all_cp_gp_bandit_args()
        unknown = sorted(set(options) - {spec["name"] for spec in known})
        if unknown:
            raise ValueError(f"Dragonfly's get_all_cp_gp_bandit_args() has no {unknown}")
        config = load_config({"name": "daskhpo", "domain": [parameter(one) for one in space]})
        caller = CPFunctionCaller(None, config.domain, domain_orderings=config.domain_orderings)

        def new() -> Any:
            chosen = load_options(known, partial_options=options)
            made = CPGPBandit(caller, options=chosen, ask_tell_mode=True)
            made.initialise()
            return made

        self.processed = caller.get_processed_domain_point_from_raw
        self.new = new
        self.bandit = new()
        self.n_initial = len(self.bandit.first_qinfos)
        self.initial = [self.bandit.ask() for _ in range(self.n_initial)]
        self.points: dict[int, Any] = {}  # by handle, of all trials
        self.losses: dict[int, float | None] = {}  # by handle, of trials with an outcome
        self.in_model: dict[int, tuple[Any, float]] = {}  # by handle: (point, loss) in the bandit
        self.n_new = 0
        self.rebuilt = False

    def ask(self) -> dict[str, Any]:
        """Return a handle and a new point."""
        finite = [loss for loss in self.losses.values() if loss is not None]
        if self.initial and len(finite) < self.n_initial:
            point = self.initial.pop(0)
        elif len(finite) < 2:  # too few for a model: use more initial points
            fresh = self.new()
            self.initial = [fresh.ask() for _ in range(self.n_initial)]
            point = self.initial.pop(0)
        else:
            point = self.modelled(max(finite))
        handle = len(self.points)
        self.points[handle] = point
        return {"handle": handle, "values": named(self.space, point)}

    def modelled(self, worst: float) -> Any:
        """Return a new point from the model; a failed trial gets the worst loss."""
        told = {
            handle: (self.points[handle], worst if loss is None else loss)
            for handle, loss in self.losses.items()
        }
        if not self.rebuilt or self.n_new >= self.bandit.options.build_new_model_every:
            self.bandit, self.in_model = self.new(), {}
            self.bandit.first_qinfos, self.rebuilt, self.n_new = [], True, 0
        bandit = self.bandit
        fresh = [handle for handle in told if handle not in self.in_model]
        bandit.step_idx = len(told)
        if fresh:
            bandit.tell([(told[handle][0], -told[handle][1]) for handle in fresh])
            self.in_model.update((handle, told[handle]) for handle in fresh)
        running = [self.processed(p) for h, p in self.points.items() if h not in self.losses]
        bandit.eval_points_in_progress = running
        bandit.eval_idxs_in_progress = [None] * len(running)
        point = bandit.ask()
        bandit.eval_points_in_progress, bandit.eval_idxs_in_progress = [], []
        return point

    def tell(
        self, handle: int | None, values: dict[str, Any], loss: float | None
    ) -> dict[str, Any]:
        """Record a trial's loss so far (None: it failed); return its handle."""
        if handle is None:
            handle = len(self.points)
        point = raw(self.space, values)
        if handle not in self.losses or (point, loss) != (self.points[handle], self.losses[handle]):
            self.n_new += 1
        self.points[handle], self.losses[handle] = point, loss
        return {"handle": handle}


def parameter(one: dict[str, Any]) -> dict[str, Any]:
    """Convert a hyperparameter to Dragonfly's format, which has no log scale."""
    name, kind = one["name"], one["kind"]
    if kind == "integer" and not one["log"]:
        return {"name": name, "type": "int", "min": one["low"], "max": one["high"]}
    if kind in ("real", "integer"):
        low, high = scaled(one, "low"), scaled(one, "high")
        return {"name": name, "type": "float", "min": low, "max": high}
    if kind == "ordinal":
        return {"name": name, "type": "discrete_numeric", "items": list(one["values"])}
    return {"name": name, "type": "discrete", "items": [str(i) for i in range(one["n"])]}


def scaled(one: dict[str, Any], bound: str) -> float:
    """Return a bound on the searched scale; each int has half a unit on both sides."""
    value = one[bound]
    if one["kind"] == "integer":
        value += -0.5 if bound == "low" else 0.5
    return math.log(value) if one["log"] else float(value)


def named(space: list[dict[str, Any]], point: Any) -> dict[str, Any]:
    """Convert Dragonfly's point to a dict of plain numbers."""
    found: dict[str, Any] = {}
    for one, item in zip(space, point):  # noqa: B905 - its Python may be older than 3.10
        kind = one["kind"]
        if kind == "ordinal":
            found[one["name"]] = min(one["values"], key=lambda value: abs(value - float(item)))
        elif kind == "categorical":
            found[one["name"]] = int(item)
        else:
            value = math.exp(item) if one["log"] else item
            value = float(value) if kind == "real" else round(float(value))
            found[one["name"]] = min(max(value, one["low"]), one["high"])
    return found


def raw(space: list[dict[str, Any]], config: dict[str, Any]) -> list[Any]:
    """Convert a dict of plain numbers to Dragonfly's point."""
    point = []
    for one in space:
        value, kind = config[one["name"]], one["kind"]
        if kind == "categorical":
            value = str(value)
        elif kind == "real" or (kind == "integer" and one["log"]):
            value = math.log(value) if one["log"] else float(value)
        point.append(value)
    return point


def main() -> None:
    """Answer messages until the parent closes the pipe."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    optimiser: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if message["do"] == "setup":
                optimiser = Dragonfly(message["seed"], message["space"], message["options"])
                answer = {}
            elif message["do"] == "ask":
                answer = optimiser.ask()
            else:
                answer = optimiser.tell(message["handle"], message["values"], message["loss"])
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its dragonfly.py would hide the library
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: threads would compete
    main()
