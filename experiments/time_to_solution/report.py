"""The report of a profile: a table, figures, a page, and results in the README."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from experiments.readme import Place
from experiments.time_to_solution.figures import all_figures
from experiments.time_to_solution.methods import (
    CHECKPOINTING,
    COMPARED,
    METHODS,
    REFERENCE,
    SEARCHES,
    Method,
)
from experiments.time_to_solution.outcomes import K, Outcome, Outcomes, read
from experiments.time_to_solution.page import as_page
from experiments.time_to_solution.profiles import Profile

SEEDS_FOR_A_CLAIM = 3
COUNTED = ("asha", "ahb", "rs")  # methods whose finished trials the reference study counts
THEIRS = "8 : 4 : 1"
PAIRS = (
    *((method, REFERENCE) for method in COMPARED if method != REFERENCE),
    (SEARCHES[1], SEARCHES[0]),
    CHECKPOINTING,
)


@dataclass(frozen=True)
class Written:
    """The text of a report, and the files that were written."""

    text: str
    files: tuple[Path, ...]


def write(profile: Profile, storage: Path, readme: Path) -> Written:
    """Write the report.

    Table and page are written next to the studies, figures next to the README, results into it.

    Raises
    ------
    ValueError : no study is finished, or the README has no place for this profile's results.
    """
    outcomes = read(profile, storage)
    place = Place(readme, profile.name)
    table = storage / f"{profile.name}.csv"
    outcomes.table().to_csv(table, index=False)
    folder = readme.parent / "figures"
    folder.mkdir(exist_ok=True)
    pictures, files = [], [table]
    for name, (figure, caption) in all_figures(outcomes).items():
        path = folder / f"{profile.name}-{name}.png"
        figure.savefig(path, dpi=130)
        pictures.append((path, caption))
        files.append(path)
    text = results(outcomes)
    shown = "\n\n".join(f"![{c}](figures/{path.name})\n\n*{c}*" for path, c in pictures)
    place.fill(f"{text}\n\n{shown}")
    alone = storage / f"{profile.name}.html"
    title = f"Time to solution, profile {profile.name}"
    alone.write_text(as_page(title, text, pictures, outcomes.table()))
    return Written(text, (*files, alone, readme))


def results(outcomes: Outcomes) -> str:
    """Return all numbers as Markdown; methods are compared from three seeds on."""
    parts = [heading(outcomes), methods_table(outcomes), ""]
    parts += [f"- {line}" for line in sentences(outcomes)]
    if pairs := comparisons(outcomes):
        parts += ["", pairs]
    if troubled := trouble_table(outcomes):
        parts += ["", *troubled]
    return "\n".join(parts)


def heading(outcomes: Outcomes) -> str:
    """Return a summary: profile, seeds, time, workers, dates, machines, versions."""
    profile = outcomes.profile
    seen = [outcome.machine for outcome in outcomes.all if outcome.machine is not None]
    machines = sorted({record.about["machine"] for record in seen})
    versions = sorted(
        {", ".join(f"{k} {v}" for k, v in record.about["versions"].items()) for record in seen}
    )
    days = sorted({f"{datetime.fromtimestamp(record.began, UTC):%Y-%m-%d}" for record in seen})
    slots = np.median([outcome.slot_seconds for outcome in outcomes.all]) / profile.seconds
    lines = [
        f"Profile `{profile.name}`, seeds {_listed(outcomes.seeds)}, {profile.seconds:g} s for "
        f"each study, with {slots:.2f} workers on average (median over studies); started "
        f"{_listed(days)}.",
        "",
        f"- machine: {'; '.join(machines) or 'not recorded'}",
        *(f"- {each}" for each in versions),
    ]
    if outcomes.missing:
        lines.append(f"- **not finished, not included**: {', '.join(outcomes.missing)}")
    lines.append("")
    return "\n".join(lines)


def methods_table(outcomes: Outcomes) -> str:
    """Format a row per method: medians over the seeds (smallest to largest)."""
    head = [
        "method",
        "n",
        "trials finished",
        f"best {K}: mean, eV",
        "best: validation, eV",
        "best: test, eV",
        f"times sooner at RS's last mean of {K}",
        f"s until best has {outcomes.profile.target:g} eV",
        "checkpoints",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for method in METHODS.values():
        own = outcomes.of(method)
        if not own:
            continue
        cells = [
            method.label,
            str(len(own)),
            among([outcome.n_finished for outcome in own], "{:g}"),
            among([outcome.top for outcome in own], "{:.3f}"),
            among([outcome.best for outcome in own], "{:.3f}"),
            among([outcome.test for outcome in own], "{:.3f}"),
            "1" if method == REFERENCE else speedups(outcomes, own),
            until_target(outcomes, own),
            among([outcome.result.cost()["checkpoint_files"] for outcome in own], "{:g}"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sentences(outcomes: Outcomes) -> list[str]:
    """Return statements that follow from the numbers, each with its n."""
    found = []
    n_seeds = len(outcomes.seeds)
    if n_seeds < SEEDS_FOR_A_CLAIM:
        found.append(
            f"n = {n_seeds}: fewer than {SEEDS_FOR_A_CLAIM} seeds, so methods are not compared."
        )
    counted = [METHODS[name] for name in COUNTED]
    shared = [s for s in outcomes.seeds if all(outcomes.get(m, s) for m in counted)]
    ratios: dict[str, list[float]] = {method.name: [] for method in counted}
    for seed in shared:
        finished = {m.name: _n_finished(outcomes, m, seed) for m in counted}
        if finished["rs"]:
            for name, n in finished.items():
                ratios[name].append(n / finished["rs"])
    if ratios["rs"]:
        shown = " : ".join(among(ratios[name], "{:.1f}") for name in COUNTED)
        found.append(
            f"Trials finished, ASHA : AHB : RS = {shown}, n = {len(ratios['rs'])}; in the "
            f"reference study, with hours on GPUs and other ranges, about {THEIRS}."
        )
    return found


def comparisons(outcomes: Outcomes) -> str:
    """Format a row per compared pair of methods; empty if there are too few seeds."""
    rows = [
        f"| {one.label} − {other.label} | {' | '.join(apart)} |"
        for one, other in PAIRS
        if (apart := compared(outcomes, one, other))
    ]
    if not rows:
        return ""
    chance = 2 * 0.5 ** len(outcomes.seeds)
    head = f"| difference | mean of the best {K}, eV | best, eV |\n|---|---:|---:|"
    note = (
        "Differences seed by seed: median (smallest to largest). The same sign in all "
        f"{len(outcomes.seeds)} seeds happens by chance with probability {chance:.2g}; all other "
        "differences are within noise."
    )
    return "\n".join([head, *rows, "", note])


def compared(outcomes: Outcomes, one: Method, other: Method) -> list[str]:
    """Format the differences between two methods; empty if there are too few seeds."""
    cells = []
    values: tuple[Callable[[Outcome], float], ...] = (lambda o: o.top, lambda o: o.best)
    for value in values:
        pairs = [(outcomes.get(one, s), outcomes.get(other, s)) for s in outcomes.seeds]
        apart = [value(a) - value(b) for a, b in pairs if a is not None and b is not None]
        apart = [difference for difference in apart if not math.isnan(difference)]
        if len(apart) < SEEDS_FOR_A_CLAIM:
            cells.append(f"n = {len(apart)}")
        else:
            cells.append(f"{among(apart, '{:+.3f}')}, {_verdict(apart)}")
    return [] if all(cell.startswith("n = ") for cell in cells) else cells


def _verdict(apart: Sequence[float]) -> str:
    n, n_lower = len(apart), sum(difference < 0 for difference in apart)
    if n_lower == n:
        return f"lower in {n} of {n}"
    if all(difference > 0 for difference in apart):
        return f"higher in {n} of {n}"
    return f"within noise, lower in {n_lower} of {n}"


def speedups(outcomes: Outcomes, own: Sequence[Outcome]) -> str:
    """Format the speedups to random search's last mean, and how often it was reached."""
    known = [s for s in map(outcomes.speedup, own) if not math.isnan(s)]
    reached = [s for s in known if s > 0]
    if not known:
        return "—"
    shown = among(reached, "{:.1f}") if reached else "—"
    return (
        shown
        if len(reached) == len(known)
        else f"{shown}; {len(reached)} of {len(known)} reached it"
    )


