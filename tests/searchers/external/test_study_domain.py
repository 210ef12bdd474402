"""The adsorption study's six hyperparameters as written for Dragonfly, through each searcher."""

from __future__ import annotations

import json

import numpy as np
import pytest

from daskhpo.searchers import (
    AxSearch,
    DragonflySearch,
    GPSearch,
    HyperOptSearch,
    OptunaSearch,
    SigOptSearch,
    SkoptSearch,
)
from daskhpo.searchers.external.dragonfly_child import parameter, raw
from daskhpo.searchers.external.process import _described
from daskhpo.space import Integer, Ordinal, Real, Space
from experiments.adsorption.profiles import PROFILES
from tests.searchers.external.foreign import PYTHON, needs_foreign
from tests.searchers.external.shared import AX_WARNINGS, needs, report, start, typed
from tests.searchers.external.sigopt_server import TOKEN, running

BATCH_SIZES = [40, 61, 79, 97, 119, 140, 158, 178, 199, 219, 238]
WRITTEN = [
    {"name": "lr", "type": "float", "min": 0.001, "max": 0.1},
    {"name": "batch_size", "type": "discrete_numeric", "items": BATCH_SIZES},
    {"name": "embedding", "type": "int", "min": 1, "max": 100},
    {"name": "conv_layers", "type": "int", "min": 1, "max": 40},
    {"name": "fc_size", "type": "int", "min": 1, "max": 150},
    {"name": "fc_layers", "type": "int", "min": 1, "max": 40},
]
SPACE = Space(
    {
        "lr": Real(0.001, 0.1),
        "batch_size": Ordinal(BATCH_SIZES),
        "embedding": Integer(1, 100),
        "conv_layers": Integer(1, 40),
        "fc_size": Integer(1, 150),
        "fc_layers": Integer(1, 40),
    }
)
# Both ends of each domain, and values that a wrong scale or a wrong place would show.
TOLD = [
    (0.001, 40, 1, 1, 1, 1),
    (0.1, 238, 100, 40, 150, 40),
    (0.0123, 79, 64, 7, 33, 12),
]


def optuna_knows(searcher):
    trials = searcher._optimiser._study.get_trials()
    return [trial.params for trial in trials]


def hyperopt_knows(searcher):
    trials = searcher._optimiser._trials.trials
    return [{name: v for name, [v] in trial["misc"]["vals"].items()} for trial in trials]


def ax_knows(searcher):
    trials = searcher._optimiser._client._experiment.trials.values()
    names = {short: name for name, short in searcher._optimiser._names.items()}
    return [{names[short]: v for short, v in t.arm.parameters.items()} for t in trials]


def dragonfly_knows(searcher):
    """The points that the child makes of what it was told."""
    space = [_described(name, domain) for name, domain in SPACE.domains.items()]
    said = [json.loads(line) for line in searcher._optimiser._sent]
    points = [raw(space, line["values"]) for line in said if line["do"] == "tell"]
    return [dict(zip(SPACE, point, strict=True)) for point in points]


def sigopt_knows(searcher):
    return [one["assignments"] for one in searcher.server.only.observations.values()]


def skopt_knows(searcher):
    return [dict(zip(SPACE, point, strict=True)) for point in searcher._optimiser._points.values()]


def gp_knows(searcher):
    """Points of the unit cube, as the domains read them."""
    rows = searcher._evidence.observations.values()
    return [searcher._encoding.config(np.array(row.unit)) for row in rows]


@pytest.fixture
def sigopt():
    """SigOpt with a server of its own."""
    with running() as server:
        searcher = SigOptSearch(server.address, TOKEN)
        searcher.server = server
        yield searcher


def place(batch_size):
    return BATCH_SIZES.index(batch_size)


def searched(name, knows, batch_size, make=None, marks=()):
    return pytest.param(make, knows, batch_size, id=name, marks=marks)


FOREIGN = [needs_foreign, pytest.mark.slow]  # `make test-fast` sets up no second environment
SEARCHED = [
    searched("GP", gp_knows, int, GPSearch),
    searched("Optuna", optuna_knows, place, OptunaSearch, needs("optuna", "optuna")),
    searched("HyperOpt", hyperopt_knows, place, HyperOptSearch, needs("hyperopt", "hyperopt")),
    searched("Ax", ax_knows, float, AxSearch, [needs("ax", "ax"), *AX_WARNINGS]),
    searched("scikit-optimize", skopt_knows, place, SkoptSearch),
    searched("Dragonfly", dragonfly_knows, int, lambda: DragonflySearch(PYTHON), FOREIGN),
    searched("SigOpt", sigopt_knows, float),
]


@pytest.mark.parametrize(("make", "knows", "batch_size"), SEARCHED)
def test_the_domain_keeps_its_meaning_in_both_directions(make, knows, batch_size, request):
    searcher = request.getfixturevalue("sigopt") if make is None else make()
    searcher.setup(SPACE, 0)
    proposed = [start(searcher, number) for number in range(5)]
    for number, config in enumerate(proposed):  # theirs to ours
        assert typed(SPACE.complete(config)) == typed(config)
        report(searcher, number, config, loss=1.0 + number)
    assert len({config["batch_size"] for config in proposed}) > 1
    assert len({config["fc_size"] for config in proposed}) > 3
    for number, values in enumerate(TOLD, len(proposed)):  # ours to theirs
        config = dict(zip(SPACE, values, strict=True))
        searcher.on_start(number, config)
        report(searcher, number, config, loss=9.0)
    wanted = [
        config | {"batch_size": batch_size(config["batch_size"])}
        for config in (*proposed, *(dict(zip(SPACE, values, strict=True)) for values in TOLD))
    ]
    known = [{name: pytest.approx(v, rel=1e-12) for name, v in one.items()} for one in wanted]
    assert [dict(one) for one in knows(searcher)] == known
    assert getattr(searcher, "error", None) is None


def test_dragonfly_is_given_the_domain_as_it_was_written():
    described = [_described(name, domain) for name, domain in SPACE.domains.items()]
    assert [parameter(one) for one in described] == WRITTEN


def test_it_is_the_domain_of_the_study():
    """But for the scale of the learning rate, which Dragonfly cannot say to be logarithmic."""
    domains = PROFILES["gpu"].domains
    assert domains["lr"] == Real(0.001, 0.1, log=True)
    assert {**domains, "lr": Real(0.001, 0.1)} == SPACE.domains
