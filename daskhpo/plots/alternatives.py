"""Costs of other schedulers on a study's own learning curves."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from daskhpo.core.objective import Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import Array, Status
from daskhpo.plots import look
from daskhpo.plots.data import clock
from daskhpo.plots.sampling import best_first, thinned
from daskhpo.plots.tables import STATES, StudyTables
from daskhpo.schedulers import ASHA, FIFO, AsyncHyperband, GuardedASHA, Hyperband
from daskhpo.schedulers.parsing import parse_scheduler
from daskhpo.virtual.recorded import RecordedCurve, recorded_curves
from daskhpo.virtual.replay import Replayed, replay

MIN_CURVES = 10
MAX_REPLAYED, LEAST_SAMPLE = 200, 40  # curves that are replayed; of long ones fewer
REPLAYED_UNITS = 20_000  # of all curves, to the end: about a tenth of a second a replay
MOST_UNITS = 500
N_ORDERS = 10
GOOD = 0.02  # part of the trials that are as good as the target
_MAKERS: tuple[Callable[[int], Scheduler], ...] = (FIFO, ASHA, AsyncHyperband, Hyperband)


@dataclass(frozen=True)
class Alternatives:
    """Replays of a study's curves under several schedulers, in the same orders.

    Attributes
    ----------
    replayed : replays of each scheduler, by its text; one an order, the same for all.
    own : text of the study's own scheduler, if it is among them; empty: it cannot be replayed.
    n_curves, n_recorded : curves that were replayed, of those that there are.
    n_workers : slots, as many as the study had on average.
    target : a value as good as the best `GOOD` of the curves, which each replay is to reach.
        Unlike the best value it does not hang on a single trial, nor on how many there are.
    problem : why nothing is shown; empty: there is something.
    """

    replayed: dict[str, tuple[Replayed, ...]] = field(default_factory=dict)
    own: str = ""
    n_curves: int = 0
    n_recorded: int = 0
    n_workers: int = 1
    target: float = math.nan
    problem: str = ""

    @property
    def n_orders(self) -> int:
        """Number of orders that all schedulers have seen."""
        return min(map(len, self.replayed.values()), default=0)

    @property
    def is_whole(self) -> bool:
        """True if no order is missing."""
        return self.n_orders == N_ORDERS

    def shared(self, scheduler: str) -> tuple[Replayed, ...]:
        """Return a scheduler's replays of the orders that all have seen."""
        return self.replayed[scheduler][: self.n_orders]

    def times(self, scheduler: str) -> list[float]:
        """Return the seconds to the target in each order; inf: it was not reached."""
        return [found.seconds_to_target for found in self.shared(scheduler)]

    def beyond(self, scheduler: str) -> float:
        """Return the median share of units after the end of a recorded curve."""
        return float(np.median([found.beyond for found in self.shared(scheduler)]))


def replays(tables: StudyTables) -> Iterator[Alternatives]:
    """Replay the curves, one by one: each takes about a tenth of a second.

    Yields what is known after each replay; the first time after none. The tables are read only
    before that.
    """
    found, curves, schedulers = _prepare(tables)
    yield found
    if found.problem:
        return
    done: dict[str, tuple[Replayed, ...]] = dict.fromkeys(schedulers, ())
    for order in range(N_ORDERS):
        for name, scheduler in schedulers.items():
            new = replay(curves, tables.objective, scheduler, found.n_workers, order, found.target)
            done = done | {name: (*done[name], new)}
            yield replace(found, replayed=done)


def alternatives(tables: StudyTables) -> Alternatives:
    """Return all replays; it takes some seconds."""
    *_, last = replays(tables)
    return last


