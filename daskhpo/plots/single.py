"""One plot of a study by itself."""

from __future__ import annotations

from typing import Any

from daskhpo.plots.importance import importance
from daskhpo.plots.population_page import build_population, population_data
from daskhpo.plots.space_page import build_space, space_data
from daskhpo.plots.study_page import build_study, study_data
from daskhpo.plots.tables import StudyTables
from daskhpo.plots.use_page import build_use, use_data


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
