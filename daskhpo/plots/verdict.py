"""The verdict on a study so far, in a few lines of HTML."""

from __future__ import annotations

import html

import numpy as np

from daskhpo.core.types import Status
from daskhpo.plots import data, look
from daskhpo.plots.data import clock
from daskhpo.plots.page import nothing_yet
from daskhpo.plots.tables import STATES, StudyTables


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
    if facts.seconds_left:
        parts.append(f"about {clock(facts.seconds_left)} left at this pace")
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


def _runs(tables: StudyTables) -> bool:
    return bool(np.isnan(np.array(tables.run_end)).any())
