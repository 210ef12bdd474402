"""Tables keep names apart and types as they were."""

from __future__ import annotations

import pytest

from daskhpo.callbacks import CSVLogger
from daskhpo.core.domains import Categorical, Integer, Real
from daskhpo.core.errors import MetricError
from daskhpo.core.events import Ended, Launched, Reported, SessionStarted, Step, Suggested
from daskhpo.core.objective import RESERVED, RESERVED_PREFIXES, Objective
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, Status, Stop
from daskhpo.results.columns import column
from daskhpo.results.result import Result
from daskhpo.simulation.curves import CurveTable
from daskhpo.testing.callback import an_info, follow

BEGAN = SessionStarted(Limits(), CheckpointPolicy(), 0.0)


def records(configs, *metrics):
    """A study of one unit for each of the metrics, the same in all trials."""
    made = [BEGAN]
    for trial, config in enumerate(configs):
        steps = tuple(Step(i + 1, given, i + 1.0) for i, given in enumerate(metrics))
        made += [
            Suggested(trial, config, 0, 0.0),
            Launched(trial, 1, 0, len(steps), 0.0),
            Reported(trial, 1, steps, float(len(steps)), decision=Stop("done")),
            Ended(trial, Status.COMPLETED, "done", float(len(steps))),
        ]
    return made


def result(configs, *metrics):
    return Result(records(configs, *metrics), Objective("loss"))


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*sorted(RESERVED), *(f"{p}x" for p in RESERVED_PREFIXES)])
def test_a_metric_with_the_name_of_a_column_is_refused_by_name(name):
    with pytest.raises(MetricError, match=f"'{name}'.*rename the metric"):
        Objective("loss").check({"loss": 1.0, name: 2.0})


@pytest.mark.parametrize("name", ["life", "start", "until", "parent", "mean", "best", "index", "x"])
def test_a_metric_with_any_other_name_is_in_each_table(name, tmp_path):
    made = result([{"x": 0.5}], {"loss": 1.0, name: 7.0}, {"loss": 2.0, name: 8.0})
    assert made.trials()[name].tolist() == [8.0]
    for frame in (made.history(), made.curves(), made.training()):
        assert frame[name].tolist() == [7.0, 8.0]
        assert frame.columns.is_unique


@pytest.mark.parametrize("name", ["config/x", "best/loss", "seconds/useful", "reason", "seconds"])
def test_older_studies_with_such_a_metric_keep_their_columns(name, tmp_path):
    made = records([{"x": 0.5}] * 2, {"loss": 1.0, name: 99.0})
    old = Result(made, Objective("loss"))
    for frame in (old.trials(), old.history(), old.curves()):
        assert frame.columns.is_unique
    assert old.trials()["config/x"].tolist() == [0.5, 0.5]
    plain = result([{"x": 0.5}] * 2, {"loss": 1.0}).trials()
    assert old.trials().equals(plain)
    follow([CSVLogger()], made, info := an_info(tmp_path / "s", made)).end()
    assert "0.5" in (info.directory / "history.csv").read_text().splitlines()[1]


def test_a_trial_has_all_metrics_of_its_best_report():
    made = result([{"x": 0.5}], {"loss": 2.0, "a": 1}, {"loss": 1.0, "a": 2}, {"loss": 1.0, "a": 3})
    for report, a in (("last", 3), ("best", 2)):
        (row,) = made.trials(metrics=report).to_dict("records")
        assert (row["loss"], row["a"], row["best/loss"]) == (1.0, a, 1.0)
    with pytest.raises(ValueError, match="metrics='first' must be 'last' or 'best'"):
        made.trials("first")


# -- types ---------------------------------------------------------------------------------------

KINDS = [
    [16, 32, 64],
    [None, "adam"],
    [None, 1, 2],
    [1, 2.5],
    [True, False],
    [True, 1, "1", 1.0],
    ["None", "adam"],
    ["1", "2"],
    [(1, 2), (3,)],
    [2**70, 1],
    ["nan", "inf", ""],
]


@pytest.mark.parametrize("values", KINDS, ids=repr)
def test_a_column_keeps_the_types_of_its_values(values):
    found = column(values).tolist()
    assert [*map(repr, found)] == [*map(repr, values)]


@pytest.mark.parametrize("values", KINDS, ids=repr)
@pytest.mark.parametrize("name", ["curves.csv", "curves.csv.gz"])
def test_curves_keep_the_types_of_configurations_also_by_csv(values, name, tmp_path):
    configs = [{"c": value, "x": 0.5, "n": 3} for value in values]
    made = result(configs, {"loss": 1.0}, {"loss": 2.0})
    for frame in (made.trials(), made.lineage()):
        assert [*map(repr, frame["config/c"])] == [*map(repr, values)]
    table = CurveTable.of(made.curves(), "loss")
    table.write(tmp_path / name)
    for found in (table, CurveTable.read(tmp_path / name, "loss")):
        assert [*map(repr, found.configs)] == [*map(repr, configs)]


def test_a_table_of_numbers_and_a_category_is_found_in_its_space():
    configs = [{"c": c, "x": 0.5, "n": 3} for c in (16, 32)]
    table = CurveTable.of(result(configs, {"loss": 1.0}).curves(), "loss")
    table.nearest(Space({"c": Categorical([16, 32]), "x": Real(0, 1), "n": Integer(1, 9)}))


def test_csv_files_without_json_are_read_as_before(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text(
        "trial,resource,seconds,loss,config/kind,config/n,config/x,config/on\n"
        "0,1,1.0,0.5,adam,16,0.1,True\n1,1,1.0,0.25,sgd,32,0.2,False\n"
    )
    assert CurveTable.read(path).configs == (
        {"kind": "adam", "n": 16, "x": 0.1, "on": True},
        {"kind": "sgd", "n": 32, "x": 0.2, "on": False},
    )
