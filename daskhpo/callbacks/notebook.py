"""Progress in a notebook: one output that is updated while the study runs."""

from __future__ import annotations

import html
import sys
import time
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.values import StudyInfo, StudySummary
from daskhpo.plots.data import clock
from daskhpo.plots.look import COLOURS, SIGNS

UPDATE_SECONDS = 2.0


class NotebookLine:
    """One output of a cell; the newest text takes the place of the one before."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Show a text; also from another thread than the cell's."""
        from IPython.display import display

        data = {"text/plain": text}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def is_notebook() -> bool:
    """Return True in the kernel of a notebook; IPython is not imported for that."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class NotebookProgress(Callback):
    """The state of a study as one output of a notebook's cell, updated while it runs.

    It shows the trials by state, the best one, and the link to the study's page in the dashboard.
    """

    def on_study_start(self, info: StudyInfo) -> None:
        from IPython.display import HTML, display

        self._info, self._html = info, HTML
        self._shown_at = time.monotonic()
        self._cell: Any = display(HTML(f"{html.escape(info.name)} begins"), display_id=True)

    def on_tick(self, study: StudySummary) -> None:
        if time.monotonic() - self._shown_at >= UPDATE_SECONDS:
            self._show(study)

    def on_study_end(self, study: StudySummary) -> None:
        self._show(study)

    def _show(self, study: StudySummary) -> None:
        self._shown_at = time.monotonic()
        if self._cell is not None:
            self._cell.update(self._html(summary_html(self._info, study)))


def summary_html(info: StudyInfo, study: StudySummary) -> str:
    """Return where a study stands, as HTML."""
    states = " &ensp; ".join(
        f'<span style="color:{COLOURS[status.value]}">{SIGNS[status.value]}</span> '
        f"{n:,} {status.value}"
        for status, n in study.counts.items()
        if n
    )
    limit = info.limits.num_trials
    total = f"{study.n_trials:,}" + (f" of {limit:,}" if limit else "")
    best = "none yet"
    if study.best is not None and study.best.best_value is not None:
        config = " ".join(f"{name}={value!r}" for name, value in study.best.config.items())
        best = f"<b>{study.best.best_value:.5g}</b> (trial {study.best.id}: {html.escape(config)})"
    rows = [
        ("trials", f"{total} &ensp; {states}"),
        (f"best {html.escape(info.objective.metric)}", best),
        ("time", f"{clock(study.seconds)}, {study.n_slots} slots"),
    ]
    if study.stop_reason:
        rows.append(("stopped", html.escape(study.stop_reason)))
    if info.dashboard_link:
        rows.append(("dashboard", html.escape(info.dashboard_link)))
    cells = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in rows)
    return f"<b>{html.escape(info.name)}</b><table>{cells}</table>"
