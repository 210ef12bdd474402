"""The pace of a study, and the time that is left at this pace."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from daskhpo.core.events import Exploited, Launched, Record, Reported, SessionStarted, Suggested
from daskhpo.core.types import Continue, Limits, Status, TrialId
from daskhpo.engine.session import read_manifest, study_records
from daskhpo.results.progress import StudyProgress, TrialRecord

PACE_TRIALS = 50  # the last ones count


class StudyPace:
    """Pace of a study's session, updated by each record after the progress.

    A trial counts when it leaves its slot for the first time, paused or ended: most of those that a
    scheduler pauses never continue. Those that do take slots from new ones, which slows the pace.
    """

    def __init__(self) -> None:
        self._limits = Limits()
        self._is_population = False
        self._max_t: int | None = None  # to which the study was extended
        self._began = self._clock = 0.0
        self._new: set[TrialId] = set()  # in their first slots, or waiting for them
        self._running: set[TrialId] = set()
        self._furthest = 0  # resource that any trial was to reach
        self._times: deque[float] = deque(maxlen=PACE_TRIALS + 1)

    def apply(self, record: Record, progress: StudyProgress) -> None:
        """Process a record that the progress has processed."""
        match record:
            case SessionStarted():
                self._limits, self._clock = record.limits, record.clock
                self._max_t = record.max_t or self._max_t
                self._began = record.seconds
                self._times.clear()
                self._running.clear()
            case Suggested():
                self._new.add(record.trial)
            case Launched():
                self._running.add(record.trial)
                self._furthest = max(self._furthest, record.until)
            case Reported(decision=Continue(until=until)):
                self._furthest = max(self._furthest, until)
            case Exploited():
                self._is_population |= record.source != record.trial
        trial = progress.trials.get(getattr(record, "trial", -1))
        if trial is not None and trial.status is not Status.RUNNING:
            self._running.discard(trial.id)
            if trial.status is not Status.QUEUED and trial.id in self._new:
                self._new.remove(trial.id)
                self._times.append(record.seconds)

    @property
    def rate(self) -> float | None:
        """Trials a second; None: none has left its slot in this session."""
        if not self._times:
            return None
        is_full = len(self._times) > PACE_TRIALS
        began = self._times[0] if is_full else self._began
        return (len(self._times) - is_full) / max(self._times[-1] - began, 1e-3)

    def seconds_left(
        self, progress: StudyProgress, scheduler: str = "", clock: float | None = None
    ) -> float | None:
        """Return the seconds until the first limit of this session; None: not known.

        Parameters
        ----------
        scheduler : the study's scheduler as text, such as ``"PBT(max_t=40, ...)"``. Of a population
            every member is trained until ``max_t``, however often it is paused.
        clock : the time of day, in seconds since 1970; None: that of the last record.
        """
        of_session = progress.seconds - self._began
        left: list[float | None] = []
        if self._limits.time_budget is not None:
            left.append(self._limits.time_budget - of_session)
        if self._limits.num_trials is not None:
            left.append(self._seconds_of_trials(progress, self._limits.num_trials, scheduler))
        known = [seconds for seconds in left if seconds is not None]
        if not known:
            return None
        since = 0.0
        if clock is not None and self._clock:  # else the journal is of an older version
            since = max(0.0, clock - self._clock - of_session)
        return max(0.0, min(known) - since)

    def _seconds_of_trials(
        self, progress: StudyProgress, num_trials: int, scheduler: str
    ) -> float | None:
        busy = progress.slot_time.total - progress.slot_time.idle
        mean = busy / max(progress.n_units, 1)  # slot-seconds a unit
        trials = progress.trials
        is_population = self._is_population or scheduler.startswith(("PBT(", "PB2("))
        full = re.search(r"max_t=(\d+)", scheduler)
        if is_population and full is not None and progress.n_units:
            max_t = self._max_t or int(full[1])
            members = [trial for trial in trials.values() if not trial.status.ended]
            lacking = max_t * (num_trials - progress.n_trials)
            lacking += sum(max(max_t - member.resource, 0) for member in members)
            alone = _longest(members, max_t, mean)
            return max(lacking * mean / max(progress.n_slots, 1), alone)
        waiting = sum(trials[number].status is Status.QUEUED for number in self._new)
        missing = num_trials - progress.n_trials + waiting
        if missing <= 0:
            running = [trials[number] for number in self._running]
            return _longest(running, self._furthest, mean) if progress.n_units else None
        if self.rate is None:
            return None
        starting = missing / self.rate - (progress.seconds - self._times[-1])
        return max(0.0, starting) + self._furthest * mean  # the last one may be trained to the end


def read_seconds_left(directory: Path, clock: float) -> float | None:
    """Return the seconds that a running study still needs; None: not known."""
    manifest = read_manifest(directory)
    progress = StudyProgress(manifest.objective, keep_ended=False)
    pace = StudyPace()
    for record in study_records(directory):
        progress.apply(record)
        pace.apply(record, progress)
    return pace.seconds_left(progress, manifest.scheduler, clock)


def _longest(trials: Iterable[TrialRecord], until: int, mean: float) -> float:
    """Return the seconds until the last of some trials is trained until a resource."""
    longest = 0.0
    for trial in trials:
        is_known = trial.resource and trial.time.useful
        a_unit = trial.time.useful / trial.resource if is_known else mean
        longest = max(longest, (until - trial.resource) * a_unit)
    return longest
