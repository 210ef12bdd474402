"""What study directories, scripts and notebooks rely on: reprs, commands, columns, public names.

``fixtures/frozen-names.json`` was taken from the version before the rooms moved. A study directory
compares its scheduler and searcher by their ``repr``: one that changes makes old directories
useless.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

import daskhpo.schedulers
import daskhpo.searchers
import daskhpo.space
from daskhpo import load_study
from daskhpo.cli.app import _parser
from daskhpo.core.types import ScheduleSegment
from daskhpo.simulation.compare import compare_schedulers
from daskhpo.simulation.curves import CurveTable
from daskhpo.simulation.planning import plan
from tests.compatibility.test_stored_studies import FIXTURES, asha

FROZEN = json.loads((Path(__file__).with_name("fixtures") / "frozen-names.json").read_text())

PUBLIC = {
    "daskhpo": ["Study", "Trainable", "Result", "load_study", "__version__"],
    "daskhpo.space": ["Real", "Integer", "Ordinal", "Categorical"],
    "daskhpo.schedulers": [
        *("FIFO", "ASHA", "AsyncHyperband", "SuccessiveHalving", "Hyperband", "MedianStopping"),
        *("PBT", "PBTReplay"),
    ],
    "daskhpo.searchers": [
        *("RandomSearch", "GridSearch", "GPSearch", "OptunaSearch", "HyperOptSearch", "AxSearch"),
        *("DragonflySearch", "SigOptSearch"),
    ],
    "daskhpo.cluster": ["slurm_cluster"],
    "daskhpo.simulation": ["Simulation"],
    "daskhpo.callbacks": ["ConsoleProgress", "CSVLogger"],
    "daskhpo.checkpoints": ["ZarrStore"],
}
METHODS = {
    "Study": "run start resume extend result ask tell",
    "Trainable": "setup step save_checkpoint load_checkpoint reset_config cleanup",
    "Result": "best_trial best_config best_value trials history time_to_solution top_k_curve "
    "schedule lineage cost",
}


class Names(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        return getattr(daskhpo.searchers, name)


@pytest.mark.parametrize("text", FROZEN["reprs"])
def test_a_plug_in_is_described_as_before(text):
    names = Names({"ScheduleSegment": ScheduleSegment})
    for module in (daskhpo.schedulers, daskhpo.space):
        names |= {name: getattr(module, name) for name in module.__all__}
    assert repr(eval(text, {}, names)) == FROZEN["reprs"][text]


def options(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Options and positional arguments of a parser and of its commands."""
    found: dict[str, Any] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {name: options(command) for name, command in action.choices.items()}
        elif not isinstance(action, argparse._HelpAction):
            default = "path" if str(action.default).startswith("/") else repr(action.default)
            choices = action.choices and list(action.choices)
            name = "/".join(action.option_strings) or action.dest
            found[name] = [action.nargs, action.required, default, choices]
    return found


@pytest.mark.parametrize("command", FROZEN["commands"])
def test_a_command_takes_what_it_took(command):
    now, then = options(_parser())[command], FROZEN["commands"][command]
    if isinstance(then, dict):  # a command may get more options
        now = {name: now.get(name) for name in then}
    assert now == then


@pytest.mark.parametrize("name", ["asha", "pbt"])
def test_tables_have_the_columns_of_then(name):
    result = load_study(FIXTURES / f"study-{name}")
    for method, columns in FROZEN["tables"][name].items():
        if method == "cost":
            found = list(result.cost())
        elif method == "schedule().frame":
            found = list(result.schedule().frame().columns)
        else:
            found = list(getattr(result, method)().columns)
        assert found == columns, method


def test_forecasts_have_the_columns_of_then():
    frame = plan(asha(FIXTURES), 2, seconds_per_unit=1.0, num_trials=4, seeds=1)
    assert list(frame.columns) == FROZEN["tables"]["plan"]
    frame = compare_schedulers(CurveTable.read(FIXTURES / "study-asha"), workers=[1], seeds=1)
    assert list(frame.columns) == FROZEN["tables"]["replay"]


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_there(module):
    found = importlib.import_module(module)
    for name in PUBLIC[module]:
        assert getattr(found, name) is not None
        for method in METHODS.get(name, "").split():
            assert hasattr(getattr(found, name), method), f"{name}.{method}"
