"""Pages: the data of their plots, and their figures; also for the report.

The functions that return data need no Bokeh and may run in another thread; their result is then
given to a page that was built, see :meth:`Page.update`.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskhpo.plots import (
    data,
    look,
    population,
    population_figures,
    space_figures,
    study_figures,
    trial_table,
    use,
    use_figures,
)
from daskhpo.plots.advice import advice
from daskhpo.plots.data import HOUR, Columns, clock
from daskhpo.plots.importance import Importance, deciles, importance, maps
from daskhpo.plots.look import Panel
from daskhpo.plots.tables import StudyTables, short

MAX_NAMES_SHOWN = 12  # hyperparameters with an axis or a slice of their own
TABLE_TRIALS = 5_000


@dataclass
class PageData:
    """All that a page shows, as plain values.

    Attributes
    ----------
    key : what decides which figures there are; if it changes, the page is built again.
    sources : columns by kind.
    notes : of each panel the line beside its heading, and whether there is something to see.
    factors : names along categorical axes.
    scales : ends of colour scales and of axes.
    texts : HTML.
    names, ticks : hyperparameters that are drawn; where their axes have ticks.
    """

    key: Hashable = ()
    sources: dict[str, Columns] = field(default_factory=dict)
    notes: dict[str, tuple[str, bool]] = field(default_factory=dict)
    factors: dict[str, list[str]] = field(default_factory=dict)
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    ticks: dict[str, space_figures.Ticks] = field(default_factory=dict)
    metric: str = ""
    log: bool = False


@dataclass
class Page:
    """A page's figures, and all in them that changes."""

    layout: Any
    sources: dict[str, Any]
    panels: dict[str, Panel] = field(default_factory=dict)
    ranges: dict[str, Any] = field(default_factory=dict)
    mappers: dict[str, Any] = field(default_factory=dict)
    divs: dict[str, Any] = field(default_factory=dict)

    def update(self, new: PageData) -> None:
        """Show new data, except for the columns of the sources."""
        for name, (note, has_data) in new.notes.items():
            self.panels[name].show(note, has_data=has_data)
        for name, factors in new.factors.items():
            if name in self.ranges and list(self.ranges[name].factors) != factors:
                self.ranges[name].factors = factors
        for name, (low, high) in new.scales.items():
            scale = self.mappers.get(name)
            if isinstance(scale, _Window):
                scale.move(low, high)
            elif scale is not None and (scale.low, scale.high) != (low, high):
                scale.update(low=low, high=high)
        for name, text in new.texts.items():
            if name in self.divs and self.divs[name].text != text:
                self.divs[name].text = text


Sources = dict[str, Any]


def make_sources(new: PageData, there: Sources | None = None) -> Sources:
    """Return a Bokeh source for each kind; existing ones are used again."""
    there = {} if there is None else there
    for kind, columns in new.sources.items():
        if kind not in there:
            there[kind] = look.source(columns)
    return there


def single(page: str, panel: str | None, tables: StudyTables) -> Any:
    """Return one panel of a page as it would be in a report; None: the whole page."""
    match page:
        case "study":
            made = build_study(study_data(tables), live=False)
            made.divs["header"].visible = False
        case "space":
            made = build_space(space_data(tables, importance(tables)))
        case "use":
            made = build_use(use_data(tables))
        case _:
            made = build_population(population_data(tables))
    if panel is None:
        return made.layout
    layout = made.panels[panel].layout
    layout.styles = {}
    return layout


# -- Study ---------------------------------------------------------------------------------------


