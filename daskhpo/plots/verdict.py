"""The verdict on a study so far, in a few lines of HTML."""

from __future__ import annotations

import html
import re

import numpy as np

from daskhpo.core.types import Status
from daskhpo.plots import data, look
from daskhpo.plots.data import clock
from daskhpo.plots.page import nothing_yet
from daskhpo.plots.tables import STATES, StudyTables

RECENT = 200  # trials whose starts tell the pace


def header(tables: StudyTables, outlook: str = "", cost: str = "") -> str:
    """Return the verdict so far as HTML: best value, trials, time, what is left.

    Parameters
    ----------
    outlook : what is known of workers that are not there yet.
    cost : what the workers cost, and may cost.
    """
    facts, number = tables.facts, data.best_trial(tables)
    metric = html.escape(tables.objective.metric)
    if number is None:
        best = nothing_yet(tables)
    else:
        value = float(tables.value(tables.best[number]))
        noise = data.spread_of_best(tables)
        plus = f" ± {noise:.2g} <span class=dim>(its last 5 units)</span>" if noise else ""
        best = (
            f"<span class=big>{value:.5g}</span>{plus} &ensp; trial {number}: "
            f"<span class=dim>{html.escape(tables.text_of(number))}</span>"
        )
    counts = data.counts(tables)
    shown = " &ensp; ".join(
        f'<span style="color:{look.COLOURS[state]}">{look.SIGNS[state]}</span> {n:,} {state}'
        for state, n in counts.items()
    )
    limit = facts.limits.num_trials
    total = f"{tables.n_trials:,}" + (f" of {limit:,}" if limit else "")
    used = facts.slot_seconds or 1.0
    budget = facts.limits.time_budget
    of_session = facts.seconds - facts.session_began
    parts = [
        f"{clock(facts.seconds)} since it began"
        + (f" ({clock(of_session)} of {clock(budget)})" if budget else ""),
        f"{clock(facts.slot_seconds)} in slots "
        f"({facts.useful_seconds / used:.0%} useful, {facts.idle_seconds / used:.0%} idle)",
        f"{facts.n_slots} slots",
    ]
    if (left := seconds_left(tables)) is not None:
        parts.append(f"about {clock(left)} left at this pace")
    if facts.stop_reason:
        parts.append("stopped: " + html.escape(facts.stop_reason))
    if cost:
        parts.append(html.escape(cost))
    if outlook:
        parts.append("workers: " + html.escape(outlook))
    state = f"<span class=state>{_state(tables)}</span> " if _state(tables) else ""
    parts_of = [html.escape(text) for text in (facts.scheduler, facts.searcher) if text]
    about = f"<span class=dim>{', '.join(parts_of)}</span><br>" if parts_of else ""
    return (
        f"<h1>{html.escape(facts.name)} {state}</h1>{about}"
        f"best {metric} ({tables.objective.mode}): "
        f"{best}<br>trials: {total} &ensp; {shown}<br><span class=dim>{' · '.join(parts)}</span>"
    )


def _state(tables: StudyTables) -> str:
    """Return what the study does, in a word or two."""
    facts, states = tables.facts, set(tables.status)
    if facts.stop_reason:
        return "stopped"
    if _runs(tables):
        return "running"
    left = {STATES.index(state) for state in (Status.QUEUED, Status.RUNNING)}
    if not states & left and tables.n_trials and tables.n_trials == facts.limits.num_trials:
        return "complete"
    return "waits for workers" if tables.n_trials and not facts.n_slots else ""


def seconds_left(tables: StudyTables) -> float | None:
    """Return the seconds until the study ends, at its present pace; None: not known."""
    facts = tables.facts
    if facts.stop_reason or not _runs(tables):
        return None
    left = []
    if facts.limits.time_budget is not None:
        left.append(facts.limits.time_budget - (facts.seconds - facts.session_began))
    if facts.limits.num_trials is not None:
        left += _seconds_of_trials(tables, facts.limits.num_trials)
    known = [seconds for seconds in left if seconds > 0]
    return min(known) if known else None


def _seconds_of_trials(tables: StudyTables, num_trials: int) -> list[float]:
    """Return the time that the trials to start, and the last ones, still take.

    Trials that pause may never continue, so what counts is how fast trials are started. All members
    of a population are started at once: there what counts is the training that they lack.
    """
    facts = tables.facts
    n_units = len(tables.unit_trial) + tables.n_dropped
    if n_units < 5 or not facts.useful_seconds:
        return []
    a_unit = facts.useful_seconds / n_units
    until, resource = np.array(tables.until), np.array(tables.resource)
    runs = np.array(tables.status) == STATES.index(Status.RUNNING)
    longest = float((until - resource)[runs].max(initial=0)) * a_unit
    if (missing := num_trials - tables.n_trials) > 0:
        starts = np.sort(np.array(tables.started))[-RECENT:]
        began = max(facts.session_began, float(starts[0]))
        n = int((starts > began).sum())
        return [missing * (facts.seconds - began) / n + longest] if n >= 5 else []
    most = re.findall(r"max_t=(\d+)", facts.scheduler)  # the last one, after an extension
    if not tables.pieces or not most:
        return [longest]
    is_open = np.isnan(np.array(tables.ended))
    lacking = float(np.maximum(int(most[-1]) - resource, 0)[is_open].sum())
    return [lacking * a_unit / max(facts.n_slots, 1)]


def _runs(tables: StudyTables) -> bool:
    return bool(np.isnan(np.array(tables.run_end)).any())
