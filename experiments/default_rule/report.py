"""The results of the races, as a section of the README and a figure."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from daskhpo import __version__
from experiments.default_rule.methods import METHODS
from experiments.default_rule.tables import REVERSED, SHUFFLED
from experiments.readme import Place

RULE, REFERENCE, BASE = "GuardedASHA", "AHB", "RS"
FAMILIES = ("LCBench", "TaskSet")
HEADS = {"": "as recorded", SHUFFLED: "features shuffled", REVERSED: "early ranks reversed"}


def write(path: Path, place: Place) -> Iterator[Path]:
    """Write the report; yield the paths of its files."""
    races = read(path)
    yield path
    figure = place.readme.parent / "figures" / "full-sooner.png"
    figure.parent.mkdir(exist_ok=True)
    draw(races, figure)
    yield figure
    place.fill(text(races))
    yield place.readme


def read(path: Path) -> pd.DataFrame:
    """Read the races, with the logarithm of each time; at most that of the horizon."""
    races = pd.read_csv(path, keep_default_na=False)
    races["family"] = races["task"].str.split().str[0]
    races["log"] = np.log(np.minimum(races["reached"], races["horizon"]))
    return races


def text(races: pd.DataFrame) -> str:
    """Return the README's section."""
    seeds = races["seed"].nunique()
    minutes = races["cpu"].sum() / 60
    parts = [
        f"{date.today()}: {len(races):,} studies, {minutes:.0f} minutes of CPU time on "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs that other programs "
        f"used as well; Python {platform.python_version()}, daskhpo {__version__}, numpy "
        f"{np.__version__}. {seeds} seeds of each method on each task, unless a row says "
        "otherwise.",
    ]
    for family in [name for name in FAMILIES if (races["family"] == name).any()]:
        parts += [f"### {family}: until a trial is among the best hundredth", plain(races, family)]
    parts += ["### Tables that mislead", misled(races)]
    parts += ["### Per task: AHB's time over that of the rule, 4 workers", per_task(races)]
    return "\n\n".join(parts)


def plain(races: pd.DataFrame, family: str) -> str:
    """Return the table of all methods on the tables as they were recorded."""
    part = races[(races["family"] == family) & (races["variant"] == "")]
    workers = sorted(part["workers"].unique().tolist())
    rows = []
    for method in METHODS:
        cells = []
        for n in workers:
            found = part[(part["method"] == method) & (part["workers"] == n)]
            cells.append(_cell(found, part[part["workers"] == n]) if len(found) else "—")
        if any(cell != "—" for cell in cells):
            seeds = part[part["method"] == method]["seed"].nunique()
            few = f" ({seeds} seeds)" if seeds < part["seed"].nunique() else ""
            rows.append([method + few, *cells])
    heads = ["", *(f"{n} worker{'s' * (n > 1)}" for n in workers)]
    return _table(heads, rows)


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
    part = races[(races["variant"] == "") & (races["workers"] == 4)]
    rows = []
    for task in part["task"].unique():
        of_task = part[part["task"] == task]
        rule, reference = (of_task[of_task["method"] == m]["log"] for m in (RULE, REFERENCE))
        gain = reference.mean() - rule.mean()
        error = math.hypot(reference.sem(), rule.sem())
        low, high = math.exp(gain - error), math.exp(gain + error)
        rows.append([task, f"{math.exp(gain):.2f} ({low:.2f} to {high:.2f})"])
    return _table(["task", "factor (one standard error)"], rows)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(races: pd.DataFrame, path: Path) -> None:
    """Draw how much sooner than random search each method is, by workers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    part = races[races["variant"] == ""]
    for axis, family in zip(axes, FAMILIES, strict=True):
        of = part[part["family"] == family]
        for method in METHODS:
            points = dict(_sooner(of, method))
            if len(points) > 1 and method != BASE:
                is_rule = method == RULE
                style: dict[str, Any] = {"color": "black", "lw": 2.5} if is_rule else {"lw": 1.2}
                axis.plot([*points], [*points.values()], marker="o", label=method, **style)
        axis.axhline(1, color="#999999", lw=0.8)
        axis.set(title=family, xlabel="workers", xscale="log", yscale="log")
        axis.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
        axis.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
        axis.minorticks_off()
    axes[0].set_ylabel("times sooner than random search")
    axes[0].legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _sooner(of: pd.DataFrame, method: str) -> Iterator[tuple[int, float]]:
    for n in sorted(of["workers"].unique().tolist()):
        at = of[of["workers"] == n]
        found, base = (at[at["method"] == m] for m in (method, BASE))
        if found["task"].nunique() == base["task"].nunique():
            gain = base.groupby("task")["log"].mean() - found.groupby("task")["log"].mean()
            yield int(n), math.exp(gain.mean())