def study_data(
    tables: StudyTables, outlook: str = "", parts: Collection[str] = ("times",)
) -> PageData:
    """Return what the page *Study* shows.

    Parameters
    ----------
    outlook : what is known of workers that are not there yet.
    parts : of the columns of trials, see :func:`daskhpo.plots.data.trials`.
    """
    trials, best = data.trials(tables, parts=parts), data.best(tables)
    curves, bands = look.styled(data.curves(tables)), data.bands(tables)
    rungs, slots = data.rungs(tables), data.slots(tables)
    n = tables.n_trials
    has_values = bool(len(best["value"]))
    judged = sum(rungs["judged"])
    return PageData(
        key=tables.objective.metric,
        sources={
            "trials": trials,
            "best": best,
            "curves": curves,
            "bands": bands,
            "rungs": rungs,
            "slots": slots,
        },
        notes={
            "best": (data.seen(trials, n) if has_values else _nothing(tables), has_values),
            "curves": (
                f"{len(curves['id']):,} of {n:,} curves" if has_values else _nothing(tables),
                has_values,
            ),
            "rungs": (
                f"{judged:,} decisions" if judged else "no trial was judged at a rung yet",
                bool(judged),
            ),
            "slots": (
                f"{len(slots['id'])} of {tables.facts.n_slots} slots train"
                if slots["id"]
                else "no trial runs",
                bool(slots["id"]),
            ),
        },
        factors={"rungs": rungs["rung"], "slots": slots["slot"][::-1]},
        texts={
            "header": header(tables, outlook),
            "rungs": look.table(study_figures.RUNG_HEAD, study_figures.rung_rows(rungs)),
        },
        scales={"best": data.value_window(tables), "curves": data.value_window(tables)},
        metric=tables.objective.metric,
    )


def _nothing(tables: StudyTables) -> str:
    return "no trial has reported yet" if tables.n_trials else "no trial was started yet"


def build_study(new: PageData, sources: Sources | None = None, *, live: bool = True) -> Page:
    """Build the page *Study*; ``live``: with the slots as they are now."""
    from bokeh.layouts import column

    sources = make_sources(new, sources)
    metric = _axis_label(new.metric)
    head, rung_table = look.div(), look.div()
    panels = [
        study_figures.best_panel(sources["trials"], sources["best"], metric),
        study_figures.curves_panel(sources["curves"], sources["bands"], metric),
        study_figures.rung_panel(sources["rungs"], new.factors["rungs"], rung_table),
    ]
    if live:
        panels.append(study_figures.slots_panel(sources["slots"], new.factors["slots"]))
    layouts = [panel.layout for panel in panels]
    rows = [look.side_by_side(*layouts[:2]), look.side_by_side(*layouts[2:])]
    page = Page(
        column(head, *rows, sizing_mode="stretch_width"),
        sources,
        {panel.name: panel for panel in panels},
        divs={"header": head, "rungs": rung_table},
    )
    _take_ranges(page)
    for panel in panels[:2]:
        page.mappers[panel.name] = _Window(panel.window)
    kinds = ("trials", "curves", "slots") if live else ("trials", "curves")
    look.link_by_id({kind: sources[kind] for kind in kinds})
    if not live:
        del new.notes["slots"]
    page.update(new)
    return page


def _take_ranges(page: Page) -> None:
    """Find the categorical axes of a page's panels, by the panel's name."""
    from bokeh.models import FactorRange, Plot

    for name, panel in page.panels.items():
        for figure in panel.layout.select({"type": Plot}):
            for axis in (figure.x_range, figure.y_range):
                if isinstance(axis, FactorRange):
                    page.ranges[name] = axis


def _axis_label(metric: str) -> str:
    return metric if len(metric) <= 30 else metric[:29] + "…"


def header(tables: StudyTables, outlook: str = "") -> str:
    """Return the verdict so far as HTML: best value, trials, time, what is left."""
    facts, number = tables.facts, data.best_trial(tables)
    metric = html.escape(tables.objective.metric)
    if number is None:
        best = _nothing(tables)
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


# -- Hyperparameters -----------------------------------------------------------------------------