def _prepare(
    tables: StudyTables,
) -> tuple[Alternatives, tuple[RecordedCurve, ...], dict[str, Scheduler]]:
    """Return curves, and the schedulers to compare on them."""
    if tables.pieces:
        why = "Trials took over states of others, so there are no curves to replay."
        return Alternatives(problem=why), (), {}
    if tables.n_dropped:
        why = f"Too many units to be replayed here: `daskhpo replay {tables.facts.path}`."
        return Alternatives(problem=why), (), {}
    units = np.bincount(np.array(tables.unit_trial, int), minlength=tables.n_trials)
    furthest = np.zeros(tables.n_trials, int)
    np.maximum.at(furthest, np.array(tables.unit_trial, int), np.array(tables.unit_resource, int))
    is_there = (np.array(tables.status) != STATES.index(Status.RUNNING)) & np.isfinite(
        np.array(tables.best)
    )
    recorded = np.flatnonzero(is_there & (units == furthest))  # without gaps
    if len(recorded) < MIN_CURVES:
        why = f"Shown from {MIN_CURVES} trials on that reported and train no more."
        return Alternatives(problem=why, n_recorded=len(recorded)), (), {}
    own = _own(tables)
    max_t = int(furthest[recorded].max()) if own is None else own.max_t
    if not 1 < max_t <= MOST_UNITS:
        why = (
            "Trials have one unit: there is nothing that a scheduler could save."
            if max_t <= 1
            else f"Trials of more than {MOST_UNITS} units are not replayed here: "
            f"`daskhpo replay {tables.facts.path}`."
        )
        return Alternatives(problem=why, n_recorded=len(recorded)), (), {}
    limit = max(LEAST_SAMPLE, min(MAX_REPLAYED, REPLAYED_UNITS // max_t))
    losses = np.array(tables.best)[recorded]
    ranked = best_first(losses, len(losses))
    kept = np.sort(recorded[ranked[thinned(len(ranked), limit)]])  # as good as all together
    good = np.sort(np.array(tables.best)[kept])[max(1, round(GOOD * len(kept))) - 1]
    schedulers: dict[str, Scheduler] = {
        f"{make.__name__}(max_t={max_t})": make(max_t) for make in _MAKERS
    }
    name = next((text for text, one in schedulers.items() if repr(one) == repr(own)), "")
    if own is not None and not name:
        name = tables.facts.scheduler
        schedulers = {name: own, **schedulers}
    found = Alternatives(
        own=name,
        n_curves=len(kept),
        n_recorded=len(recorded),
        n_workers=max(1, round(tables.facts.slot_seconds / max(tables.facts.seconds, 1e-9))),
        target=tables.objective.value(float(good)),
    )
    return found, _curves(tables, kept), schedulers


def _own(tables: StudyTables) -> Scheduler | None:
    """Return the study's scheduler; None: a replay would not be like it."""
    try:
        own = parse_scheduler(tables.facts.scheduler)
    except (ValueError, TypeError):
        return None
    return None if isinstance(own, GuardedASHA) else own  # its model is not in the curves


def _curves(tables: StudyTables, kept: Array) -> tuple[RecordedCurve, ...]:
    """Return the curves of some trials, with the seconds that they trained.

    A unit lasts from the unit before, or from the launch since then.
    """
    owner, ended = np.array(tables.unit_trial), np.array(tables.unit_seconds)
    value = tables.value(np.array(tables.unit_loss))
    launched_trial, launched = np.array(tables.run_trial), np.array(tables.run_start)
    recorded = []
    for number in kept.tolist():
        units = np.flatnonzero(owner == number)
        at = ended[units]
        before = np.r_[tables.started[number], at[:-1]]
        starts = np.sort(launched[launched_trial == number])
        place = np.searchsorted(starts, at, side="left") - 1  # the last launch before its end
        known = np.where(place >= 0, starts[place] if len(starts) else -math.inf, -math.inf)
        seconds = np.maximum(at - np.maximum(before, known), 1e-6)
        values, times = value[units].tolist(), np.cumsum(seconds).tolist()
        if tables.status[number] == STATES.index(Status.FAILED):
            values.append(math.nan)
            times.append(max(times[-1], tables.in_slot[number]))
        recorded.append((values, times))
    return recorded_curves(recorded)


# -- as text -------------------------------------------------------------------------------------


def alternatives_html(found: Alternatives, objective: Objective) -> str:
    """Return the replays as a table, with what they leave out."""
    head = "<h3>What other schedulers would have cost on these curves</h3>"
    if found.problem:
        return head + f"<p>{code(found.problem)}</p>"
    if not found.n_orders:
        return head + "<p>The curves are being replayed.</p>"
    scale = found.n_recorded / found.n_curves
    rows = [
        (
            name + (" (this study's)" if name == found.own else ""),
            spread(found.times(name)),
            f"{sum(at < math.inf for at in found.times(name))} of {found.n_orders}",
            clock(scale * float(np.median([one.slot_seconds for one in found.shared(name)]))),
            f"{found.beyond(name):.0%}",
        )
        for name in found.replayed
    ]
    titles = ("scheduler", "to the target", "reached", "in slots, all trials", "extrapolated")
    metric = html.escape(objective.metric)
    part = (
        f"{found.n_curves:,} of {found.n_recorded:,} curves, evenly by their values, were"
        if found.n_curves < found.n_recorded
        else f"{found.n_curves:,} curves were"
    )
    limits = (
        f"{part} replayed on {found.n_workers} slot{'s' * (found.n_workers != 1)}, in "
        f"{found.n_orders}{'' if found.is_whole else f' of {N_ORDERS}'} orders of the trials that "
        f"all schedulers share; the target is {metric} = {found.target:.5g}, which the best "
        f"{GOOD:.0%} of these trials reached. Times are medians "
        "(least to most). A trial that goes beyond its record keeps its last value and cannot "
        "reach the target there: where much is extrapolated, times are too long rather than too "
        "short. Other trials, a searcher that learned, launches and the queue are not in it."
    )
    if not found.own:
        limits += " This study's own scheduler cannot be replayed on curves alone."
    return f"{head}{look.table(titles, rows)}<p class='dim'>{limits}</p>"


def spread(times: list[float]) -> str:
    """Return seconds as text: the median, the least and the most."""
    middle, low, high = median(times), min(times), max(times)
    if middle == math.inf:
        return "not reached" if low == math.inf else f"not reached ({clock(low)} at least)"
    most = clock(high) if high < math.inf else "not reached"
    return f"{clock(middle)} ({clock(low)} to {most})"


def median(times: list[float]) -> float:
    """Return the upper median, which is one of the values: some are infinite."""
    return sorted(times)[len(times) // 2]


def code(text: str) -> str:
    """Return text as HTML; what stands between backticks is set as code."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))
