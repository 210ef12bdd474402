"""Advice on a study, with the evidence from its own data."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from daskhpo.core.domains import Integer, Real
from daskhpo.core.ranks import UNSURE, sign_test
from daskhpo.core.types import Status
from daskhpo.plots.alternatives import Alternatives, median, spread
from daskhpo.plots.axes import places_on_axis
from daskhpo.plots.data import clock, rungs
from daskhpo.plots.sampling import best_first
from daskhpo.plots.tables import STATES, StudyTables
from daskhpo.plots.use import idle_at_the_end

LOW_CORRELATION = 0.4
MIN_PAIRS = 10
IDLE_SHARE = 0.1
SEARCH_SHARE = 0.02
N_KINDS = 3  # of failures that are shown
WORTH_IT = 1.5  # times sooner
MAX_BEYOND = 0.05  # share of extrapolated units
EDGE = 0.05  # of an axis: "at its bound"
MIN_REPORTED = 20
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "memoryerror", "oom")


@dataclass(frozen=True)
class Advice:
    """One piece of advice.

    Attributes
    ----------
    finding : what is the case, in a few words.
    evidence : the numbers behind it.
    action : what to do, with the line to paste.
    """

    finding: str
    evidence: str
    action: str


def advice(tables: StudyTables, replayed: Alternatives | None = None) -> list[Advice]:
    """Return all advice that the study's data support; none: nothing is amiss.

    Parameters
    ----------
    replayed : the study's curves under other schedulers; None: they were not replayed.
    """
    found = [*_early_ranks(tables), *_bounds(tables), *_idle(tables), *_failures(tables)]
    found += _searcher(tables)
    return [*found, *_sooner(tables, replayed)] if replayed is not None else found


def _early_ranks(tables: StudyTables) -> Iterator[Advice]:
    rows = rungs(tables)
    known = [
        (rung, correlation, n)
        for rung, correlation, n in zip(
            rows["rung"], rows["correlation"], rows["n_pairs"], strict=True
        )
        if n >= MIN_PAIRS and not math.isnan(correlation)
    ]
    if not known or known[0][1] >= LOW_CORRELATION:
        return
    rung, correlation, n = known[0]
    later = [row for row in known[1:] if row[1] >= LOW_CORRELATION]
    evidence = (
        f"Over the {n} trials that reached the last rung, the ranks at {rung} and there correlate "
        f"by {correlation:.2f} (Spearman). These are survivors only, which lowers it."
    )
    if later:
        evidence += f" At {later[0][0]} it is {later[0][1]:.2f}."
    target = later[0][0] if later else known[-1][0]
    yield Advice(
        "Early ranks do not tell the end",
        evidence,
        f"Compare later: `grace_period={target}`. `daskhpo replay {tables.facts.path}` shows what "
        "other schedulers would have cost on these curves.",
    )


def _bounds(tables: StudyTables) -> Iterator[Advice]:
    losses = np.array(tables.best)
    n_reported = int(np.isfinite(losses).sum())
    if n_reported < MIN_REPORTED:
        return
    best = best_first(losses, max(5, n_reported // 20))
    for name in tables.names():
        domain = tables.facts.space.get(name)
        if not isinstance(domain, Real | Integer):
            continue
        log = domain.log
        places = places_on_axis(tables, name)[best]
        for side, at_bound in (("lower", places <= EDGE), ("upper", places >= 1 - EDGE)):
            n, middle = int(at_bound.sum()), len(best)
            if not at_bound[0] or n < max(3, 0.4 * middle):
                continue
            low, high = float(domain.low), float(domain.high)
            factor = 10.0 if log else 1.0
            if side == "lower":
                low = low / factor if log else low - (high - low) / 2
            else:
                high = high * factor if log else high + (high - low) / 2
            kind = "Integer" if isinstance(domain, Integer) else "Real"
            ends = (
                f"{low:.3g}, {high:.3g}"
                if kind == "Real"
                else f"{max(math.floor(low), 1 if log else math.floor(low))}, {math.ceil(high)}"
            )
            yield Advice(
                f"The best values of {name} lie at its {side} bound",
                f"{n} of the {middle} best trials, the best one included, lie within "
                f"{EDGE:.0%} of {domain.low if side == 'lower' else domain.high} (the axis "
                f"{'is logarithmic' if log else 'is linear'}); by chance it would be "
                f"{max(1, round(EDGE * middle))}.",
                f'Widen it in a new study: `"{name}": {kind}({ends}{", log=True" if log else ""})`',
            )


def _idle(tables: StudyTables) -> Iterator[Advice]:
    facts = tables.facts
    if facts.slot_seconds <= 0 or facts.idle_seconds < IDLE_SHARE * facts.slot_seconds:
        return
    share = facts.idle_seconds / facts.slot_seconds
    at_end = min(idle_at_the_end(tables), facts.idle_seconds)
    evidence = (
        f"{clock(facts.idle_seconds)} of {clock(facts.slot_seconds)} in slots had no trial; "
        f"{clock(at_end)} of it after the last trial had begun, when nothing was left to start."
    )
    action = (
        "Give a time budget, or more trials: the last ones leave the other slots empty."
        if at_end > facts.idle_seconds / 2
        else f"Use fewer workers than {facts.n_slots}, or a scheduler that never waits, such as "
        f"ASHA. `daskhpo cost {facts.path}` shows the parts."
    )
    yield Advice(f"Slots were idle for {share:.0%} of their time", evidence, action)


def _failures(tables: StudyTables) -> Iterator[Advice]:
    failed = np.flatnonzero(np.array(tables.status) == STATES.index(Status.FAILED)).tolist()
    if not failed:
        return
    reasons = {trial: tables.reasons.get(trial, "") or "unknown" for trial in failed}
    kinds = Counter(map(_kind, reasons.values())).most_common(N_KINDS)
    examples = {_kind(reason): (reason, trial) for trial, reason in reasons.items()}
    texts = [tables.reasons.get(trial, "") + tables.errors.get(trial, "") for trial in failed]
    n_memory = sum(any(word in text.lower() for word in _OUT_OF_MEMORY) for text in texts)
    yield Advice(
        f"{len(failed)} of {tables.n_trials} trials failed",
        "; ".join(f"{n} as trial {examples[kind][1]}: {examples[kind][0]}" for kind, n in kinds),
        f"See one: `daskhpo status {tables.facts.path} {failed[-1]}`. After the mistake is mended: "
        f"`daskhpo retry {tables.facts.path}`.",
    )
    if n_memory >= 2:
        yield Advice(
            f"{n_memory} trials ran out of memory",
            f"{n_memory} of {len(failed)} failures name it.",
            "Give each trial more, or bound what grows (batch size, width) in the space; "
            "how-to/out-of-memory.md says how.",
        )


def _kind(reason: str) -> str:
    """Return what errors that differ in their numbers have in common."""
    return re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", reason, flags=re.IGNORECASE)


def _searcher(tables: StudyTables) -> Iterator[Advice]:
    facts = tables.facts
    if facts.slot_seconds <= 0 or facts.search_seconds < SEARCH_SHARE * facts.slot_seconds:
        return
    share = facts.search_seconds / facts.slot_seconds
    yield Advice(
        f"The searcher cost {share:.0%} of the slots' time",
        f"{clock(facts.search_seconds)} of {clock(facts.slot_seconds)} in slots waited for a "
        "suggestion.",
        "Take a quicker searcher, or trials that last longer.",
    )


def _sooner(tables: StudyTables, replayed: Alternatives) -> Iterator[Advice]:
    """Compare with the study's own scheduler, if the curves are long enough.

    Extrapolated curves cannot reach the target. That is to the disadvantage of a scheduler that
    needs them: so the study's own must not.
    """
    own = replayed.own
    if not own or not replayed.is_whole or replayed.beyond(own) > MAX_BEYOND:
        return
    times = {name: replayed.times(name) for name in replayed.replayed}
    best = min(times, key=lambda name: median(times[name]))
    factor = median(times[own]) / median(times[best])
    if not factor >= WORTH_IT or sign_test(times[best], times[own]) > UNSURE:
        return
    how = f"{factor:.1f} times sooner" if factor < math.inf else "more often"
    n_sooner = sum(a < b for a, b in zip(times[best], times[own], strict=True))
    yield Advice(
        f"{best.split('(')[0]} finds a good value among these trials {how}",
        f"Time to {tables.objective.metric} = {replayed.target:.4g} when {replayed.n_curves} of "
        f"the study's curves are replayed: {spread(times[best])}; as it was, "
        f"{spread(times[own])}. It was sooner in {n_sooner} of {replayed.n_orders} orders of the "
        "trials. The table below says what that leaves out.",
        f"Next time: `scheduler={best}`. `daskhpo replay {tables.facts.path}` compares more.",
    )