def space_data(tables: StudyTables, found: Importance) -> PageData:
    """Return what the page *Hyperparameters* shows; ``found``: of `importance`."""
    trials = data.trials(tables, parts=("axes",))
    names = tables.names()[:MAX_NAMES_SHOWN]
    log = data.value_is_log(tables)
    ticks = {name: data.ticks(tables, name) for name in names}
    ends = data.value_ends(tables)
    ticks[tables.objective.metric] = data.scale_ticks(ends, log)
    pairs = maps(found)
    bars = found.columns()
    has_values = bool(np.isfinite(trials["value"]).any()) and bool(names)
    nothing = _nothing(tables) if names else "all trials have the same configuration"
    note = data.seen(trials, tables.n_trials) if has_values else nothing
    resources = np.array(tables.resource)
    most = float(resources.max()) if len(resources) else 1.0
    sources = {"trials": trials, "importance": bars}
    sources |= {f"deciles:{name}": deciles(tables, name) for name in names}
    return PageData(
        key=(
            tuple(names),
            log,
            tuple(str(tick) for tick in ticks.values()) if has_values else (),
            tuple(zip(pairs["first"], pairs["second"], strict=True)),
        ),
        sources=sources | {"maps": pairs},
        notes={
            "parallel": (note, has_values),
            "slices": (note, has_values),
            "importance": (found.describe(), not found.problem),
            "map": (
                f"R² = {found.r2:.2f}" if pairs["first"] else found.problem or "one hyperparameter",
                bool(pairs["first"]),
            ),
        },
        factors={"importance": [str(name) for name in bars["name"]]},
        scales={"resource": (1.0, max(most, 2.0))},
        names=names,
        ticks=ticks,
        metric=tables.objective.metric,
        log=log,
    )