def until_target(outcomes: Outcomes, own: Sequence[Outcome]) -> str:
    """Format the seconds to the target error, and how often it was reached."""
    times = [outcome.time_to(outcomes.profile.target, outcome.best_curve) for outcome in own]
    return _of_those([time for time in times if math.isfinite(time)], times, "{:.0f}")


def _of_those(reached: Sequence[float], known: Sequence[float], form: str) -> str:
    shown = among(reached, form)
    return shown if len(reached) == len(known) else f"{shown}; {len(reached)} of {len(known)}"


def trouble_table(outcomes: Outcomes) -> list[str]:
    """Format the disturbances of each study, or one line if there were none."""
    found = [(outcome, outcomes.troubles(outcome)) for outcome in outcomes.all]
    troubled = [(outcome, troubles) for outcome, troubles in found if troubles]
    if not troubled:
        return ["No study was disturbed, as far as `machine.py` can tell."]
    lines = [
        f"**{len(troubled)} of {len(found)} studies were disturbed**: their times and numbers of "
        "trials are unreliable.",
        "",
        "| study | disturbance |",
        "|---|---|",
    ]
    for outcome, troubles in troubled:
        lines.append(f"| seed {outcome.seed}, {outcome.method.label} | {'; '.join(troubles)} |")
    return lines


def among(values: Sequence[float], form: str) -> str:
    """Format the median, and smallest to largest if they differ; NaN is ignored."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "—"
    middle, low, high = (form.format(v) for v in (float(np.median(known)), min(known), max(known)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _n_finished(outcomes: Outcomes, method: Method, seed: int) -> int:
    outcome = outcomes.get(method, seed)
    return outcome.n_finished if outcome is not None else 0


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "not recorded"
