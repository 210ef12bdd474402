"""The pages that there are, and what each of them shows of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from daskhpo.dashboard.studies import WatchedStudy
from daskhpo.plots.advice_page import advice_data, build_advice
from daskhpo.plots.page import Page, PageData
from daskhpo.plots.population_page import build_population, population_data
from daskhpo.plots.space_page import build_space, space_data
from daskhpo.plots.study_page import build_study, study_data
from daskhpo.plots.trials_page import TableView, build_trials, trials_data
from daskhpo.plots.use import LIVE_HOURS
from daskhpo.plots.use_page import Gpu, build_use, use_data


class Surroundings(NamedTuple):
    """The state of a cluster, as pages show it: not from a study's journal.

    Attributes
    ----------
    outlook : what is known of workers that are not there yet.
    used : GPU-hours of the cluster's Slurm jobs, of those that they may use.
    jobs : rows of the table of Slurm jobs.
    gpus : what workers say of their GPUs.
    """

    outlook: str = ""
    used: str = ""
    jobs: Sequence[Sequence[str]] = ()
    gpus: Sequence[Gpu] = ()


class PageKind(NamedTuple):
    """A kind of page: its path and title, its data, its figures.

    Attributes
    ----------
    sees : the part of the surroundings that it shows.
    is_behind : True while it has more to compute, also if nothing new was read.
    """

    path: str
    title: str
    data: Callable[[WatchedStudy, Surroundings, TableView], PageData]
    build: Callable[[PageData], Page]
    sees: Callable[[Surroundings], object] = lambda around: None
    is_behind: Callable[[WatchedStudy], bool] = lambda study: False


PAGES = (
    PageKind(
        "daskhpo",
        "Study",
        lambda study, around, view: study_data(study.tables, around.outlook, around.used),
        build_study,
        lambda around: (around.outlook, around.used),
    ),
    PageKind(
        "daskhpo-hyperparameters",
        "Hyperparameters",
        lambda study, around, view: space_data(study.tables, study.importance()),
        build_space,
    ),
    PageKind(
        "daskhpo-workers",
        "Workers and cost",
        lambda study, around, view: use_data(study.tables, around.jobs, around.gpus, LIVE_HOURS),
        build_use,
        lambda around: (around.jobs, around.gpus),
    ),
    PageKind(
        "daskhpo-trials",
        "Trials",
        lambda study, around, view: trials_data(study.tables, view),
        build_trials,
    ),
    PageKind(
        "daskhpo-population",
        "Population",
        lambda study, around, view: population_data(study.tables),
        build_population,
    ),
    PageKind(
        "daskhpo-advice",
        "Advice",
        lambda study, around, view: advice_data(study.tables, study.alternatives()),
        build_advice,
        is_behind=lambda study: study.is_replaying,
    ),
)
# Single plots, which JupyterLab's extension for Dask opens beside a notebook: page, panel.
SINGLE = {
    "best-so-far": ("daskhpo", "best"),
    "learning-curves": ("daskhpo", "curves"),
    "rungs": ("daskhpo", "rungs"),
    "slots": ("daskhpo", "slots"),
    "parallel-coordinates": ("daskhpo-hyperparameters", "parallel"),
    "importance": ("daskhpo-hyperparameters", "importance"),
    "timeline": ("daskhpo-workers", "timeline"),
}
