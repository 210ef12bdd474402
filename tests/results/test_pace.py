"""The pace of a study, and the forecast of its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daskhpo.core.events import Held, Launched, Record, Reported, SessionStarted, Step, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import CheckpointPolicy, Limits, Pause
from daskhpo.results.pace import PACE_TRIALS, StudyPace, read_seconds_left
from daskhpo.results.progress import StudyProgress
from daskhpo.schedulers import (
    ASHA,
    FIFO,
    PASHA,
    PBT,
    AsyncHyperband,
    GuardedASHA,
    Hyperband,
    MedianStopping,
)
from tests.plots.made import records_of, write_study

OBJECTIVE = Objective("error")


class Followed:
    def __init__(self) -> None:
        self.progress, self.pace = StudyProgress(OBJECTIVE, keep_ended=False), StudyPace()

    def apply(self, *records: Record) -> Followed:
        for record in records:
            self.progress.apply(record)
            self.pace.apply(record, self.progress)
        return self

    def left(self, scheduler: str = "", clock: float | None = None) -> float | None:
        return self.pace.seconds_left(self.progress, scheduler, clock)


def paused(trial: int, at: float) -> list[Record]:
    step = Step(1, {"error": 1.0}, at)
    return [
        Suggested(trial, {"x": 1.0}, 0, at - 1),
        Launched(trial, 1, 0, 1, at - 1),
        Reported(trial, 1, (step,), at, decision=Pause()),
        Held(trial, 1, None, at),
    ]


def session(at: float = 0.0, clock: float = 0.0, **limits: Any) -> Record:
    return SessionStarted(Limits(**limits), CheckpointPolicy(), at, clock=clock)


@pytest.mark.parametrize("n_slots", [2, 8])
@pytest.mark.parametrize(
    "scheduler",
    [
        ASHA(27),
        ASHA(27, variant="promotion"),
        AsyncHyperband(27),
        FIFO(9),
        GuardedASHA(27),
        Hyperband(27),
        MedianStopping(FIFO(9)),
        PASHA(27),
        PBT(40, 5, ["lr"]),
    ],
    ids=repr,
)
def test_a_forecast_has_the_right_size(scheduler: Scheduler, n_slots: int, tmp_path: Path) -> None:
    num_trials = 12 if isinstance(scheduler, PBT) else 150
    write_study(tmp_path, scheduler, num_trials=num_trials, num_workers=n_slots)
    records = records_of(tmp_path)
    end = records[-1].seconds
    followed = Followed()
    n_looks = 0
    for record in records:
        share = followed.progress.seconds / end
        if share > (0.3, 0.5, 0.7, 1.0)[n_looks]:
            n_looks += 1
            left = followed.left(repr(scheduler))
            assert left is not None
            truly = end - followed.progress.seconds
            assert truly / 3 < left < truly * 3 or truly < 0.05 * end, share
        followed.apply(record)
    assert n_looks == 3
    assert followed.left(repr(scheduler)) == 0.0


def test_a_paused_trial_counts_once_however_often_it_continues() -> None:
    followed = Followed().apply(session(), *paused(0, 10.0))
    assert followed.pace.rate == pytest.approx(0.1)
    again = Step(2, {"error": 0.5}, 20.0)
    followed.apply(Launched(0, 2, 1, 2, 15.0), Reported(0, 2, (again,), 20.0, decision=Pause()))
    assert followed.pace.rate == pytest.approx(0.1)


def test_only_the_last_trials_and_this_session_count() -> None:
    followed = Followed().apply(session())
    for number in range(PACE_TRIALS):
        followed.apply(*paused(number, 100.0 * (number + 1)))
    for number in range(PACE_TRIALS, 2 * PACE_TRIALS + 1):
        followed.apply(*paused(number, 5000.0 + (number - PACE_TRIALS)))
    assert followed.pace.rate == pytest.approx(1.0)
    followed.apply(session(9000.0, num_trials=500))
    assert followed.pace.rate is None
    assert followed.left() is None
    followed.apply(*paused(999, 9020.0))
    assert followed.pace.rate == pytest.approx(0.05)


def test_the_first_limit_ends_the_study() -> None:
    def left(**limits: Any) -> float | None:
        return Followed().apply(session(**limits), *paused(0, 10.0)).left()

    assert left() is None
    assert left(num_trials=4) == pytest.approx(31.0)  # its last one trains then
    assert left(num_trials=4, time_budget=25.0) == pytest.approx(15.0)
    assert left(time_budget=5.0) == 0.0


def test_the_time_left_passes_like_the_time_of_day_since_the_last_record() -> None:
    followed = Followed().apply(session(1000.0, clock=5e9, time_budget=60.0))
    followed.apply(*paused(0, 1010.0))
    assert followed.left() == followed.left(clock=5e9 + 10) == pytest.approx(50.0)
    assert followed.left(clock=5e9 + 40) == pytest.approx(20.0)
    assert followed.left(clock=5e9 + 80) == 0.0
    assert followed.left(clock=0.0) == pytest.approx(50.0)  # a clock that is behind


def test_a_population_is_trained_to_the_end_though_all_of_it_is_paused() -> None:
    followed = Followed().apply(session(num_trials=3))
    assert followed.left() is None
    for number in range(3):
        followed.apply(*paused(number, number + 1.0))
    assert followed.left("PBT(max_t=4, perturbation_interval=1)") == pytest.approx(9.0)


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_a_study_is_forecast_from_its_directory(share: float, tmp_path: Path) -> None:
    rest = write_study(tmp_path, num_trials=100, share=share)
    left = read_seconds_left(tmp_path, 0.0)
    at = records_of(tmp_path)[-1].seconds
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.writelines(f"{line}\n" for line in rest)
    assert left is not None
    assert 1 / 3 < left / (records_of(tmp_path)[-1].seconds - at) < 3
