"""A cluster whose dashboard shows studies, and how a test finds what a page shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daskhpo.core.objective import Objective
from daskhpo.dashboard.server import EXTENSION, ClusterPages, show_study
from tests.browser import Page
from tests.plots.made import population, write_study

OBJECTIVE = Objective("error")
# Models of the only document on a page, by type or by name.
HELP = """
window.models = (type) => [...Bokeh.documents[0]._all_models.values()].filter((m) => m.type == type)
window.source = (...columns) =>
  models("ColumnDataSource").find((s) => columns.every((column) => column in s.data))
window.named = (name) => Bokeh.documents[0].get_model_by_name(name)
window.place = (model) => {
  const {x, y, width, height} = Bokeh.index.find_one(model).el.getBoundingClientRect()
  return [x, y, width, height]
}
window.box = (brush) => {
  const view = Bokeh.index.find_one(brush), {left, right, top, bottom} = view.bbox
  const {x, y} = view.parent.el.getBoundingClientRect()
  return [x + (left + right) / 2, y + top, y + bottom]
}
window.brushes = () => models("BoxAnnotation").filter((b) => b.editable && b.resizable == "y")
window.rowsShown = () => Bokeh.index.find_one(models("DataTable")[0]).data.index.length
window.drawn = () => source("xs").data.id[5]
window.middle = (model) => {
  const [x, y, width, height] = place(model)
  return [x + width / 2, y + height / 2]
}
const grid = () => Bokeh.index.find_one(models("DataTable")[0]).shadow_el
const centre = (el) => {
  const {x, y, width, height} = el.getBoundingClientRect()
  return [x + width / 2, y + height / 2]
}
window.rows = () => [...grid().querySelectorAll(".slick-row")]
  .sort((a, b) => a.getBoundingClientRect().y - b.getBoundingClientRect().y)
window.cells = (n) => rows().map((row) => row.children[n].innerText)
window.cell = (row, n) => centre(rows()[row].children[n])
window.heading = (text) => centre([...grid().querySelectorAll(".slick-header-column")]
  .find((el) => el.innerText.trim() == text))
window.visibleTables = () =>
  models("Div").filter((div) => div.visible && div.text.startsWith("<table>")).map((d) => d.text)
    .join(" ")
window.texts = () => models("Div").map((div) => div.text).join(" ")
"""
READY = "window.Bokeh && Bokeh.documents.length > 0 && (() => {" + HELP + "; return true})()"


class Shown:
    """A cluster whose dashboard shows two studies: a population, and one that goes on."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        write_study(folder / "population", population(), num_trials=10)
        self.rest = write_study(folder / "net", num_trials=120, share=0.6)
        for name in ("population", "net"):
            cluster.sync(self._show, folder / name)

    async def _show(self, directory: Path) -> None:
        show_study(self.cluster.scheduler, directory, OBJECTIVE)

    @property
    def pages(self) -> ClusterPages:
        pages: ClusterPages = self.cluster.scheduler.extensions[EXTENSION]
        return pages

    def go_on(self, n: int) -> None:
        """Write the next records of the study that goes on."""
        with (self.folder / "net" / "journal.jsonl").open("a") as file:
            file.write("".join(f"{line}\n" for line in self.rest[:n]))
        del self.rest[:n]

    def address(self, path: str, **arguments: str) -> str:
        port = self.cluster.scheduler.http_server.port
        given = "&".join(f"{key}={value}" for key, value in arguments.items())
        return f"http://127.0.0.1:{port}/{path}" + (f"?{given}" if given else "")

    def open(self, page: Page, path: str, **arguments: str) -> None:
        """Open a page and wait until it shows data."""
        page.open(self.address(path, token=self.pages.token, **arguments))
        page.wait_for(READY)
        page.wait_for("Bokeh.documents[0]._all_models.size > 20 || texts().includes('evidence')")
