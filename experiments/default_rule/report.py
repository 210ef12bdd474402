"""The results of the races, as a section of the README and a figure."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from daskhpo import __version__
from experiments.default_rule.methods import METHODS, OPTUNA
from experiments.default_rule.races import BUDGETS
from experiments.default_rule.tables import FEW, HUNDREDTH, REVERSED, SHUFFLED
from experiments.readme import Place

NAMES = (*METHODS, OPTUNA)
RULE, REFERENCE, BASE = "GuardedASHA", "AHB", "RS"
FAMILIES = ("LCBench", "TaskSet")
HEADS = {"": "as recorded", SHUFFLED: "features shuffled", REVERSED: "early ranks reversed"}


def write(path: Path, place: Place) -> Iterator[Path]:
    """Write the report; yield the paths of its files."""
    races = read(path)
    yield path
    figures = place.readme.parent / "figures"
    figures.mkdir(exist_ok=True)
    for name, draw in (("full-sooner.png", draw_sooner), ("full-ranks.png", draw_ranks)):
        draw(races, figures / name)
        yield figures / name
    place.fill(text(races))
    yield place.readme


def read(path: Path) -> pd.DataFrame:
    """Read the races, with the logarithm of each time; at most that of the horizon."""
    races = pd.read_csv(path, dtype={"variant": str})  # it may be empty in all rows
    races["variant"] = races["variant"].fillna("")
    races["family"] = races["task"].str.split().str[0]
    races["plain"] = races["variant"] == ""
    races["log"] = np.log(np.minimum(races["reached"], races["horizon"]))
    return races


def text(races: pd.DataFrame) -> str:
    """Return the README's section."""
    seeds = races[races["method"] == REFERENCE]["seed"].nunique()
    several = f"{seeds} seeds of each method on each task, unless a row says otherwise."
    parts = [f"{_machine(races)} {several}"]
    for family in [name for name in FAMILIES if (races["family"] == name).any()]:
        parts += [f"### {family}: until a trial is among the best hundredth", plain(races, family)]
    n = races[(races["share"] == FEW) & (races["method"] == REFERENCE)]["seed"].nunique()
    several = f"4 workers, {n} seed{'s' * (n > 1)}"
    parts += [f"### Until a trial is among the best 0.2 %: {several}", few(races)]
    parts += [f"### Rank of the best trial, per cent: {several}", ranks(races)]
    parts += ["### Tables that mislead", misled(races)]
    parts += ["### Per task: AHB's time over that of the rule, 4 workers", per_task(races)]
    return "\n\n".join(parts)


def _machine(races: pd.DataFrame) -> str:
    minutes = races["cpu"].sum() / 60
    return (
        f"{date.today()}: {len(races):,} studies, {minutes:.0f} minutes of CPU time on "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs that other programs "
        f"used as well; Python {platform.python_version()}, daskhpo {__version__}, numpy "
        f"{np.__version__}."
    )


def slow(races: pd.DataFrame) -> str:
    """Return the README's section on methods whose suggestions take long.

    A seed counts once all its tasks were run.
    """
    n_tasks = races.groupby(["method", "seed"])["task"].transform("nunique")
    races = races[n_tasks == races["task"].nunique()]
    rows = []
    for method in [name for name in NAMES if (races["method"] == name).any()]:
        found = races[races["method"] == method]
        cells = [str(found["seed"].nunique()), f"{found['horizon'].min():g}"]
        for family in FAMILIES:
            of = races[races["family"] == family]
            mine = of[of["method"] == method]
            for column in ("reached", "reached_few"):
                both = (_timed(part, column) for part in (mine, of))
                cells.append(_cell(*both) if len(mine) else "—")
        rows.append([method, *cells, f"{found['cpu'].median():.2g}"])
    times = [f"{family}, best {share}" for family in FAMILIES for share in ("1 %", "0.2 %")]
    heads = ["4 workers", "seeds", "horizon", *times, "CPU seconds, median"]
    return "\n\n".join(
        [
            _machine(races),
            _table(heads, rows),
            "Rank of the best trial, per cent:",
            ranks(races),
        ]
    )


