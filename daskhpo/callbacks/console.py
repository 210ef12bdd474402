"""Progress in the terminal."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.types import Status
from daskhpo.results.progress import describe_search_wait

LINE_SECONDS = 10.0  # between two plain lines, without a terminal
PACE_SECONDS = 300.0  # window in which the pace is measured


class ConsoleProgress(Callback):
    """A live table in a terminal; plain lines elsewhere.

    It shows the number of trials per status, the best one so far, how many trials were judged at
    each milestone, trials ended per minute, the time left, and the slot time lost waiting for the
    searcher. Plain lines omit the milestones, and the lost time if it is 0.

    Parameters
    ----------
    file : output file; None: standard error.
    """

    def __init__(self, file: Any = None) -> None:
        self._file = file

    def on_study_start(self, info: StudyInfo) -> None:
        import sys

        from rich.console import Console

        self._info = info
        self._console = Console(file=self._file or sys.stderr, highlight=False)
        self._live: Any = None
        self._milestones: Counter[int] = Counter()
        self._ends: deque[float] = deque()
        self._session = info.session
        self._began_at = time.monotonic()
        self._printed_at = self._began_at
        self._printed_best: int | None = None
        self._no_slots_printed = False
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, refresh_per_second=4, transient=False)
            self._live.start()
        else:
            link = f", dashboard {info.dashboard_link}" if info.dashboard_link else ""
            self._print(f"{info.name}: {info.scheduler}, in {info.directory}{link}")

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        if report.decision is not None:
            self._milestones[report.resource] += 1

    def on_trial_end(self, trial: FrozenTrial) -> None:
        if trial.session >= self._info.session and trial.ended is not None:
            self._ends.append(trial.ended)

    def on_tick(self, study: StudySummary) -> None:
        self._set_clock(study)
        if self._live is not None:
            self._live.update(self._table(study))
            return
        now = time.monotonic()
        if self._no_slots(study) and not self._no_slots_printed:
            self._no_slots_printed = True
            self._print(f"{self._info.name}: no workers; waiting for some")
        elif study.n_slots:
            self._no_slots_printed = False
        if now - self._printed_at >= LINE_SECONDS:
            self._printed_at = now
            self._print(self._line(study))

    def on_study_end(self, study: StudySummary) -> None:
        self._close(study)
        if study.stop_reason:
            self._print(f"{self._info.name}: stopped, because {study.stop_reason}")
        if unfinished := study.counts[Status.QUEUED] + study.counts[Status.RUNNING]:
            self._print(f"{self._info.name}: {unfinished} trials are unfinished")
        if study.stop_reason or unfinished:
            how = (
                f"`daskhpo resume {self._info.directory}`"
                if self._info.source
                else "study.resume() in the script that started it"
            )
            self._print(
                f"resume it with {how}; inspect it with `daskhpo status {self._info.directory}`"
            )

    def on_detach(self, study: StudySummary) -> None:
        self._close(study)
        path = self._info.directory
        self._print(f"{self._info.name} continues; stop it with `daskhpo stop {path}`")

    def _set_clock(self, study: StudySummary) -> None:
        """Let the session begin when its first record was written, not when it was read."""
        now = time.monotonic()
        if study.session > self._session:
            self._session, self._began_at = study.session, now
        self._began_at = min(self._began_at, now - study.session_seconds)

    def _close(self, study: StudySummary) -> None:
        if self._live is not None:
            self._live.update(self._table(study))
            self._live.stop()
        else:
            self._print(self._line(study))

    # -- what is shown ---------------------------------------------------------------------------

    def _table(self, study: StudySummary) -> Any:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        table.add_row(self._info.name, f"{self._info.scheduler}  {_clock(self._elapsed())}")
        table.add_row("trials", self._trials(study))
        table.add_row("best", self._best(study))
        table.add_row("judged at", self._rungs())
        table.add_row("pace", self._pace(study))
        table.add_row("waited", describe_search_wait(study.search_seconds, study.n_fallbacks))
        if self._info.dashboard_link:
            table.add_row("dashboard", self._info.dashboard_link)
        return table

    def _line(self, study: StudySummary) -> str:
        shown = f"{self._info.name} {_clock(self._elapsed())} | {self._trials(study)} | "
        best = study.best
        if best is not None and best.id == self._printed_best:  # do not repeat its configuration
            shown += f"best {self._value(best)} | "
        else:
            shown += f"best {self._best(study)} | "
            self._printed_best = None if best is None else best.id
        shown += self._pace(study)
        if study.search_seconds or study.n_fallbacks:
            shown += f" | {describe_search_wait(study.search_seconds, study.n_fallbacks)}"
        return shown

    def _trials(self, study: StudySummary) -> str:
        shown = [
            f"{study.counts[status]} {status.value}"
            for status in Status
            if study.counts[status] or status is Status.RUNNING
        ]
        limit = self._info.limits.num_trials
        total = f"{study.n_trials}" + (f" of {limit}" if limit else "")
        return f"{total}: {', '.join(shown)}"

    def _best(self, study: StudySummary) -> str:
        if study.best is None:
            return "none yet"
        config = " ".join(f"{name}={_short(v)}" for name, v in study.best.config.items())
        return f"{self._value(study.best)} (trial {study.best.id}: {config})"

    def _value(self, best: FrozenTrial) -> str:
        return f"{self._info.objective.metric}={best.best_value:.5g}"

    def _rungs(self) -> str:
        if not self._milestones:
            return "none yet"
        return "  ".join(f"{r}: {n} trials" for r, n in sorted(self._milestones.items()))

    def _pace(self, study: StudySummary) -> str:
        if self._no_slots(study):
            return "no workers; waiting for some"
        session_zero = study.seconds - study.session_seconds
        oldest = session_zero + max(0.0, self._elapsed() - PACE_SECONDS)
        while self._ends and self._ends[0] < oldest:
            self._ends.popleft()
        span = min(PACE_SECONDS, self._elapsed())
        per_minute = 60 * len(self._ends) / max(span, 1e-9)
        slots = f"{study.n_slots} slot{'s' * (study.n_slots != 1)}"
        left = self._left(study, per_minute)
        return f"{per_minute:.1f} trials/min on {slots}" + (
            f", {_clock(left)} left" if left else ""
        )

    def _left(self, study: StudySummary, per_minute: float) -> float | None:
        limits = self._info.limits
        guesses = []
        if limits.time_budget is not None:
            guesses.append(max(0.0, limits.time_budget - self._elapsed()))
        if limits.num_trials is not None and per_minute > 0:
            n_ended = sum(study.counts[status] for status in Status if status.ended)
            guesses.append(60 * max(0, limits.num_trials - n_ended) / per_minute)
        return min(guesses, default=None)

    def _no_slots(self, study: StudySummary) -> bool:
        return study.n_slots == 0 and study.session > 0 and self._elapsed() > 5

    def _elapsed(self) -> float:
        return time.monotonic() - self._began_at

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
