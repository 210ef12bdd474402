"""The report: one file with all plots of a study, which needs no network."""

from __future__ import annotations

import html
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from daskhpo.core.types import Status
from daskhpo.plots import look, population
from daskhpo.plots.advice_page import advice_html
from daskhpo.plots.alternatives import alternatives
from daskhpo.plots.data import TRIAL_PARTS
from daskhpo.plots.importance import importance
from daskhpo.plots.page import Page, Sources
from daskhpo.plots.population_page import build_population, population_data
from daskhpo.plots.space_page import build_space, space_data
from daskhpo.plots.study_page import build_study, study_data
from daskhpo.plots.tables import STATES, StudyTables
from daskhpo.plots.trials_page import build_trials, trials_data
from daskhpo.plots.use_page import build_use, use_data
from daskhpo.plots.verdict import header

# What a page is printed with, and for readers who asked for less motion.
_PAGE = """{% from macros import embed %}<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title | e }}</title>
{{ bokeh_css if bokeh_css }}
{{ bokeh_js if bokeh_js }}
<style>
body { font-family: Helvetica, Arial, sans-serif; font-size: 14px; color: #1a1a1a;
  max-width: 1500px; margin: 0 auto; padding: 12px 20px; background: white; }
h1 { font-size: 20px; } h2 { font-size: 17px; border-top: 1px solid #ccc; padding-top: 12px; }
table { border-collapse: collapse; } td, th { padding: 2px 12px 2px 0; text-align: left;
  vertical-align: top; } th { color: #555; }
code, pre { background: #f2f2f2; font-size: 12px; white-space: pre-wrap; }
nav a { margin-right: 14px; color: #0060a0; } .dim { color: #555; } summary { cursor: pointer; }
.big { font-size: 20px; font-weight: 600; }
.state { font-size: 12px; border: 1px solid #777; border-radius: 8px; padding: 0 7px; }
@media print { nav { display: none; } h2 { break-after: avoid; } section { break-inside: avoid; } }
@media (prefers-reduced-motion: reduce) { * { transition: none !important; animation: none
  !important; scroll-behavior: auto !important; } }
</style>
</head>
<body>
<h1>{{ title | e }}</h1>
<nav>{% for s in sections %}<a href="#s{{ loop.index }}">{{ s.title | e }}</a>{% endfor %}</nav>
{% for s in sections %}
<section><h2 id="s{{ loop.index }}">{{ s.title | e }}</h2>
{{ s.html }}{% if s.root %}{{ embed(roots[s.root]) }}{% endif %}
</section>
{% endfor %}
{{ plot_script }}
</body>
</html>
"""