def build_space(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Hyperparameters*."""
    from bokeh.layouts import column
    from bokeh.models import LinearColorMapper, LogColorMapper
    from bokeh.palettes import Cividis256

    sources = make_sources(new, sources)
    by_rank = LinearColorMapper(palette=Cividis256, low=0, high=1)
    by_resource = LogColorMapper(palette=Cividis256[215::-1])  # without the palest
    metric = _axis_label(new.metric)
    ticks = dict(new.ticks)
    ticks.setdefault(metric, ticks[new.metric])
    of = {name: sources[f"deciles:{name}"] for name in new.names}
    parallel = space_figures.parallel_panel(sources["trials"], new.names, ticks, metric, by_rank)
    y_type = "log" if new.log else "linear"
    slices = space_figures.slices_panel(
        sources["trials"], of, new.names, ticks, metric, by_resource, y_type
    )
    bars = space_figures.importance_panel(sources["importance"], new.factors["importance"])
    over, images = space_figures.map_panel(new.sources["maps"], sources["trials"], ticks, metric)
    sources["maps"] = images
    panels = [parallel, slices, bars, over]
    page = Page(
        column(
            parallel.layout,
            look.side_by_side(bars.layout, over.layout),
            slices.layout,
            sizing_mode="stretch_width",
        ),
        sources,
        {panel.name: panel for panel in panels},
        mappers={"resource": by_resource},
    )
    _take_ranges(page)
    page.update(new)
    return page


# -- Workers and cost ----------------------------------------------------------------------------


def use_data(
    tables: StudyTables, jobs: Sequence[Sequence[str]] = (), hours: float | None = None
) -> PageData:
    """Return what the page *Workers and cost* shows.

    Parameters
    ----------
    jobs : rows of the table of Slurm jobs; empty: none are known but their ids.
    hours : only the last ones; None: all.
    """
    facts = tables.facts
    bars, spent = use.timeline(tables, hours), use.spent(tables)
    lanes = sorted({int(slot) for slot in bars["slot"]})
    has_bars = bool(bars["slot"])
    since = "" if hours is None or facts.seconds < hours * HOUR else f"the last {hours:g} h"
    ends = (min(bars["left"]), max(bars["right"])) if has_bars else (0.0, 1.0)
    return PageData(
        sources={"timeline": bars, "spent": spent},
        notes={
            "timeline": (
                since or f"{len(tables.run_trial):,} launches" if has_bars else _nothing(tables),
                has_bars,
            ),
            "spent": ("" if len(spent["hours"]) else _nothing(tables), bool(len(spent["hours"]))),
        },
        factors={"timeline": [str(lane) for lane in lanes][::-1]},
        scales={"time": ends},
        texts={"cost": cost_html(tables), "jobs": _jobs_html(tables, jobs)},
    )


JOB_HEAD = ("job", "state", "ran", "left", "why it waits")


def cost_html(tables: StudyTables) -> str:
    """Return where the slots' time went, and the checkpoints, as tables in HTML."""
    facts = tables.facts
    total = facts.slot_seconds or 1.0
    known = facts.useful_seconds + facts.lost_seconds + facts.saving_seconds + facts.idle_seconds
    parts = (
        ("training, reported for the first time", facts.useful_seconds),
        ("training again, or never reported", facts.lost_seconds),
        ("saving states", facts.saving_seconds),
        ("since the last report of running trials", max(0.0, facts.slot_seconds - known)),
        ("no trial in the slot", facts.idle_seconds),
    )
    rows = [(name, clock(seconds), f"{seconds / total:.0%}") for name, seconds in parts]
    rows.append(("together", clock(facts.slot_seconds), ""))
    room = "" if facts.max_bytes is None else f" of {_size(facts.max_bytes)}"
    files = "" if facts.max_files is None else f" of {facts.max_files:,}"
    stored = [
        (
            "in the store now",
            f"{facts.stored_files:,}{files}",
            f"{_size(facts.stored_bytes)}{room}",
        ),
        ("written in all", f"{facts.written_files:,}", _size(facts.written_bytes)),
    ]
    return (
        "<b>Slots' time</b>"
        + look.table(("", "time", "share"), rows)
        + "<br><b>Checkpoints</b>"
        + look.table(("", "files", "size"), stored)
    )


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _jobs_html(tables: StudyTables, jobs: Sequence[Sequence[str]]) -> str:
    if jobs:
        return "<b>Slurm jobs</b>" + look.table(JOB_HEAD, jobs)
    if tables.facts.jobs:
        ids = ", ".join(map(html.escape, tables.facts.jobs[-50:]))
        return f"<b>Slurm jobs</b> whose workers have served the study: {ids}"
    return ""


def build_use(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Workers and cost*."""
    from bokeh.layouts import column

    sources = make_sources(new, sources)
    cost, jobs = look.div(), look.div()
    timeline = use_figures.timeline_panel(sources["timeline"], new.factors["timeline"])
    spent = use_figures.spent_panel(sources["spent"])
    page = Page(
        column(
            timeline.layout,
            spent.layout,
            look.side_by_side(cost, jobs),
            sizing_mode="stretch_width",
        ),
        sources,
        {"timeline": timeline, "spent": spent},
        divs={"cost": cost, "jobs": jobs},
    )
    _take_ranges(page)
    page.mappers["time"] = _Window(timeline.window)
    page.update(new)
    return page


class _Window:
    """The ends of an axis; they follow the study until the user moves them."""

    def __init__(self, axis: Any) -> None:
        self._axis = axis
        self._set = (axis.start, axis.end)

    def move(self, low: float, high: float) -> None:
        """Show this part, unless the user has chosen another."""
        if (self._axis.start, self._axis.end) == self._set != (low, high):
            self._axis.update(start=low, end=high)
            self._set = (low, high)


# -- Trials --------------------------------------------------------------------------------------


def trials_data(tables: StudyTables) -> PageData:
    """Return what the page *Trials* shows."""
    trials = data.trials(tables, TABLE_TRIALS, ("texts",))
    curves = look.styled(data.curves(tables))
    names = tables.names()
    n = tables.n_trials
    return PageData(
        key=(tuple(names), tables.objective.metric),
        sources={"trials": trials, "curves": curves},
        notes={"table": (data.seen(trials, n) if n else _nothing(tables), bool(n))},
        scales={"table": data.value_window(tables)},
        names=names,
        metric=tables.objective.metric,
    )


def build_trials(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Trials*: a table, two trials compared, their curves."""
    from bokeh.layouts import column, row

    sources = make_sources(new, sources)
    detail = look.div()
    parts = trial_table.parts(sources["trials"], sources["curves"], new.names, new.metric)
    panel = Panel(
        "table",
        "Trials",
        "Click a heading to sort, a row to select; Ctrl-click a second one to compare the two. "
        "The filters and the download see all rows here.",
        [
            row(parts.states, parts.text, parts.download),
            parts.table,
            look.side_by_side(parts.curves, parts.compared),
            detail,
        ],
    )
    layout = column(panel.layout, sizing_mode="stretch_width")
    page = Page(layout, sources, {"table": panel}, divs={"detail": detail})
    page.mappers["table"] = _Window(parts.curves.y_range)
    look.link_by_id({"trials": sources["trials"], "curves": sources["curves"]})
    page.update(new)
    return page


def detail_html(tables: StudyTables, number: int) -> str:
    """Return all that is known of one trial, with its traceback, as HTML."""
    rows = [
        ("state", tables.state(number) + _because(tables, number)),
        ("resource", tables.resource[number]),
        ("best", f"{float(tables.value(tables.best[number])):.6g}"),
        ("last", f"{float(tables.value(tables.last[number])):.6g}"),
        ("bracket", tables.bracket[number]),
        ("began", f"{clock(tables.started[number])} after the study"),
        ("in slots", clock(tables.in_slot[number])),
        *((name, tables.setting(name, number)) for name in tables.config),
    ]
    error = tables.errors.get(number, "")
    trace = f"<pre>{html.escape(error[-6000:])}</pre>" if error else ""
    return f"<b>Trial {number}</b>" + look.table(("", ""), rows) + trace


def _because(tables: StudyTables, number: int) -> str:
    reason = tables.reasons.get(number, "")
    return f": {reason}" if reason else ""


# -- Population ----------------------------------------------------------------------------------


def population_data(tables: StudyTables) -> PageData:
    """Return what the page *Population* shows."""
    names = population.changed_names(tables)[:MAX_NAMES_SHOWN]
    lineage, arrows = population.lineage(tables), population.arrows(tables)
    there = bool(lineage["id"])
    nothing = "no trial has taken over a state: this is no population, or it has just begun"
    sources: dict[str, Columns] = {"lineage": lineage, "arrows": arrows}
    sources |= {f"schedule:{name}": population.schedules(tables, name) for name in names}
    sources |= {f"diversity:{name}": population.diversity(tables, name) for name in names}
    members = sorted(set(lineage["id"]))
    log = tuple(name for name in names if data.is_log(tables, name))
    note = f"{len(members)} members, {len(arrows['id'])} states taken over"
    return PageData(
        key=(tuple(names), log, len(members)),
        sources=sources,
        notes={
            "schedules": (note if names else nothing, bool(names)),
            "lineage": (note if there else nothing, there),
            "diversity": ("" if names else nothing, bool(names)),
        },
        names=names,
        ticks={name: ([], []) for name in log},
    )


def build_population(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Population*."""
    from bokeh.layouts import column

    sources = make_sources(new, sources)
    scale = {name: "log" if name in new.ticks else "linear" for name in new.names}
    lines = [
        population_figures.schedule_figure(sources[f"schedule:{name}"], name, scale[name])
        for name in new.names
    ]
    spreads = [
        population_figures.diversity_figure(sources[f"diversity:{name}"], name, scale[name])
        for name in new.names
    ]
    members = sorted(set(new.sources["lineage"]["id"]))
    panels = [
        population_figures.schedules_panel(lines),
        population_figures.lineage_panel(sources["lineage"], sources["arrows"], members),
        population_figures.diversity_panel(spreads),
    ]
    left = column(panels[0].layout, panels[2].layout, sizing_mode="stretch_width")
    page = Page(
        look.side_by_side(left, panels[1].layout),
        sources,
        {panel.name: panel for panel in panels},
    )
    page.update(new)
    return page


# -- Advice --------------------------------------------------------------------------------------


def advice_data(tables: StudyTables) -> PageData:
    """Return what the page *Advice* shows."""
    return PageData(texts={"advice": advice_html(tables)})


def advice_html(tables: StudyTables) -> str:
    """Return all advice as HTML, with its evidence."""
    found = advice(tables)
    if not found:
        n = tables.n_trials
        return (
            f"Nothing stands out in {n:,} trials: no hyperparameter's best values lie at a bound, "
            "slots are busy, early ranks tell the end as far as is known, and no trial failed."
            if n
            else _nothing(tables)
        )
    rows = [
        f"<tr><td><b>{html.escape(a.finding)}</b></td><td>{html.escape(a.evidence)}</td>"
        f"<td>{_code(a.action)}</td></tr>"
        for a in found
    ]
    head = "<tr><th>what</th><th>evidence</th><th>what to do</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _code(text: str) -> str:
    """Return text as HTML; what stands between backticks is set as code."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def build_advice(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Advice*."""
    from bokeh.layouts import column

    text = look.div()
    page = Page(column(text, sizing_mode="stretch_width"), make_sources(new, sources))
    page.divs["advice"] = text
    page.update(new)
    return page
