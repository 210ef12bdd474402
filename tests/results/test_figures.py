"""Figures: what they draw is what the study found."""

from __future__ import annotations

import pytest

from daskhpo.core.events import Exploited, Launched, Reported, SessionStarted, Step, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.results.result import Result

pytest.importorskip("matplotlib")

from daskhpo.results.figures import LEAST_RANGE, plot_genealogy, plot_schedule


def train(trial, since, *losses):
    steps = tuple(Step(since + i + 1, {"loss": loss}, 1.0) for i, loss in enumerate(losses))
    return Reported(trial, 1, steps, 1.0)


@pytest.fixture
def result():
    records = [SessionStarted(Limits(), CheckpointPolicy(), 0.0)]
    for trial, lr in enumerate((0.1, 0.2)):
        records += [Suggested(trial, {"lr": lr, "k": 3}, 0, 0.0), Launched(trial, 1, 0, 9, 0.0)]
    records += [
        train(0, 0, 0.9, 0.8, 0.8),
        train(1, 0, 0.7, 0.6),
        Exploited(0, 1, {"lr": 0.05, "k": 3}, 2, 2.0),
        Launched(0, 2, 2, 9, 2.0),
        train(0, 2, 0.5, 0.4),
    ]
    return Result(records, Objective("loss"))


def test_the_winners_metric_stands_above_its_schedule_and_the_fit(result):
    steps = result.schedule().fit_multistep("lr")
    figure = plot_schedule(result, steps=steps)
    above, below = figure.axes
    assert above.lines[-1].get_ydata().tolist() == [0.7, 0.6, 0.5, 0.4]
    assert above.get_ylabel() == "loss"
    drawn, fitted = (patch.get_data() for patch in below.patches)
    assert drawn.values.tolist() == [0.2, 0.05]
    assert drawn.edges.tolist() == [0, 2, 4]
    assert fitted.values.tolist() == list(steps.values)
    assert below.get_yscale() == "log"
    assert [text.get_text() for text in below.get_legend().get_texts()] == ["fitted, 1 step"]
    figure.canvas.draw()


def test_the_genealogy_has_a_line_for_each_life_and_each_exploit(result):
    figure = plot_genealogy(result)
    axes = figure.axes[0]
    segments = [c.get_segments()[0].tolist() for c in axes.collections]
    assert [[0, 0], [3, 0]] in segments  # member 0, until it exploits
    assert [[2, 0], [4, 0]] in segments
    assert [[2, 0], [2, 1]] in segments  # and from whom
    assert [[0, 1], [2, 1]] in segments  # member 1
    (way,) = axes.lines  # the winner's, over all that
    assert way.get_xydata().tolist() == [[0, 1], [2, 1], [2, 0], [4, 0]]
    figure.canvas.draw()


def test_another_trial_than_the_winner_may_be_drawn(result):
    above, below = plot_schedule(result, "lr", trial_id=1).axes
    assert above.lines[-1].get_ydata().tolist() == [0.7, 0.6]
    assert below.patches[0].get_data().values.tolist() == [0.2]
    (way,) = plot_genealogy(result, "lr", trial_id=1).axes[0].lines
    assert way.get_xydata().tolist() == [[0, 1], [2, 1]]


def test_small_differences_look_small(result):
    low, high = plot_schedule(result).axes[1].get_ylim()  # from 0.2 to 0.05
    assert high / low == pytest.approx(LEAST_RANGE)


def test_a_members_line_breaks_where_it_goes_back(result):
    others = [line.get_xdata().tolist() for line in plot_schedule(result).axes[0].lines[:-1]]
    assert others == [[1, 2, 3], [3, 4], [1, 2]]


def test_several_hyperparameters_must_be_told_apart(result):
    with pytest.raises(KeyError):
        plot_schedule(result, "depth")
    plot_genealogy(result, "k")


@pytest.mark.parametrize("plot", [plot_schedule, plot_genealogy])
def test_what_is_no_number_is_not_drawn(plot):
    records = [SessionStarted(Limits(), CheckpointPolicy(), 0.0)]
    records += [Suggested(0, {"kind": "adam"}, 0, 0.0), Launched(0, 1, 0, 9, 0.0)]
    found = Result([*records, train(0, 0, 0.9)], Objective("loss"))
    with pytest.raises(ValueError, match="kind='adam': only numbers can be plotted"):
        plot(found, "kind")


def test_nothing_is_drawn_of_a_study_without_reports():
    with pytest.raises(ValueError, match="has reported"):
        plot_schedule(Result([], Objective("loss")))
