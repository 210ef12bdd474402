"""A search that begins with what another study found."""

from __future__ import annotations

import json
import math
from statistics import median

import numpy as np
import pytest

from daskhpo import Study
from daskhpo.core.types import Report, Status, Trial
from daskhpo.schedulers import ASHA, FIFO
from daskhpo.searchers import GPSearch, RandomSearch
from daskhpo.searchers.gp.warm_start import checked_past, past_rows
from daskhpo.space import Categorical, Integer, Real, Space

PLANE = Space({"x": Real(0, 1), "y": Real(0, 1)})


def bowl(config):
    return (config["x"] - 0.3) ** 2 + (config["y"] - 0.8) ** 2


def earlier(folder, space=PLANE, n=20, scheduler=None, mode="min", value=None):
    """The directory of a study that was really run: each trial until it is stopped."""
    sign = 1.0 if mode == "min" else -1.0
    value = value or (lambda config, resource: sign * (bowl(config) + 1 / resource))
    study = Study(
        None, space, "loss", mode, scheduler=scheduler or FIFO(1), storage=folder, name="earlier"
    )
    for _ in range(n):
        trial = study.ask()
        while not trial.finished:
            study.tell(trial, {"loss": value(trial.config, trial.resource + 1)})
    study.close()
    return study.path


def begun(warm_start, space=PLANE, seed=0):
    searcher = GPSearch(warm_start=warm_start)
    searcher.setup(space, seed)
    return searcher


def rows(searcher):
    return list(searcher._evidence.observations.values())


def first_losses(searcher, n):
    """Of ``n`` trials one after another."""
    losses = []
    for number in range(n):
        config = searcher.suggest(number)
        losses.append(bowl(config))
        searcher.on_start(number, config)
        running = Trial(number, config, Status.RUNNING, until=1, resource=1)
        searcher.observe(running, Report(1, (losses[-1],), losses[-1]))
        searcher.on_end(running._replace(status=Status.COMPLETED))
    return losses


# -- what it is worth ----------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_first_suggestions_are_near_what_was_best(tmp_path, offset):
    path = earlier(tmp_path, value=lambda config, resource: bowl(config) + offset)
    warm = [min(first_losses(begun(path, seed=seed), 3)) for seed in range(5)]
    cold = [min(first_losses(begun(None, seed=seed), 3)) for seed in range(5)]
    assert median(warm) < 0.01 < median(cold)


def test_pairs_do_as_well_as_a_directory():
    space = Space(PLANE)
    pairs = []
    for number in range(20):
        searcher = RandomSearch()
        searcher.setup(space, 3)
        config = searcher.suggest(number)
        pairs.append((config, bowl(config)))
    assert median(min(first_losses(begun(pairs, seed=seed), 3)) for seed in range(5)) < 0.01


@pytest.mark.slow
def test_a_past_that_misleads_is_overruled():
    """The other study was of the opposite: its best is the worst here."""
    generator = RandomSearch()
    generator.setup(PLANE, 5)
    pairs = [(config := generator.suggest(n), -bowl(config)) for n in range(20)]
    found = [min(first_losses(begun(pairs, seed=seed), 25)) for seed in range(5)]
    assert median(found) < 0.01


# -- what is read --------------------------------------------------------------------------------


def test_each_trial_gives_a_loss_where_it_was_judged(tmp_path):
    path = earlier(tmp_path, n=9, scheduler=ASHA(9))
    found = {(row.unit, row.resource): row.loss for row in rows(begun(path))}
    assert {resource for _, resource in found} == {1, 3, 9}
    for (unit, resource), loss in found.items():
        config = PLANE.from_unit(list(unit))
        assert loss == pytest.approx(bowl(config) + 1 / resource)
    assert all(row.past for row in rows(begun(path)))


def test_of_a_metric_to_maximise_the_negative_is_the_loss(tmp_path):
    up = rows(begun(earlier(tmp_path / "up", mode="max")))
    down = rows(begun(earlier(tmp_path / "down")))
    assert up == down


def test_trials_that_failed_are_failures(tmp_path):
    def value(config, resource):
        return math.nan if config["x"] < 0.5 else bowl(config)

    searcher = begun(earlier(tmp_path, value=value))
    assert searcher._evidence.failed
    assert all(unit[0] < 0.5 for unit in searcher._evidence.failed)
    assert all(row.unit[0] >= 0.5 for row in rows(searcher))
    assert len(searcher._evidence.failed) + len(rows(searcher)) == 20


