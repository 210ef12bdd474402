"""Report of the races: numbers, figures, and the results in the README."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.readme import Place
from experiments.simulated import figures
from experiments.simulated.crossing import ETA, crossing, rungs
from experiments.simulated.frame import finished, frame, per_cent, spread
from experiments.simulated.methods import BRACKETS, COUNTED, LADDERS, METHODS, REFERENCE
from experiments.simulated.profiles import BUDGET_WORKERS, LADDER_WORKERS, Profile
from experiments.simulated.races import K, Ran
from experiments.simulated.tables import Task

THEIRS = "8 : 4 : 1"


def write(
    profile: Profile,
    tasks: Sequence[Task],
    races: Sequence[Ran],
    seconds: float,
    storage: Path,
    place: Place,
) -> list[Path]:
    """Write the table of all races, the figures and the README; return the paths."""
    storage.mkdir(parents=True, exist_ok=True)
    table = frame(races, {task.name: task.family for task in tasks})
    path = storage / f"{profile.name}.csv"
    table.to_csv(path, index=False)
    files, shown = [path], []
    folder = place.readme.parent / "figures"
    folder.mkdir(exist_ok=True)
    for name, figure, caption in (
        ("scaling", figures.scaling(table), SCALING),
        ("budget", figures.in_a_budget(races, tasks), IN_A_BUDGET),
        ("crossing", figures.crossings(tasks), CROSSINGS),
    ):
        files.append(folder / f"{profile.name}-{name}.png")
        figure.savefig(files[-1], dpi=110)
        shown.append(f"![{caption}](figures/{files[-1].name})\n\n*{caption}*")
    place.fill(
        "\n\n".join([heading(profile, tasks, table, seconds), results(table, tasks), *shown])
    )
    return [*files, place.readme]


def heading(profile: Profile, tasks: Sequence[Task], table: pd.DataFrame, seconds: float) -> str:
    """Return a summary of the run: profile, tasks, seeds, machine, duration."""
    names = ", ".join(f"{task.name} ({len(task.curves):,} curves)" for task in tasks)
    versions = ", ".join(f"{n} {version(n)}" for n in ("daskhpo", "numpy", "scipy"))
    seeds = ", ".join(f"{n} with {workers:,}" for workers, n in profile.seeds.items())
    return (
        f"Profile `{profile.name}`, {date.today()}: {len(table):,} studies in {seconds / 60:.1f} "
        f"min on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs; Python "
        f"{platform.python_version()}, {versions}.\n\n"
        f"Tasks: {names}. Seeds of each method on each task, by workers: {seeds}."
    )


def results(table: pd.DataFrame, tasks: Sequence[Task]) -> str:
    """Return all numbers as Markdown."""
    races = table[table["share"].notna()]
    parts = []
    for (family, share), part in races.groupby(["family", "share"], sort=False):
        if (shown := part[part["method"].isin(METHODS)])["workers"].nunique() > 1:
            parts += [f"### {family}: until a trial is among the best {per_cent(share)}"]
            parts += [by_workers(shown)]
    within = table[table["share"].isna()]
    parts += [f"### In a budget: {_workers(BUDGET_WORKERS)}", in_a_budget(within)]
    parts += [_ratio(within), "### Where ASHA misleads: curves that cross", crossed(tasks)]
    easy = races["share"].eq(races.groupby("task")["share"].transform("max"))
    ladder = races[(races["workers"] == LADDER_WORKERS) & easy]
    parts += [f"### Gain from brackets: {_workers(LADDER_WORKERS)}"]
    parts += [by_family(ladder, [REFERENCE.name, *BRACKETS])]
    parts += [
        f"### First rung and η of ASHA: {_workers(LADDER_WORKERS)}",
        by_family(ladder, LADDERS),
    ]
    return "\n\n".join(parts)


def by_workers(races: pd.DataFrame) -> str:
    """Format the speedups: a row per method, a column per number of workers."""
    counts = sorted(races["workers"].unique())
    rows = []
    for name in METHODS:
        own = races[races["method"] == name]
        rows.append([name, *(_sooner(own[own["workers"] == n]) for n in counts)])
    theirs = races[races["method"] == REFERENCE.name]
    rows[0] = [
        f"{REFERENCE.name}: full trainings to the target",
        *(among(theirs.loc[theirs["workers"] == n, "reached"], "{:.3g}") for n in counts),
    ]
    return markdown(["times sooner than RS", *(_workers(n) for n in counts)], rows)


def by_family(races: pd.DataFrame, methods: Iterable[str]) -> str:
    """Format the times to the target: a row per method, a column per family."""
    families = list(dict.fromkeys(races["family"]))
    rows = [
        [
            name,
            *(_took(races[(races["method"] == name) & (races["family"] == f)]) for f in families),
        ]
        for name in methods
    ]
    return markdown(["full trainings until the target", *families], rows)


def in_a_budget(within: pd.DataFrame) -> str:
    """Format the speedups to random search's last mean of the best six.

    The table has a row per method and a column per family.
    """
    families = list(dict.fromkeys(within["family"]))
    rows = [
        [
            name,
            *(
                _sooner(within[(within["method"] == name) & (within["family"] == f)])
                for f in families
            ),
        ]
        for name in METHODS
        if name != REFERENCE.name
    ]
    return markdown([f"times sooner at RS's last mean of the best {K}", *families], rows)


def crossed(tasks: Sequence[Task]) -> str:
    """Format the early ranks: a row per task and rung."""
    rows = []
    for task in tasks:
        for resource in rungs(task)[:3]:
            found = crossing(task, resource)
            rates = [
                "—" if math.isnan(rate) else f"{rate:.2g}"
                for rate in (found.rates_kept, found.rates_cut)
            ]
            rows.append(
                [
                    task.name,
                    f"{resource} of {task.curves.max_t}",
                    f"{found.correlation:.2f}",
                    f"{100 * found.kept:.0f} %",
                    *rates,
                ]
            )
    head = [
        "task",
        "units",
        "rank correlation with the end",
        f"of the best 1 %: share in the best 1/{ETA} at that unit",
        "of the best 10 %: median learning rate of those in it",
        "of those not in it",
    ]
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table; its first column is left-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def among(values: Any, form: str) -> str:
    """Format the median, and the ends of the middle 80 % in brackets."""
    middle, low, high = spread(values)
    if math.isnan(middle):
        return "—"
    shown = ["never" if math.isinf(v) else form.format(v) for v in (middle, low, high)]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _workers(n: int) -> str:
    return f"{n:,} worker{'' if n == 1 else 's'}"


def _sooner(races: pd.DataFrame) -> str:
    known = races["sooner"].dropna()
    never = float((known == 0).mean()) if len(known) else 0.0
    shown = among(known, "{:.1f}")
    return f"{shown}; {100 * never:.0f} % never" if never >= 0.005 else shown


def _took(races: pd.DataFrame) -> str:
    return among(races["reached"], "{:.2f}") if len(races) else "—"


def _ratio(within: pd.DataFrame) -> str:
    found = finished(within)
    shown = " : ".join(
        f"{middle:.1f} ({low:.1f} to {high:.1f})" for middle, low, high in found.values()
    )
    names = " : ".join(method.name for method in COUNTED)
    return f"Trials finished, {names} = {shown}; in the reference study about {THEIRS}."


SCALING = (
    "Time until one trial is as good as the stated share of all configurations, in full trainings "
    "as one worker trains them: median over the seeds, geometric mean over the tasks. Dotted: "
    "random search with one worker, divided by the number of workers. No line: in one of the "
    "tasks most studies never reach that."
)
IN_A_BUDGET = (
    f"{BUDGET_WORKERS} workers, equal time: mean loss of the best {K} trials, median over the "
    "seeds; bands, of RS, ASHA and AHB: the middle 80 %."
)
CROSSINGS = (
    "Left: rank correlation of the best loss so far with that at the end. Right: curves of the "
    "trials that are best at the end, on the task where a first rung after one unit keeps the "
    "fewest of the best; trials above the black line would be stopped."
)
