"""Progress in the terminal."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.notebook import NotebookLine, is_notebook
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.arguments import shown
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.events import Failed, Record
from daskhpo.core.printable import printable, shell_word
from daskhpo.core.tracebacks import headline, place
from daskhpo.core.types import Status
from daskhpo.results.outcome import describe_study
from daskhpo.results.pace import StudyPace
from daskhpo.results.progress import StudyProgress, describe_search_wait

LINE_SECONDS = 10.0  # least time between two plain lines, without a terminal
NOTEBOOK_SECONDS = 1.0  # least time between two updates in a notebook
LINE_SHARE = 0.1  # of the elapsed time, between two plain lines
MAX_LINE_SECONDS = 300.0


class ConsoleProgress(Callback):
    """A live table in a terminal, a live line in a notebook, plain lines elsewhere.

    It shows the number of trials per status, the best one so far, how many trials were judged at
    each milestone, the pace (trials that left their first slot, paused or ended), the time left,
    and the slot time lost waiting for the searcher. Plain lines omit the milestones, and the lost
    time if it is 0; they come every 10 seconds, later more seldom. The first failure of a session
    is printed at once, with its error and the line that raised it. The last line says in one
    sentence what the study did.

    Parameters
    ----------
    file : output file; None: standard error.
    """

    def __init__(self, file: Any = None) -> None:
        if file is not None and not hasattr(file, "write"):
            raise InvalidArgument(f"file={shown(file)} must be an open text file, or None")
        self._file = file

    def on_study_start(self, info: StudyInfo) -> None:
        import sys

        from rich.console import Console

        self._info = info
        self._console = Console(
            file=self._file or sys.stderr, highlight=False, markup=False, emoji=False
        )
        self._live: Any = None
        self._notebook = NotebookLine() if self._file is None and is_notebook() else None
        self._milestones: Counter[int] = Counter()
        self._pace = StudyPace()
        self._progress = StudyProgress(info.objective)
        self._session, self._failed_session = info.session, 0
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
            self._print(f"{self._name}: {info.scheduler}, in {info.directory}{link}")

    @property
    def _name(self) -> str:
        return printable(self._info.name)

    @property
    def _path(self) -> str:
        return shell_word(self._info.directory)

    def on_record(self, record: Record, progress: StudyProgress) -> None:
        self._progress = progress
        self._pace.apply(record, progress)
        is_first = self._failed_session < progress.n_sessions
        if isinstance(record, Failed) and is_first and progress.n_sessions >= self._session:
            self._failed_session = progress.n_sessions
            self._print(f"{self._name}: trial {record.trial} failed: {headline(record.error)}")
            if where := place(record.error):
                self._print(where)
            self._print(f"its traceback: `daskhpo status {self._path} {record.trial}`")

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        if report.decision is not None:
            self._milestones[report.resource] += 1

    def on_tick(self, study: StudySummary) -> None:
        self._set_clock(study)
        if self._live is not None:
            self._live.update(self._table(study))
            return
        now = time.monotonic()
        if self._notebook is not None:
            if now - self._printed_at >= NOTEBOOK_SECONDS:
                self._printed_at = now
                self._notebook.show(self._line(study))
            return
        if self._no_slots(study) and not self._no_slots_printed:
            self._no_slots_printed = True
            self._print(f"{self._name}: no workers; waiting for some")
        elif study.n_slots:
            self._no_slots_printed = False
        pause = min(max(LINE_SECONDS, LINE_SHARE * self._elapsed()), MAX_LINE_SECONDS)
        if now - self._printed_at >= pause:
            self._printed_at = now
            self._print(self._line(study))

    def on_study_end(self, study: StudySummary) -> None:
        self._close(study)
        if study.n_trials:
            scheduler = printable(self._info.scheduler.partition("(")[0])
            self._print(f"{self._name}: {describe_study(self._progress, scheduler)}")
        if study.stop_reason:
            self._print(f"{self._name}: stopped, because {printable(study.stop_reason)}")
        if unfinished := study.counts[Status.QUEUED] + study.counts[Status.RUNNING]:
            what = "1 trial is" if unfinished == 1 else f"{unfinished} trials are"
            self._print(f"{self._name}: {what} unfinished")
        path = self._path
        if study.stop_reason or unfinished:
            how = (
                f"`daskhpo resume {path}`"
                if self._info.source
                else "study.resume() in the script that started it"
            )
            self._print(f"resume it with {how}; inspect it with `daskhpo status {path}`")
        if n_failed := study.counts[Status.FAILED]:
            how = (
                f"`daskhpo retry {path}`"
                if self._info.source
                else "study.resume(retry_failed=True)"
            )
            what = "failed trial" if n_failed == 1 else f"{n_failed} failed trials"
            self._print(f"after the mistake is mended, run the {what} again with {how}")
        if study.n_trials:
            self._print_cost(study)
            self._print(
                f"look   daskhpo status {path}; what a trial printed: daskhpo logs {path} 0"
            )

    def on_detach(self, study: StudySummary) -> None:
        self._close(study)
        self._print(f"{self._name} continues; stop it with `daskhpo stop {self._path}`")

    def _print_cost(self, study: StudySummary) -> None:
        sessions = f" in {study.session} sessions" if study.session > 1 else ""
        self._print(f"time   {_clock(study.seconds)}{sessions}")
        slots = self._progress.slot_time
        total, busy = slots.total, slots.total - slots.idle
        share = f", {busy / total:.0%} of them with a trial" if total else ""
        self._print(f"cost   {total:.0f} slot-seconds{share}: daskhpo cost {self._path}")

    def _set_clock(self, study: StudySummary) -> None:
        """Let the session begin when its first record was written, not when it was read."""
        now = time.monotonic()
        if study.session > self._session:
            self._session, self._began_at = study.session, now
        self._began_at = min(self._began_at, now - study.session_seconds)

    def _close(self, study: StudySummary) -> None:
        if self._live is not None:
            self._live.update(self._table(study, over=True))
            self._live.stop()
        elif self._notebook is not None:
            self._notebook.show(self._line(study, over=True))
        else:
            self._print(self._line(study, over=True))

    # -- what is shown ---------------------------------------------------------------------------

    def _table(self, study: StudySummary, *, over: bool = False) -> Any:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        table.add_row(self._name, f"{self._info.scheduler}  {_clock(self._elapsed())}")
        table.add_row("trials", self._trials(study))
        table.add_row("best", self._best(study))
        table.add_row("judged at", self._rungs())
        table.add_row("pace", self._pace_text(study, over=over))
        table.add_row("waited", describe_search_wait(study.search_seconds, study.n_fallbacks))
        if study.n_set_aside:
            table.add_row("set aside", f"{study.n_set_aside} for want of memory")
        if self._info.dashboard_link:
            table.add_row("dashboard", self._info.dashboard_link)
        return table

    def _line(self, study: StudySummary, *, over: bool = False) -> str:
        shown = f"{self._name} {_clock(self._elapsed())} | {self._trials(study)} | "
        best = study.best
        is_known = best is not None and best.id == self._printed_best and self._notebook is None
        if best is not None and is_known:  # do not repeat its configuration
            shown += f"best {self._value(best)} | "
        else:
            shown += f"best {self._best(study)} | "
            self._printed_best = None if best is None else best.id
        shown += self._pace_text(study, over=over)
        if study.search_seconds or study.n_fallbacks:
            shown += f" | {describe_search_wait(study.search_seconds, study.n_fallbacks)}"
        if study.n_set_aside:
            shown += f" | {study.n_set_aside} set aside for want of memory"
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
        values = study.best.config.items()
        config = " ".join(f"{printable(name)}={_short(value)}" for name, value in values)
        return f"{self._value(study.best)} (trial {study.best.id}: {config})"

    def _value(self, best: FrozenTrial) -> str:
        return f"{printable(self._info.objective.metric)}={best.best_value:.5g}"

    def _rungs(self) -> str:
        if not self._milestones:
            return "none yet"
        return "  ".join(f"{r}: {n} trials" for r, n in sorted(self._milestones.items()))

    def _pace_text(self, study: StudySummary, *, over: bool) -> str:
        if self._no_slots(study) and not over:
            return "no workers; waiting for some"
        slots = f"{study.n_slots} slot{'s' * (study.n_slots != 1)}"
        rate = self._pace.rate
        if rate is None:
            shown = "no trial has paused or ended yet"
        elif rate * 60 >= 1:
            shown = f"{rate * 60:.1f} trials/min"
        else:
            shown = f"{rate * 3600:.2g} trials/h"
        left = None if over or study.stop_reason else self._left(study)
        return f"{shown} on {slots}" + (
            f", about {_clock(left)} left" if left and left >= 1 else ""
        )

    def _left(self, study: StudySummary) -> float | None:
        """Return the seconds that are left, which pass like a clock's between records."""
        left = self._pace.seconds_left(self._progress, self._info.scheduler)
        since = max(0.0, self._elapsed() - study.session_seconds)
        return None if left is None else max(0.0, left - since)

    def _no_slots(self, study: StudySummary) -> bool:
        return study.n_slots == 0 and study.session > 0 and self._elapsed() > 5

    def _elapsed(self) -> float:
        return time.monotonic() - self._began_at

    def _print(self, text: str) -> None:
        self._console.print(printable(text, lines=True), soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(value)