def _timed(races: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the races with the times of a target as those that were reached."""
    times = races[column]
    return races.assign(reached=times, log=np.log(np.minimum(times, races["horizon"])))


def plain(races: pd.DataFrame, family: str) -> str:
    """Return the table of all methods on the tables as they were recorded."""
    part = races[(races["family"] == family) & races["plain"] & _until_the_hundredth(races)]
    workers = sorted(part["workers"].unique().tolist())
    rows = []
    for method in NAMES:
        cells = []
        for n in workers:
            found = part[(part["method"] == method) & (part["workers"] == n)]
            cells.append(_cell(found, part[part["workers"] == n]) if len(found) else "—")
        if any(cell != "—" for cell in cells):
            rows.append([_named(method, part), *cells])
    heads = ["", *(f"{n} worker{'s' * (n > 1)}" for n in workers)]
    return _table(heads, rows)


def _until_the_hundredth(races: pd.DataFrame) -> Any:
    """Return which studies ended there, or are the only ones of their method."""
    first = races[races["share"] == HUNDREDTH]["method"].unique()
    return (races["share"] == HUNDREDTH) | ~races["method"].isin(first)


def _named(method: str, part: pd.DataFrame) -> str:
    """Return the method's name, with its number of seeds if the others have more."""
    counts = part.groupby("method")["seed"].nunique()
    n = int(counts[method])
    return f"{method} ({n} seed{'s' * (n > 1)})" if n < counts.max() else method


def few(races: pd.DataFrame) -> str:
    """Return the table of times until the best 0.2 %."""
    part = _timed(races[races["plain"] & (races["share"] == FEW)], "reached_few")
    rows = []
    for method in [name for name in NAMES if (part["method"] == name).any()]:
        cells = []
        for family in FAMILIES:
            of = part[part["family"] == family]
            found = of[of["method"] == method]
            cells.append(_cell(found, of) if len(found) else "—")
        rows.append([_named(method, part), *cells])
    return _table(["", *FAMILIES], rows)


def ranks(races: pd.DataFrame) -> str:
    """Return the table of ranks after so many full trainings, in per cent."""
    part = races[races["plain"] & (races["share"] == FEW)]
    heads = [f"{family}, {n}" for family in FAMILIES for n in BUDGETS]
    rows = []
    for method in [name for name in NAMES if (part["method"] == name).any()]:
        found = part[part["method"] == method]
        cells = []
        for family in FAMILIES:
            medians = _median_ranks(found[found["family"] == family])
            horizon = float(found["horizon"].min()) * 4
            cells += [f"{m:.2g}" if n <= horizon else "—" for n, m in medians.items()]
        rows.append([_named(method, part), *cells])
    return _table(["", *heads], rows)


def _median_ranks(found: pd.DataFrame) -> dict[int, float]:
    """Return the median over the tasks of the median rank, by budget, in per cent."""
    columns = [f"rank_{n}" for n in BUDGETS]
    medians = 100 * found.groupby("task")[columns].median().median()
    return dict(zip(BUDGETS, medians, strict=True))


def _cell(found: pd.DataFrame, all_methods: pd.DataFrame) -> str:
    median = found.groupby("task")["reached"].median().median()
    shown = f"{median:.2g}" if math.isfinite(median) else "never"
    if found["method"].iloc[0] != REFERENCE:
        factor, worst = against(found, all_methods[all_methods["method"] == REFERENCE])
        shown += f"; {factor:.2f}, {worst:.2f}"
    missed = np.isinf(found["reached"]).mean()
    return shown + (f"; {100 * missed:.1f} % never" if missed else "")


def against(found: pd.DataFrame, reference: pd.DataFrame) -> tuple[float, float]:
    """Return how often sooner than the reference: mean over tasks, and worst task."""
    reference = reference[reference["seed"].isin(found["seed"].unique())]
    horizon = found["horizon"].min()  # a slow method may have a nearer one
    cut = reference["log"].clip(upper=math.log(horizon)).groupby(reference["task"]).mean()
    gain = cut - found.groupby("task")["log"].mean()
    return math.exp(gain.mean()), math.exp(gain.min())


def misled(races: pd.DataFrame) -> str:
    """Return the table of the rule beside AHB, also where features or ranks mislead."""
    rows = []
    races = races[races["share"] == HUNDREDTH]
    for variant, head in HEADS.items():
        for family in FAMILIES:
            part = races[(races["variant"] == variant) & (races["family"] == family)]
            part = part[part["method"].isin((RULE, REFERENCE)) & part["workers"].isin((4, 16))]
            runs = part.groupby("seed")["seed"].transform("count")
            part = part[runs == runs.max()]  # a seed may be incomplete
            cells = []
            for n in (4, 16):
                at = part[part["workers"] == n]
                rule, reference = (at[at["method"] == name] for name in (RULE, REFERENCE))
                if not len(rule) or rule["task"].nunique() < part["task"].nunique():
                    cells.append("—")
                    continue
                factor, worst = against(rule, reference)
                missed = 100 * np.isinf(rule["reached"]).mean()
                theirs = 100 * np.isinf(reference["reached"]).mean()
                cells.append(f"{factor:.2f}; {worst:.2f}; {missed:.1f} % ({theirs:.1f} %)")
            if set(cells) != {"—"}:
                rows.append([f"{head}: {family} ({part['seed'].nunique()} seeds)", *cells])
    return _table(["factor; worst task; never (AHB)", "4 workers", "16 workers"], rows)


def per_task(races: pd.DataFrame) -> str:
    """Return the factor on each task, with its standard error."""
    part = races[races["plain"] & (races["workers"] == 4) & (races["share"] == HUNDREDTH)]
    rows = []
    for task in part["task"].unique():
        of_task = part[part["task"] == task]
        of_task = of_task[of_task["seed"].isin(of_task[of_task["method"] == RULE]["seed"])]
        rule, reference = (of_task[of_task["method"] == m]["log"] for m in (RULE, REFERENCE))
        gain = reference.mean() - rule.mean()
        error = math.hypot(reference.sem(), rule.sem())
        low, high = math.exp(gain - error), math.exp(gain + error)
        rows.append([task, f"{math.exp(gain):.2f} ({low:.2f} to {high:.2f})"])
    return _table(["task", "factor (one standard error)"], rows)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw_ranks(races: pd.DataFrame, path: Path) -> None:
    """Draw the median rank of each method by budget."""
    part = races[races["plain"] & (races["share"] == FEW)]
    with _figure(path, "full trainings of all workers together") as axes:
        for axis, family in zip(axes, FAMILIES, strict=True):
            of = part[part["family"] == family]
            for method in [name for name in NAMES if (of["method"] == name).any()]:
                found = of[of["method"] == method]
                medians = _median_ranks(found)
                shown = {n: m for n, m in medians.items() if n <= 4 * found["horizon"].min()}
                axis.plot([*shown], [*shown.values()], label=method, **_style(method))
            axis.set(title=family)
            axis.set_xticks(BUDGETS, [str(n) for n in BUDGETS])
        axes[0].set_ylabel("rank of the best trial, %")


def draw_sooner(races: pd.DataFrame, path: Path) -> None:
    """Draw how much sooner than random search each method is, by workers."""
    part = races[races["plain"] & _until_the_hundredth(races)]
    with _figure(path, "workers") as axes:
        for axis, family in zip(axes, FAMILIES, strict=True):
            of = part[part["family"] == family]
            for method in [name for name in NAMES if name != BASE]:
                if points := dict(_sooner(of, method)):
                    values = [*points.values()]
                    axis.plot([*points], values, label=method, **_style(method))
            axis.axhline(1, color="#999999", lw=0.8)
            axis.set(title=family)
            axis.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
            axis.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
        axes[0].set_ylabel("times sooner than random search")


@contextmanager
def _figure(path: Path, x: str) -> Iterator[Any]:
    """Give two axes, one for each family, and save them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(11.5, 4.2), sharey=True)
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel=x)
    yield axes
    for axis in axes:
        axis.minorticks_off()
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, fontsize=8, loc="center right")
    fig.tight_layout(rect=(0, 0, 0.8, 1))
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _style(method: str) -> dict[str, Any]:
    if method == RULE:
        return {"color": "black", "lw": 2.5, "marker": "o"}
    number = NAMES.index(method)
    own = {"ls": "--", "marker": "s"} if number >= 10 else {"marker": "o"}  # ten colours
    return {"color": f"C{number % 10}", "lw": 1.2, **own}


def _sooner(of: pd.DataFrame, method: str) -> Iterator[tuple[int, float]]:
    for n in sorted(of["workers"].unique().tolist()):
        at = of[of["workers"] == n]
        found, base = (at[at["method"] == m] for m in (method, BASE))
        base = base[base["seed"].isin(found["seed"].unique())]
        if len(found) and found["task"].nunique() == base["task"].nunique():
            base = base.assign(log=base["log"].clip(upper=math.log(found["horizon"].min())))
            gain = base.groupby("task")["log"].mean() - found.groupby("task")["log"].mean()
            yield int(n), math.exp(gain.mean())
