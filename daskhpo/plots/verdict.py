"""The verdict on a study so far, in a few lines of HTML."""

from __future__ import annotations

import html

import numpy as np

from daskhpo.plots import data, look
from daskhpo.plots.data import clock
from daskhpo.plots.page import nothing_yet
from daskhpo.plots.tables import StudyTables, short


def header(tables: StudyTables, outlook: str = "") -> str:
    """Return the verdict so far as HTML: best value, trials, time, what is left."""
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
    parts = [
        f"{clock(facts.seconds)} since it began",
        f"{clock(facts.slot_seconds)} in slots "
        f"({facts.useful_seconds / used:.0%} useful, {facts.idle_seconds / used:.0%} idle)",
        f"{facts.n_slots} slots",
    ]
    parts += _forecast(tables)
    if facts.stop_reason:
        parts.append("stopped: " + html.escape(facts.stop_reason))
    if outlook:
        parts.append("workers: " + html.escape(outlook))
    return (
        f"<h1>{html.escape(facts.name)} <span class=dim style='font-weight:normal'>"
        f"{html.escape(short(facts.scheduler, 90))}, best {metric} "
        f"({tables.objective.mode}):</span></h1>"
        f"{best}<br>trials: {total} &ensp; {shown}<br><span class=dim>{' · '.join(parts)}</span>"
    )


def _forecast(tables: StudyTables) -> list[str]:
    """Return when the study will end, at its present pace."""
    facts = tables.facts
    if facts.stop_reason or not len(tables.run_end) or not _runs(tables):
        return []
    left = []
    if facts.limits.time_budget is not None:
        left.append(facts.limits.time_budget - (facts.seconds - facts.session_began))
    if facts.limits.num_trials is not None:
        ends = np.array(tables.ended)
        ends = np.sort(ends[np.isfinite(ends)])[-200:]
        since = max(facts.seconds - (ends[0] if len(ends) == 200 else facts.session_began), 1e-9)
        if len(ends) >= 5:
            n_ended = int(np.isfinite(np.array(tables.ended)).sum())
            left.append((facts.limits.num_trials - n_ended) * since / len(ends))
    known = [seconds for seconds in left if seconds > 0]
    return [f"about {clock(min(known))} left at this pace"] if known else []


def _runs(tables: StudyTables) -> bool:
    return bool(np.isnan(np.array(tables.run_end)).any())
