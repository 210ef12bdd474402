"""Lineage and schedule of a study, from its records."""

from __future__ import annotations

import math

import pytest

from daskhpo.core.events import (
    AttemptLost,
    Exploited,
    Launched,
    Reported,
    SessionStarted,
    Step,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.results.result import Result

BEGAN = SessionStarted(Limits(), CheckpointPolicy(), 0.0)


def begin(trial, lr):
    return [Suggested(trial, {"lr": lr}, 0, 0.0), Launched(trial, 1, 0, 9, 0.0)]


def train(trial, since, *losses, attempt=1):
    steps = tuple(Step(since + i + 1, {"loss": loss}, 1.0) for i, loss in enumerate(losses))
    return [Reported(trial, attempt, steps, 1.0)]


def take_over(trial, source, lr, resource):
    return [
        Exploited(trial, source, {"lr": lr}, resource, 2.0),
        Launched(trial, 5, resource, 9, 2.0),
    ]


def result(*records, mode="min"):
    return Result([BEGAN, *(r for some in records for r in some)], Objective("loss", mode))


def shown(schedule):
    return [(piece.start, piece.until, piece.config["lr"], piece.trial) for piece in schedule]


def population(*more, mode="min"):
    """Trial 0 takes over 1 at 2 and trains to 4; 1 takes over 0 at 4 and trains to 6."""
    return result(
        begin(0, 0.1),
        begin(1, 0.2),
        train(0, 0, 0.9, 0.8),
        train(1, 0, 0.7, 0.6),
        take_over(0, 1, 0.3, 2),
        train(0, 2, 0.5, 0.4),
        train(1, 2, 0.65, 0.65),
        take_over(1, 0, 0.4, 4),
        train(1, 4, 0.3, 0.2),
        *more,
        mode=mode,
    )


def test_the_way_of_a_trial_leads_through_those_whose_states_it_took_over():
    found = population()
    assert shown(found.schedule(1)) == [(0, 2, 0.2, 1), (2, 4, 0.3, 0), (4, 6, 0.4, 1)]
    assert shown(found.schedule(0)) == [(0, 2, 0.2, 1), (2, 4, 0.3, 0)]


def test_the_winner_is_whose_way_has_the_best_report():
    assert shown(population().schedule()) == shown(population().schedule(1))
    best_early = population(begin(2, 0.9), train(2, 0, 0.1))
    assert shown(best_early.schedule()) == [(0, 1, 0.9, 2)]


def test_larger_is_better_where_the_study_says_so():
    found = population(begin(2, 0.9), train(2, 0, 0.95), mode="max")
    assert shown(found.schedule()) == [(0, 1, 0.9, 2)]


def test_of_those_that_share_the_best_report_the_one_trained_furthest_wins():
    """Two go on from the same state, and neither becomes better than it was."""
    found = result(
        begin(0, 0.1),
        begin(1, 0.2),
        train(1, 0, 0.5),
        train(0, 0, 0.1),
        take_over(1, 0, 0.3, 1),
        train(1, 1, 0.2, 0.3),
        train(0, 1, 0.2),
    )
    assert shown(found.schedule()) == [(0, 1, 0.1, 0), (1, 3, 0.3, 1)]


def test_of_those_trained_equally_far_the_better_by_its_last_report_wins():
    found = result(
        begin(0, 0.1),
        begin(1, 0.2),
        train(0, 0, 0.1),
        take_over(1, 0, 0.3, 1),
        train(0, 1, 0.4),
        train(1, 1, 0.3),
    )
    assert shown(found.schedule()) == [(0, 1, 0.1, 0), (1, 2, 0.3, 1)]


def test_what_a_donor_trained_later_is_not_on_the_way():
    """The donor's best report came after its state was taken over."""
    found = result(
        begin(0, 0.1),
        begin(1, 0.2),
        train(0, 0, 0.5),
        train(1, 0, 0.9),
        take_over(1, 0, 0.3, 1),
        train(1, 1, 0.4, 0.4, 0.4),
        train(0, 1, 0.1),
    )
    assert shown(found.schedule()) == [(0, 2, 0.1, 0)]


def test_what_a_trial_was_before_it_took_over_another_one_is_no_winner():
    """Its best report was made with a state that nobody has any more."""
    found = result(
        begin(0, 0.1),
        begin(1, 0.2),
        train(0, 0, 0.9, 0.1, 0.9),
        train(1, 0, 0.5, 0.5, 0.5),
        take_over(0, 1, 0.3, 3),
        train(0, 3, 0.6),
        train(1, 3, 0.4),
    )
    assert found.best_value == 0.1
    assert shown(found.schedule()) == [(0, 4, 0.2, 1)]


def test_while_the_only_trial_begins_anew_there_is_no_schedule():
    found = result(
        begin(0, 0.1),
        train(0, 0, 0.5, 0.4),
        take_over(0, 0, 0.2, 2),
        [AttemptLost(0, 5, "its worker died", 3.0), Launched(0, 6, 0, 9, 3.0)],
    )
    with pytest.raises(ValueError, match="all train from the start again"):
        found.schedule()


def test_a_winner_may_just_have_changed_its_configuration():
    found = result(begin(0, 0.1), train(0, 0, 0.5, 0.4), take_over(0, 0, 0.2, 2))
    assert shown(found.schedule()) == [(0, 2, 0.1, 0)]


def test_a_trial_that_took_over_a_state_and_has_not_trained_since_has_that_states_way():
    found = population(begin(2, 0.9), take_over(2, 1, 0.5, 6))
    assert shown(found.schedule(2)) == shown(found.schedule(1))


def test_one_that_changed_its_own_configuration_goes_on_from_itself():
    found = result(begin(0, 0.1), train(0, 0, 0.5, 0.4), take_over(0, 0, 0.2, 2), train(0, 2, 0.3))
    assert shown(found.schedule()) == [(0, 2, 0.1, 0), (2, 3, 0.2, 0)]
    assert len(found.history()) == 3


def test_one_whose_states_are_gone_trains_again_with_the_configuration_that_it_has():
    lost = [AttemptLost(0, 5, "its worker died", 3.0), Launched(0, 6, 1, 9, 3.0)]
    found = population(lost, train(0, 1, 0.1, 0.1, 0.1, attempt=6))
    assert shown(found.schedule(0)) == [(0, 1, 0.2, 1), (1, 4, 0.3, 0)]
    anew = population(
        [AttemptLost(0, 5, "its worker died", 3.0), Launched(0, 6, 0, 9, 3.0)],
        train(0, 0, 0.1, attempt=6),
    )
    assert shown(anew.schedule(0)) == [(0, 1, 0.3, 0)]


def test_a_loss_that_costs_no_configuration_changes_nothing():
    lost = [AttemptLost(1, 5, "its worker died", 3.0), Launched(1, 6, 4, 9, 3.0)]
    found = population(lost, train(1, 4, 0.3, 0.2, attempt=6))
    assert shown(found.schedule()) == shown(population().schedule())


def test_the_lineage_is_a_tree_of_lives():
    frame = population().lineage()
    assert list(frame) == [
        "life", "trial", "start", "until", "parent", "seconds", "best/loss", "config/lr",
    ]  # fmt: skip
    assert frame["trial"].tolist() == [0, 1, 0, 1]
    assert frame["start"].tolist() == [0, 0, 2, 4]
    assert frame["until"].tolist() == [2, 4, 4, 6]
    assert frame["parent"].fillna(-1).tolist() == [-1, -1, 1, 2]
    assert frame["best/loss"].tolist() == [0.8, 0.6, 0.4, 0.2]
    assert frame["config/lr"].tolist() == [0.1, 0.2, 0.3, 0.4]


def test_a_life_without_a_report_has_no_best_value():
    frame = result(begin(0, 0.1)).lineage()
    assert math.isnan(frame["best/loss"][0])
    assert frame["until"].tolist() == [0]


def test_there_is_no_schedule_without_a_report():
    with pytest.raises(ValueError, match="trial 0 has reported nothing"):
        result(begin(0, 0.1)).schedule(0)
    with pytest.raises(ValueError, match="none of 1 trials has reported"):
        result(begin(0, 0.1)).schedule()
    with pytest.raises(KeyError):
        result().schedule(3)


def test_the_lineage_of_nothing_is_empty():
    assert len(result().lineage()) == 0


def test_the_training_of_a_trial_is_that_of_all_whose_states_it_went_on_from():
    frame = population().training()
    assert frame["resource"].tolist() == [1, 2, 3, 4, 5, 6]
    assert frame["trial"].tolist() == [1, 1, 0, 0, 1, 1]
    assert frame["loss"].tolist() == [0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert list(frame) == list(population().history())


def test_a_unit_that_was_trained_again_is_told_as_it_went_into_the_state():
    lost = [AttemptLost(1, 5, "its worker died", 3.0), Launched(1, 6, 4, 9, 3.0)]
    found = population(lost, train(1, 4, 0.35, attempt=6))
    assert found.training(1)["loss"].tolist() == [0.7, 0.6, 0.5, 0.4, 0.35]
    assert found.schedule(1).max_t == 5