def test_a_line_that_was_torn_ends_what_is_read(tmp_path):
    path = earlier(tmp_path)
    whole = len(rows(begun(path)))
    journal = path / "journal.jsonl"
    journal.write_text(journal.read_text()[:-20])
    assert whole - 1 <= len(rows(begun(path))) <= whole


def test_constants_of_the_past_and_values_outside_this_space_are_no_obstacle(tmp_path):
    space = {"x": Real(0, 1), "y": Real(0, 1), "kind": "a"}
    path = earlier(tmp_path, space=space)
    narrow = Space({"x": Real(0, 0.5), "y": Real(0, 1)})
    inside = [row for row in rows(begun(path)) if row.unit[0] <= 0.5]
    found = rows(begun(path, narrow))
    assert 0 < len(found) == len(inside) < 20
    assert [row.loss for row in found] == [row.loss for row in inside]


def test_tuples_are_read_as_tuples(tmp_path):
    space = Space({"x": Real(0, 1), "layers": Categorical([(8,), (8, 8)])})
    path = earlier(tmp_path, space=space, value=lambda config, resource: config["x"])
    assert len(rows(begun(path, space))) == 20


def test_integers_and_ranges_of_another_study_are_placed_by_value():
    space = Space({"n": Integer(0, 10)})
    searcher = begun([({"n": 5}, 1.0), ({"n": 11}, 0.0)], space)
    assert [row.unit for row in rows(searcher)] == [(space.domains["n"].to_unit(5),)]


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [[3], [({"x": 1}, "low")], [("x", 1.0)]])
def test_what_is_no_pair_is_refused_at_once(pairs):
    with pytest.raises(TypeError, match="no pair of a configuration and its loss"):
        GPSearch(warm_start=pairs)


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_directory_without_a_study_is_refused_at_set_up(tmp_path, content):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(ValueError, match=r"cannot be read as a study's directory|holds no study"):
        begun(tmp_path)


def test_other_names_are_refused():
    with pytest.raises(ValueError, match=r"lack \['y'\] and vary \['z'\]"):
        begun([({"x": 0.1, "z": 1}, 1.0), ({"x": 0.2, "z": 2}, 1.0)])


def test_a_past_that_lies_nowhere_in_the_space_is_refused():
    with pytest.raises(ValueError, match="none of its 1 results lies in"):
        begun([({"x": 3.0, "y": 0.0}, 1.0)])


# -- in a study ----------------------------------------------------------------------------------


def test_a_study_with_a_warm_start_resumes_without_the_past(tmp_path):
    """A study that is gone is read no more: its results are needed to suggest, not to look."""
    path = earlier(tmp_path)
    study = Study(
        None, PLANE, "loss", scheduler=FIFO(1), storage=tmp_path, name="later",
        searcher=GPSearch(warm_start=path),
    )  # fmt: skip
    trial = study.ask()
    study.tell(trial, {"loss": bowl(trial.config)})
    study.close()
    manifest = json.loads((study.path / "study.json").read_text())
    assert f"warm_start={str(path)!r}" in manifest["searcher"]
    assert study.result().num_trials == 1


def test_results_are_compared_by_value_and_constants_count() -> None:
    space = Space({"n": Integer(1, 50), "x": Real(0, 1), "opt": "sgd", "layers": 3})
    past = [
        ({"n": 40.0, "x": np.float32(0.5), "opt": "sgd", "layers": 3.0}, np.float32(1.5)),
        ({"n": np.int64(7), "x": 1, "opt": "sgd"}, 2),  # it does not say with how many layers
        ({"n": 3, "x": 0.5, "opt": "adam", "layers": 3}, 0.0),  # another study's constant
        ({"n": 3.5, "x": 0.5, "opt": "sgd", "layers": 3}, 0.0),
    ]
    found, failed = past_rows(checked_past(past), space)
    assert not failed
    assert [row.loss for row in found] == [1.5, 2.0]
    assert [space.from_unit(row.unit)["n"] for row in found] == [40, 7]


def test_no_result_with_the_same_constants_is_said() -> None:
    space = Space({"x": Real(0, 1), "opt": "sgd"})
    with pytest.raises(ValueError, match="none of its 1 results lies in"):
        past_rows(checked_past([({"x": 0.5, "opt": "adam"}, 1.0)]), space)


def test_a_relative_directory_is_that_of_the_moment(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    searcher = GPSearch(warm_start="runs/other")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert searcher._past == tmp_path / "runs/other"
    assert "warm_start='runs/other'" in repr(searcher)
