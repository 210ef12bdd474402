"""From scikit-learn's parameters to a study's space, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.model_selection import ParameterSampler

from daskhpo.core.domains import Categorical, Integer, Ordinal, Real
from daskhpo.core.space import Space
from daskhpo.sklearn.candidates import Candidates, drawn, proposed


def sampled(parameters: Any, n: int = 12, seed: int = 0) -> tuple[Candidates, list[dict[str, Any]]]:
    points = [*ParameterSampler(parameters, n, random_state=seed)]
    return drawn(parameters, points), points


def same(a: Any, b: Any) -> bool:
    return a is b or bool(np.all(a == b))


PARAMETERS: dict[str, Any] = {
    "uniform": stats.uniform(1, 2),
    "log": stats.loguniform(1e-3, 10),
    "integers": stats.randint(3, 9),
    "normal": stats.norm(0, 1),
    "numbers": np.logspace(-2, 0, 30),
    "repeated": [1, 1, 2],
    "mixed": [1, 1.0, True, "auto", None],
    "arrays": [np.zeros(2), np.ones(2)],
    "objects": [Ridge(1), Ridge(2), print],
    "single": ["only"],
}


def test_each_parameter_has_a_domain_that_holds_its_values() -> None:
    made, _ = sampled(PARAMETERS)
    assert made.space["uniform"] == Real(1.0, 3.0)
    assert made.space["log"] == Real(1e-3, 10.0, log=True)
    assert made.space["integers"] == Integer(3, 8)
    assert isinstance(made.space["normal"], Ordinal)
    assert isinstance(made.space["numbers"], Ordinal)
    assert len(made.space["numbers"].values) == 30
    assert made.space["repeated"] == Ordinal([1, 2])
    assert isinstance(made.space["objects"], Categorical)
    assert made.space["single"] == "only"


def test_candidates_come_back_as_they_were_drawn() -> None:
    made, points = sampled(PARAMETERS, 40)
    space = Space(made.space)
    for config, point in zip(made.points, points, strict=True):
        back = made.params(space.complete(config))
        assert set(back) == set(point)
        for name, value in point.items():
            assert same(back[name], value), name
            if name in ("mixed", "repeated"):
                assert type(back[name]) is type(value)


def test_candidates_of_several_dicts_are_numbered() -> None:
    parameters = [{"a": [1, 2]}, {"b": stats.uniform(), "c": ["x", "y"]}]
    made, points = sampled(parameters, 8)
    assert made.space == {"candidate": Integer(0, 7)}
    assert [made.params(config) for config in made.points] == points


def test_a_single_dict_in_a_list_is_that_dict() -> None:
    assert sampled([{"a": [1, 2]}], 2)[0].space == {"a": Ordinal([1, 2])}


def test_a_searcher_gets_domains_of_what_can_be_translated() -> None:
    made = proposed({"a": stats.loguniform(1, 2), "b": ["x", "y"], "c": Real(0, 1)})
    assert made.space == {"a": Real(1, 2, log=True), "b": Categorical(["x", "y"]), "c": Real(0, 1)}
    assert made.points == ()
    with pytest.raises(ValueError, match=r"'d' has scipy's distribution 'norm'.*randint"):
        proposed({"d": stats.norm()})
    with pytest.raises(ValueError, match="several parameter dicts"):
        proposed([{"a": [1, 2]}, {"b": [1, 2]}])
