"""What is recommended, why, and that the page says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskhpo import recommend
from daskhpo.core.space import Space
from daskhpo.recommendation import SCHEDULER_RULES, SEARCHER_RULES
from daskhpo.space import Categorical, Integer, Ordinal, Real

PAGE = Path(__file__).parents[1] / "docs/explanation/which-method.md"
# Rows of the tables on the page: condition, choice, reason, evidence.
ROWS = [
    line.strip("| ").split(" | ")
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| if |")
]
SCHEDULER_ROWS, SEARCHER_ROWS = ROWS[: len(SCHEDULER_RULES)], ROWS[len(SCHEDULER_RULES) :]
SPACE = {"lr": Real(1e-4, 1e-1, log=True), "layers": Integer(1, 40)}
WIDE = {f"x{i}": Real(0, 1) for i in range(21)}
SMALL = {"a": Categorical(["x", "y"]), "b": Ordinal([1, 2, 4]), "n": Integer(1, 7)}

# full trainings: 8 h on 16 workers, 60 s a unit, 81 units: 94.8
SCHEDULED = [  # what is asked beside the space, and what comes of it, row by row
    ({"max_t": 2}, "FIFO(max_t=2)"),
    ({"schedule": ["lr"], "architecture": ["layers"]}, "variant='promotion'"),
    ({"schedule": ["lr"], "workers": 1}, "PB2(max_t=81, perturbation_interval=2"),
    ({"schedule": ["lr"]}, "PBT(max_t=81, perturbation_interval=2, mutations=('lr',)"),
    ({"models": 30}, "MedianStopping(FIFO(max_t=81), grace_period=5"),
    (
        {"early": "misleading"},
        "grace_period=9, reduction_factor=3, brackets=1, variant='promotion'",
    ),
    ({"early": "telling"}, "grace_period=3, reduction_factor=3, brackets=1, variant='stopping'"),
    ({}, "GuardedASHA(max_t=81, grace_period=1, reduction_factor=3)"),
]
SEARCHED = [
    ({"space": SMALL}, "GridSearch(num_points=7)"),
    ({"schedule": ["lr"]}, "RandomSearch()"),
    ({}, "ForestSearch()"),
    ({"early": "telling", "workers": 1}, "RandomSearch()"),
    ({"early": "telling", "seconds_per_unit": 0.1}, "RandomSearch()"),
    ({"early": "telling", "space": WIDE}, "RandomSearch()"),
    ({"early": "telling"}, "GPSearch("),
]


def ask(**changes):
    question = {"space": SPACE, "budget": "8h", "workers": 16, "seconds_per_unit": 60.0}
    return recommend(**question | {"max_t": 81} | changes)


@pytest.mark.parametrize("row", range(len(SCHEDULER_RULES)))
def test_every_row_for_schedulers_is_reached_and_gives_what_the_page_says(row):
    changes, expected = SCHEDULED[row]
    advice = ask(**changes)
    assert advice.scheduler_rule is SCHEDULER_RULES[row]
    assert expected in repr(advice.scheduler)
    assert repr(advice.scheduler).startswith(f"{SCHEDULER_ROWS[row][1].split('`')[1]}(")


@pytest.mark.parametrize("row", range(len(SEARCHER_RULES)))
def test_every_row_for_searchers_is_reached_and_gives_what_the_page_says(row):
    changes, expected = SEARCHED[row]
    advice = ask(**changes)
    assert advice.searcher_rule is SEARCHER_RULES[row]
    assert repr(advice.searcher).startswith(expected)
    assert SEARCHER_ROWS[row][1] == f"`{expected.partition('(')[0]}`"


def test_the_page_shows_the_rules_that_the_function_goes_by():
    assert [row[2] for row in ROWS] == [r.because for r in (*SCHEDULER_RULES, *SEARCHER_RULES)]


def test_every_rule_has_evidence_on_the_page_and_weak_ones_are_marked():
    for row, rule in zip(ROWS, (*SCHEDULER_RULES, *SEARCHER_RULES), strict=True):
        evidence = row[3].removeprefix("**weak:** ")
        assert evidence
        assert (evidence != row[3]) == rule.is_weak


def test_the_advice_is_code_that_makes_the_same_parts():
    for changes, _ in [*SCHEDULED, *SEARCHED]:
        advice = ask(**changes)
        names = {}
        exec(str(advice), names)
        assert repr(names["scheduler"]) == repr(advice.scheduler)
        assert repr(names["searcher"]) == repr(advice.searcher)
        assert names.get("num_trials") == advice.num_trials


def test_what_is_recommended_fits_the_space():
    for changes, _ in [*SCHEDULED, *SEARCHED]:
        advice = ask(**changes)
        space = Space(changes.get("space", SPACE))
        advice.scheduler.setup(space, 0)
        advice.searcher.setup(space, 0)


@pytest.mark.parametrize("max_t", [1, 2, 3, 4, 5, 9, 27, 50, 81, 1000])
@pytest.mark.parametrize("early", ["unknown", "telling", "misleading"])
def test_every_length_of_training_has_a_recommendation(max_t, early):
    assert ask(max_t=max_t, seconds_per_unit=20.0, early=early).scheduler.max_t == max_t
    if max_t >= 4:
        assert (
            ask(max_t=max_t, early=early, seconds_per_unit=20.0, schedule=["lr"]).scheduler.max_t
            == max_t
        )


def test_a_grid_is_recommended_from_the_budget_on_that_finishes_it():
    seconds = 2 * 3 * 7 * 81 * 60
    enough = ask(space=SMALL, budget=seconds, workers=1)
    assert "GridSearch" in repr(enough.searcher)
    assert "GridSearch" not in repr(ask(space=SMALL, budget=seconds - 1, workers=1).searcher)
    assert repr(ask(space=dict(list(SMALL.items())[:2])).searcher) == "GridSearch(num_points=5)"


def test_a_population_is_as_large_as_can_be_trained_within_bounds():
    sizes = [ask(schedule=["lr"], budget=n * 81 * 60, workers=1).num_trials for n in (1, 7, 900)]
    assert sizes == [4, 7, 16]


def test_a_category_alone_is_mutated_by_pbt_however_small_the_population():
    space = SPACE | {"optimiser": Categorical(["sgd", "adam"])}
    advice = ask(space=space, schedule=["optimiser"], workers=1)
    assert repr(advice.scheduler).startswith("PBT(")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "soon"}, "budget='soon'"),
        ({"budget": "27m"}, "budget: 1620 s is 33% of one full training"),
        ({"workers": 0}, "workers=0 must be at least 1"),
        ({"workers": 1.5}, "workers=1.5"),
        ({"seconds_per_unit": 0}, "seconds_per_unit=0 must be positive"),
        ({"seconds_per_unit": float("inf")}, "finite"),
        ({"max_t": 0}, "max_t=0"),
        ({"models": 0}, "models=0"),
        ({"early": "perhaps"}, "early='perhaps' must be 'unknown', 'telling' or 'misleading'"),
        ({"schedule": ["rate"]}, r"schedule: \['rate'\] are no hyperparameters"),
        ({"architecture": ["depth"]}, r"architecture: \['depth'\]"),
        ({"schedule": ["lr"], "architecture": ["lr"]}, "cannot change during training"),
        ({"schedule": ["lr"], "max_t": 3}, "too short for a schedule"),
    ],
)
def test_bad_questions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ask(**changes)