@dataclass(frozen=True)
class About:
    """Facts that a report gives besides its plots.

    Attributes
    ----------
    environment : names of software and machine, and their versions.
    reproduce : what another person needs to run the study again.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    reproduce: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Section:
    title: str
    html: str = ""
    root: str = ""


def report_html(tables: StudyTables, about: About = About()) -> str:
    """Return the report of one study as one self-contained HTML file."""
    name = tables.facts.name or "study"
    roots: list[Any] = []
    new = study_data(tables, parts=TRIAL_PARTS)
    sections = [_Section("Verdict", header(tables) + _best_config(tables))]
    sources: Sources = {}
    study = build_study(new, sources, live=False)
    study.divs["header"].visible = False
    sections.append(_place(roots, "Best so far, curves, rungs", study))
    found = importance(tables)
    space = build_space(space_data(tables, found), sources)
    sections.append(_place(roots, "Hyperparameters", space))
    if population.is_population(tables):
        members = build_population(population_data(tables), sources)
        sections.append(_place(roots, "Schedule and lineage", members))
    sections.append(_place(roots, "Timeline and cost", build_use(use_data(tables), sources)))
    rows = trials_data(tables)
    del rows.sources["trials"]
    rows.sources["trials"] = new.sources["trials"]
    rows.notes["table"] = new.notes["best"] if tables.n_trials else rows.notes["table"]
    sections.append(_place(roots, "Trials", build_trials(rows, sources)))
    if failed := _failures(tables):
        sections.append(_Section("Failures by reason", failed))
    sections.append(_Section("Advice", advice_html(tables, alternatives(tables))))
    sections.append(_Section("Environment", _pairs({**about.environment, **_here()})))
    sections.append(
        _Section("How to reproduce", _pairs({**_definition(tables), **about.reproduce}))
    )
    sections.append(_Section("Methods", _methods(tables)))
    return render(f"{name}: report of a study", sections, roots)


def _place(roots: list[Any], title: str, page: Page) -> _Section:
    page.layout.name = f"root{len(roots)}"
    roots.append(page.layout)
    return _Section(title, root=page.layout.name)


def render(title: str, sections: Sequence[_Section], roots: Sequence[Any]) -> str:
    """Return a page with these sections as one HTML file."""
    from bokeh.document import Document
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    from bokeh.core.templates import get_env  # isort: skip - the macros of Bokeh's own pages

    environment = get_env()
    document = Document()  # of its own: the current one may be of a page that is open
    for root in roots:
        document.add_root(root)
    made: str = file_html(
        document,
        resources=INLINE,
        title=title,
        template=environment.from_string(_PAGE),
        template_variables={"sections": list(sections)},
    )
    return made


def _best_config(tables: StudyTables, k: int = 5) -> str:
    """Return the best trials as a table."""
    return "<br>" + best_table(tables, k)


def best_table(tables: StudyTables, k: int = 5) -> str:
    """Return the ``k`` best trials and their configurations as a table in HTML."""
    from daskhpo.plots.sampling import best_first

    names = [*tables.config]
    rows = [
        [
            number,
            f"{float(tables.value(tables.best[number])):.6g}",
            tables.state(number),
            tables.resource[number],
            *(tables.setting(name, number) for name in names),
        ]
        for number in best_first(np.array(tables.best), k).tolist()
    ]
    return look.table(("trial", tables.objective.metric, "state", "resource", *names), rows)


def _failures(tables: StudyTables) -> str:
    failed = np.flatnonzero(np.array(tables.status) == STATES.index(Status.FAILED)).tolist()
    reasons = Counter(tables.reasons.get(number, "") or "unknown" for number in failed)
    if not reasons:
        return ""
    parts = [look.table(("trials", "reason"), [(n, why) for why, n in reasons.most_common(20)])]
    shown: set[str] = set()
    for number in failed:
        why = tables.reasons.get(number, "")
        if why in shown or number not in tables.errors or len(shown) >= 5:
            continue
        shown.add(why)
        trace = html.escape(tables.errors[number][-4000:])
        parts.append(
            f"<details><summary>traceback of trial {number}</summary><pre>{trace}</pre></details>"
        )
    return "".join(parts)


def _pairs(pairs: Mapping[str, str]) -> str:
    return look.table(("", ""), [*pairs.items()])


def _here() -> dict[str, str]:
    names = ("daskhpo", "bokeh", "numpy", "scikit-learn")
    return {
        "written by": ", ".join(f"{name} {_version(name)}" for name in names),
        "with": f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
    }


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _definition(tables: StudyTables) -> dict[str, str]:
    facts = tables.facts
    found = {"scheduler": facts.scheduler, "searcher": facts.searcher}
    found |= {f"space: {name}": str(domain) for name, domain in facts.space.items()}
    return {name: text for name, text in found.items() if text}


def _methods(tables: StudyTables) -> str:
    """Return a text for a paper, and what it cites."""
    facts, objective = tables.facts, tables.objective
    name = facts.scheduler.split("(")[0]
    searcher = facts.searcher.split("(")[0]
    resources = np.array(tables.resource)
    most = int(resources.max()) if len(resources) else 0
    word = "minimised" if objective.mode == "min" else "maximised"
    text = (
        f"Hyperparameters were tuned with daskhpo: {tables.n_trials:,} configurations"
        + (f", suggested by {searcher}" if searcher else "")
        + (f", under {name}" if name else "")
        + f", with at most {most} units of training each. {objective.metric} was {word}. The "
        f"study took {facts.seconds / 3600:.3g} h and {facts.slot_seconds / 3600:.3g} slot-hours. "
        "Values are the best that a trial reported on its validation data; such a minimum over "
        "many trials is optimistic, so report the winner on data that no trial has seen."
    )
    cited = _cited(name)
    entries = f"<pre>{html.escape(cited)}</pre>" if cited else ""
    return f"<p>{html.escape(text)}</p>{entries}"


def _cited(scheduler: str) -> str:
    keys = {
        "ASHA": ("li2020",),
        "AsyncHyperband": ("li2020", "li2018"),
        "GuardedASHA": ("li2020", "li2018"),
        "PASHA": ("bohdal2023", "li2020"),
        "Hyperband": ("li2018",),
        "SuccessiveHalving": ("jamieson2016",),
        "PBT": ("jaderberg2017",),
        "PBTReplay": ("jaderberg2017",),
        "PB2": ("parkerholder2020",),
        "MedianStopping": ("golovin2017",),
    }.get(scheduler, ())
    return "\n".join(_ENTRIES[key] for key in keys)


_ENTRIES = {
    "li2020": """@inproceedings{li2020,
  title={A System for Massively Parallel Hyperparameter Tuning},
  author={Li, Liam and Jamieson, Kevin and Rostamizadeh, Afshin and Gonina, Ekaterina and
  Ben-Tzur, Jonathan and Hardt, Moritz and Recht, Benjamin and Talwalkar, Ameet},
  booktitle={MLSys}, year={2020}}""",
    "li2018": """@article{li2018, title={Hyperband: A Novel Bandit-Based Approach to Hyperparameter
  Optimization}, author={Li, Lisha and Jamieson, Kevin and DeSalvo, Giulia and Rostamizadeh, Afshin
  and Talwalkar, Ameet}, journal={JMLR}, volume={18}, number={185}, year={2018}}""",
    "jamieson2016": """@inproceedings{jamieson2016,
  title={Non-stochastic Best Arm Identification and
  Hyperparameter Optimization}, author={Jamieson, Kevin and Talwalkar, Ameet},
  booktitle={AISTATS}, year={2016}}""",
    "jaderberg2017": """@article{jaderberg2017,
  title={Population Based Training of Neural Networks},
  author={Jaderberg, Max and others}, journal={arXiv:1711.09846}, year={2017}}""",
    "parkerholder2020": """@inproceedings{parkerholder2020, title={Provably Efficient Online
  Hyperparameter Optimization with Population-Based Bandits}, author={Parker-Holder, Jack and
  Nguyen, Vu and Roberts, Stephen J.}, booktitle={NeurIPS}, year={2020}}""",
    "bohdal2023": """@inproceedings{bohdal2023, title={PASHA: Efficient HPO and NAS with
  Progressive Resource Allocation}, author={Bohdal, Ondrej and Balles, Lukas and Wistuba, Martin
  and Ermis, Beyza and Archambeau, C{\\'e}dric and Zappella, Giovanni}, booktitle={ICLR},
  year={2023}}""",
    "golovin2017": """@inproceedings{golovin2017, title={Google Vizier: A Service for Black-Box
  Optimization}, author={Golovin, Daniel and Solnik, Benjamin and Moitra, Subhodeep and Kochanski,
  Greg and Karro, John and Sculley, D.}, booktitle={KDD}, year={2017}}""",
}


def section(title: str, text: str) -> _Section:
    """Return a section of text alone."""
    return _Section(title, text)


def placed(roots: list[Any], title: str, layout: Any, text: str = "") -> _Section:
    """Return a section with a layout, which is added to the roots."""
    layout.name = f"root{len(roots)}"
    roots.append(layout)
    return _Section(title, text, layout.name)


__all__ = ["About", "best_table", "placed", "render", "report_html", "section"]
