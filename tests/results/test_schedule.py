"""Schedules as data, and the multistep schedule that is fitted to them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.types import ScheduleSegment
from daskhpo.results.multistep import MultiStep
from daskhpo.results.schedule import Schedule


def a_schedule(*rates, length=5, **constants):
    return Schedule(
        [
            ScheduleSegment(i * length, (i + 1) * length, {"lr": rate, **constants}, trial=i)
            for i, rate in enumerate(rates)
        ]
    )


DECAY = a_schedule(0.1, 0.11, 0.09, 0.02, 0.022, 0.004, 0.0041, 0.0039)


# -- the schedule itself -------------------------------------------------------------------------


def test_each_unit_has_the_configuration_in_force_while_it_was_trained():
    schedule = a_schedule(0.1, 0.2, length=3)
    assert [schedule.at(unit)["lr"] for unit in range(1, 7)] == [0.1] * 3 + [0.2] * 3
    assert schedule.values("lr") == [0.1] * 3 + [0.2] * 3
    for unit in (0, 7):
        with pytest.raises(ValueError, match="from 1 to 6"):
            schedule.at(unit)


def test_its_names_are_those_that_change():
    assert a_schedule(0.1, 0.2, width=8).names == ("lr",)
    assert a_schedule(0.1, 0.1, width=8).names == ()
    assert a_schedule(0.1, 0.2, width=8).initial == {"lr": 0.1, "width": 8}


def test_it_comes_back_from_a_file(tmp_path):
    schedule = Schedule(
        [
            ScheduleSegment(0, 1, {"lr": 0.1, "k": ("a", (1, None))}, 7),
            ScheduleSegment(1, 4, {"lr": 0.3, "k": True}),
        ]
    )
    schedule.save(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json") == schedule
    assert "daskhpo" not in (tmp_path / "schedule.json").read_text()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"pieces": []}', '{"pieces": [{"start": 0}]}', '{"pieces": [3]}']
)
def test_a_file_with_something_else_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="holds no schedule"):
        Schedule.load(tmp_path / "x.json")


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [ScheduleSegment(1, 2, {"lr": 1.0})],
        [ScheduleSegment(0, 2, {"lr": 1.0}), ScheduleSegment(3, 4, {"lr": 1.0})],
        [ScheduleSegment(0, 0, {"lr": 1.0})],
        [ScheduleSegment(0, 2, {"lr": 1.0}), ScheduleSegment(2, 4, {"rate": 1.0})],
    ],
)
def test_pieces_that_do_not_fit_together_are_refused(pieces):
    with pytest.raises(ValueError, match="schedule"):
        Schedule(pieces)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 200))
def test_stretching_keeps_the_shares_of_the_training(lengths, max_t):
    ends = np.cumsum(lengths).tolist()
    pieces = [
        ScheduleSegment(end - length, end, {"lr": float(i)})
        for i, (length, end) in enumerate(zip(lengths, ends, strict=True))
    ]
    schedule = Schedule(pieces).stretch(max_t)
    assert schedule.max_t == max_t
    for piece in schedule:
        original = pieces[int(piece.config["lr"])]
        assert abs(piece.until - original.until * max_t / ends[-1]) <= 0.5


def test_its_frame_has_a_row_for_each_piece():
    frame = a_schedule(0.1, 0.2, width=8).frame()
    assert list(frame) == ["start", "until", "trial", "config/lr", "config/width"]
    assert frame["config/lr"].tolist() == [0.1, 0.2]
    assert frame["until"].tolist() == [5, 10]


# -- the fit -------------------------------------------------------------------------------------


def test_a_noisy_decay_in_three_levels_is_found():
    steps = DECAY.fit_multistep()
    assert steps.milestones == (15, 25)
    assert steps.values == pytest.approx((0.0997, 0.021, 0.004), rel=0.01)
    assert steps.max_t == 40
    assert 0 < steps.residual < 0.1


def test_levels_are_geometric_means_weighted_by_units():
    schedule = Schedule([ScheduleSegment(0, 1, {"lr": 0.1}), ScheduleSegment(1, 4, {"lr": 0.12})])
    expected = math.exp((math.log(0.1) + 3 * math.log(0.12)) / 4)
    assert schedule.fit_multistep().values == pytest.approx((expected,))


def test_no_more_steps_than_allowed():
    assert DECAY.fit_multistep(max_steps=1).milestones == (25,)
    assert DECAY.fit_multistep(max_steps=0).milestones == ()


def test_differences_below_the_tolerance_are_no_step():
    wobbling = a_schedule(0.1, 0.08, 0.1, 0.12, 0.1, 0.09, 0.11)
    assert wobbling.fit_multistep().milestones == ()


def test_a_constant_schedule_has_one_level():
    steps = a_schedule(0.1, 0.1).fit_multistep("lr")
    assert (steps.values, steps.milestones) == (pytest.approx((0.1,)), ())


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(1e-4, 1.0)), min_size=1, max_size=7),
    st.integers(0, 3),
)
def test_no_other_milestones_fit_better(pieces, max_steps):
    """Against all partitions, one by one."""
    lengths, rates = zip(*pieces, strict=True)
    ends = np.cumsum(lengths).tolist()
    schedule = Schedule(
        [ScheduleSegment(e - n, e, {"lr": r}) for n, e, r in zip(lengths, ends, rates, strict=True)]
    )
    y = np.log(schedule.values("lr"))
    m = len(pieces)

    def criterion(cuts):
        parts = np.split(y, cuts)
        mean = sum(float(((part - part.mean()) ** 2).sum()) for part in parts) / len(y)
        return m * math.log(max(mean, 0.2**2)) + (2 * len(cuts) + 1) * math.log(m)

    choices = [c for k in range(max_steps + 1) for c in combinations(ends[:-1], k)]
    found = schedule.fit_multistep("lr", max_steps=max_steps)
    assert criterion(list(found.milestones)) <= min(map(criterion, map(list, choices))) + 1e-6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": None}, ValueError, "these change: lr, momentum"),
        ({"name": "rate"}, KeyError, "rate"),
        ({"name": "lr", "max_steps": -1}, ValueError, "max_steps=-1"),
        ({"name": "lr", "tolerance": 0}, ValueError, "tolerance=0"),
        ({"name": "momentum"}, ValueError, "momentum=0.0 must be a positive number"),
    ],
)
def test_what_cannot_be_fitted_is_refused(options, error, message):
    schedule = Schedule(
        [
            ScheduleSegment(0, 1, {"lr": 0.1, "momentum": 0.9}),
            ScheduleSegment(1, 2, {"lr": 0.2, "momentum": 0.0}),
        ]
    )
    with pytest.raises(error, match=message):
        schedule.fit_multistep(**options)


# -- the multistep schedule ----------------------------------------------------------------------

STEPS = MultiStep("lr", (0.1, 0.02, 0.05), (3, 4), max_t=8)
RATES = [0.1, 0.1, 0.1, 0.02, 0.05, 0.05, 0.05, 0.05]


def test_its_values_hold_until_their_milestones():
    assert [STEPS.at(unit) for unit in range(1, 9)] == RATES


def test_it_stretches_to_another_length():
    assert STEPS.stretch(80).milestones == (30, 40)
    with pytest.raises(ValueError, match="must increase between 0 and max_t=2"):
        STEPS.stretch(2)


def an_optimizer(torch, lr=7.0):
    parameter = torch.nn.Parameter(torch.zeros(1))
    return torch.optim.SGD([{"params": [parameter]}], lr=lr)


@pytest.mark.slow
def test_torch_trains_each_epoch_at_its_rate():
    torch = pytest.importorskip("torch")
    optimizer = an_optimizer(torch)
    scheduler = STEPS.torch_scheduler(optimizer)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(RATES)


def test_torchs_scheduler_goes_on_from_its_own_checkpoint():
    torch = pytest.importorskip("torch")
    optimizer = an_optimizer(torch)
    scheduler = STEPS.torch_scheduler(optimizer)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    twin = an_optimizer(torch)
    again = STEPS.torch_scheduler(twin)
    twin.load_state_dict(optimizer.state_dict())
    again.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    twin.step()
    again.step()
    assert twin.param_groups[0]["lr"] == pytest.approx(RATES[5])


def test_the_code_to_paste_needs_torch_alone_and_does_the_same():
    torch = pytest.importorskip("torch")
    code = STEPS.torch_code()
    assert "import daskhpo" not in code
    assert code.startswith("# lr: 0.1, from unit 4 on 0.02, from unit 5 on 0.05, of 8\n")
    assert "lr=0.1;" in code
    optimizer = an_optimizer(torch, lr=0.1)
    names = {"optimizer": optimizer}
    exec(code, names)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        names["scheduler"].step()
    assert rates == pytest.approx(RATES)


@pytest.mark.slow
def test_a_pasted_fit_trains_elsewhere_at_the_fitted_rates(tmp_path):
    """In a program that cannot import daskhpo, for three times as many epochs."""
    pytest.importorskip("torch")
    steps = DECAY.fit_multistep()
    longer = steps.stretch(120)
    program = f"""
import sys
sys.modules["daskhpo"] = None  # an import would raise
import torch
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr={longer.values[0]!r})
{longer.torch_code()}
for _ in range({longer.max_t}):
    print(optimizer.param_groups[0]["lr"])
    optimizer.step()
    scheduler.step()
"""
    (tmp_path / "program.py").write_text(program)
    answer = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "program.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    rates = [float(line) for line in answer.stdout.split()]
    assert rates == pytest.approx([steps.at(1 + i // 3) for i in range(120)], rel=1e-5)
    found = [DECAY.at(1 + i // 3)["lr"] for i in range(120)]  # of which the steps are most
    assert rates == pytest.approx(found, rel=DECAY.fit_multistep().residual * 3)


@pytest.mark.parametrize(
    ("values", "milestones"),
    [((0.1,), (3,)), ((0.1, 0.2), (0,)), ((0.1, 0.2), (8,)), ((1.0, 2.0, 3.0), (5, 5))],
)
def test_milestones_that_make_no_sense_are_refused(values, milestones):
    with pytest.raises(ValueError, match="milestones="):
        MultiStep("lr", values, milestones, max_t=8)
