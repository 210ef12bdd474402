"""The options of a run: each is named in one place, and all who need them have it from there."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from daskhpo import RunOptions, Study
from daskhpo.cli.app import _parser
from daskhpo.cli.options import run_options
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.options import OptionKeywords, merge_options
from daskhpo.engine.protocols import SessionSpec
from daskhpo.schedulers import FIFO, PBT
from daskhpo.searchers import GridSearch, RandomSearch
from daskhpo.space import Real

REFERENCE = (Path(__file__).parents[2] / "docs/reference.md").read_text(encoding="utf-8")
OPTIONS = [option.name for option in fields(RunOptions)]
COMMANDS = {
    "run": ["run", "tune.py:study"],
    "resume": ["resume", "runs/first"],
    "submit": ["submit", "tune.py:study", "--walltime", "1h"],
}
WORDS = {"resources": ["--cpu", "2", "--gpu", "0.5"], "checkpoint": ["--checkpoint", "end"]}


def another(name: str) -> Any:
    """A value of an option that is not its default."""
    others = {
        "resources": {"cpu": 2, "gpu": 0.5},
        "checkpoint": CheckpointPolicy("end"),
        "on_oom": "larger",
    }
    default = getattr(RunOptions(), name)
    return others[name] if name in others else not default if isinstance(default, bool) else 2


class Reached(Exception):
    """An executor was asked for."""


def options_that_reach(study: Study, **keywords: Any) -> RunOptions:
    """The options that a session of the study tells its executor."""
    found = []

    def executor(session: SessionSpec) -> Any:
        found.append(session.options)
        raise Reached

    with pytest.raises(Reached):
        study.start(executor=executor, progress=False, **keywords)
    return found[0]


# -- one place -----------------------------------------------------------------------------------


def test_users_may_write_each_option_by_its_name():
    assert list(OptionKeywords.__annotations__) == OPTIONS


@pytest.fixture
def study(tmp_path):
    return Study(None, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), storage=tmp_path)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_a_keyword_of_start_and_reaches_the_executor(name, study):
    given = {"num_trials": 4} | {name: another(name)}
    assert options_that_reach(study, **given) == RunOptions(**given)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_reaches_the_executor_in_options_too(name, study):
    given = RunOptions(**{"num_trials": 4} | {name: another(name)})
    assert options_that_reach(study, options=given) == given


def test_a_study_that_is_resumed_without_a_limit_has_the_last_one(study):
    options_that_reach(study, num_trials=4, target=0.1, time_budget=9)
    resumed = options_that_reach(study, if_exists="resume", max_concurrent=2)
    assert resumed == RunOptions(num_trials=4, target=0.1, max_concurrent=2)
    assert options_that_reach(study, if_exists="resume", time_budget=3) == RunOptions(time_budget=3)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_described(name):
    assert f"\n{name} : " in (inspect.getdoc(RunOptions) or "")
    assert f"| `{name}` |" in REFERENCE.partition("### `RunOptions`")[2].partition("###")[0]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_one_of_the_command_line(name, command):
    value = another(name)
    flag = ("--no-" if value is False else "--") + name.replace("_", "-")
    words = WORDS.get(name) or ([flag] if isinstance(value, bool) else [flag, str(value)])
    parsed = _parser().parse_args([*COMMANDS[command], *words])
    assert getattr(merge_options(command, None, run_options(parsed)), name) == value


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_explains_each_option(command, capsys):
    with pytest.raises(SystemExit):
        _parser().parse_args([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "maximum number of trials at a time" in shown
    assert "None" not in shown


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_survives_its_way_to_a_job(name):
    options = RunOptions(**{name: another(name)})
    assert options != RunOptions()
    assert RunOptions.from_json(options.to_json()) == options


# -- values --------------------------------------------------------------------------------------


def test_options_are_kept_as_they_are_used():
    options = RunOptions(
        num_trials=3, time_budget="1h", worker_timeout="10m", resources={"gpu": 1}, checkpoint="end"
    )
    assert options.limits == Limits(3, 3600.0, max_failed_trials=5)
    assert options.worker_timeout == 600.0
    assert options.resources == {"cpu": 1, "gpu": 1}
    assert options.policy == CheckpointPolicy("end")
    assert replace(options, target=0.5).limits == Limits(3, 3600.0, 0.5, max_failed_trials=5)


def test_options_are_frozen():
    with pytest.raises(FrozenInstanceError):
        RunOptions().num_trials = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_trials": 0}, "num_trials=0 must be at least 1"),
        ({"num_trials": True}, "num_trials=True must be an int"),
        ({"time_budget": "soon"}, "time_budget='soon' is not understood"),
        ({"time_budget": -1}, "time_budget=-1 must be positive"),
        ({"target": float("nan")}, "target=nan must be finite"),
        ({"resources": {"cpu": 0.5}}, r"resources\['cpu'\]=0.5 must be a whole number"),
        ({"resources": {"gpu": 1.5}}, r"resources\['gpu'\]=1.5 must be a whole number if above"),
        ({"resources": {"tpu": -1}}, r"resources\['tpu'\]=-1 must be at least 0"),
        ({"max_concurrent": 0}, "max_concurrent=0 must be at least 1"),
        ({"worker_timeout": "x"}, "worker_timeout='x' is not understood"),
        ({"checkpoint": "always"}, "checkpoint='always' must be one of"),
        ({"on_oom": "retry"}, "on_oom='retry' must be 'infeasible', 'retry_alone' or 'larger'"),
        ({"max_failures": -1}, "max_failures=-1 must be at least 0"),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_where_it_is_given(given, message):
    with pytest.raises(ValueError, match=message):
        RunOptions(**given)


@pytest.mark.parametrize(
    ("given", "scheduler", "searcher", "message"),
    [
        ({}, FIFO(1), RandomSearch(), "nothing would end this study"),
        ({"time_budget": 1}, PBT(4, 2, ["x"]), RandomSearch(), "num_trials is required"),
    ],
    ids=["no limit", "a population without a size"],
)
def test_a_study_that_would_not_end_is_refused(given, scheduler, searcher, message):
    with pytest.raises(ValueError, match=message):
        RunOptions(**given).check_ends(scheduler, searcher)


@pytest.mark.parametrize(
    ("given", "scheduler", "searcher"),
    [
        ({"target": 0.0}, FIFO(1), RandomSearch()),
        ({"num_trials": 4}, PBT(4, 2, ["x"]), RandomSearch()),
        ({}, FIFO(1), GridSearch(2)),
    ],
    ids=["a target", "a population of four", "a finite search"],
)
def test_a_study_that_ends_is_not(given, scheduler, searcher):
    RunOptions(**given).check_ends(scheduler, searcher)


# -- keywords and options= -----------------------------------------------------------------------


def test_keywords_complete_what_options_say():
    options = RunOptions(max_concurrent=4, checkpoint="end")
    merged = merge_options("run", options, {"num_trials": 5, "target": None, "resources": None})
    assert merged == RunOptions(num_trials=5, max_concurrent=4, checkpoint="end")


def test_an_option_given_both_ways_is_refused():
    message = r"max_concurrent=2 and options=RunOptions\(max_concurrent=4\) are both given"
    with pytest.raises(TypeError, match=message):
        merge_options("run", RunOptions(max_concurrent=4), {"max_concurrent": 2})


def test_an_unknown_option_is_named_with_those_that_there_are():
    message = r"run\(\) has no num_workers=; .* it takes num_trials, time_budget"
    with pytest.raises(TypeError, match=message):
        merge_options("run", None, {"num_workers": None})


def test_options_of_another_kind_are_refused():
    with pytest.raises(
        TypeError, match=r"options=\{'num_trials': 3\} must be a daskhpo.RunOptions"
    ):
        merge_options("run", {"num_trials": 3}, {})  # type: ignore[arg-type]
