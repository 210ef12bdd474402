"""Pictures of live pages for ``docs/how-to/watch.md``.

The cluster, the studies, the dashboard and the browser are real. What trials report is made of a
formula, and instead of training they sleep.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client, LocalCluster
from PIL import Image

from daskhpo import Study
from daskhpo.core.random import rng
from daskhpo.core.scheduler import Scheduler
from daskhpo.dashboard.server import page_of
from daskhpo.schedulers import PBT
from daskhpo.space import Categorical, Integer, Real
from tests.browser import Browser, Page, chromium

FOLDER = Path(__file__).parents[2] / "docs/images"
SLOTS, MAX_T, UNIT_SECONDS = 8, 27, 0.15
SPACE: dict[str, Any] = {
    "lr": Real(1e-4, 1.0, log=True),
    "weight_decay": Real(1e-6, 1e-2, log=True),
    "dropout": Real(0.0, 0.6),
    "layers": Integer(2, 8),
    "optimizer": Categorical(["sgd", "adam", "lamb"]),
}
READY = "window.Bokeh && Bokeh.documents.length > 0"
BUILT = "!Bokeh.documents[0].roots()[0].children.some((c) => (c.text || '').startsWith('reading'))"
MODELS = "(type) => [...Bokeh.documents[0]._all_models.values()].filter((m) => m.type == type)"


class Diverged(Exception):
    """The loss of a trial is not finite."""


def floor(config: dict[str, Any]) -> float:
    """Return the error to which a training with this configuration falls."""
    lr, decay = math.log10(config["lr"]), math.log10(config["weight_decay"])
    return float(
        0.06
        + 0.07 * (lr + 1.3) ** 2
        + 0.012 * (decay + 4) ** 2
        + 0.5 * (config["dropout"] - 0.2) ** 2
        + {"sgd": 0.03, "adam": 0.0, "lamb": 0.08}[config["optimizer"]]
    )


def wait_and_report(config: dict[str, Any], trial: Any) -> None:
    """Report the errors of a made-up network."""
    noise = rng(trial.seed, "noise").normal(scale=0.006, size=4 * MAX_T)
    error = trial.checkpoint or 1.0
    for n in range(trial.resource, trial.max_t):
        time.sleep(UNIT_SECONDS * (0.6 + config["layers"] / 10))
        if config["lr"] > 0.6 and n > 1:
            raise Diverged(f"the loss is NaN in epoch {n}: lr={config['lr']:.3g}")
        error += (floor(config) - error) * (0.25 + 0.08 * math.log10(config["lr"] * 1e4))
        trial.report({"error": error + noise[n]}, state=lambda error=error: error)


@dataclass(frozen=True)
class Running:
    """A study that runs: its directory, and the address of its cluster's dashboard."""

    directory: Path
    port: int

    def address(self, path: str) -> str:
        """Return the address of a page, with the token."""
        token = page_of(self.directory).partition("?")[2]
        return f"http://127.0.0.1:{self.port}/{path}?{token}"


@contextmanager
def running(
    name: str,
    seconds: float,
    scheduler: Scheduler | None = None,
    num_trials: int | None = None,
    space: dict[str, Any] = SPACE,
) -> Iterator[Running]:
    """Run a study, and continue when it has lasted some seconds."""
    with (
        TemporaryDirectory(prefix="runs-") as folder,
        LocalCluster(
            n_workers=SLOTS,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        max_t = None if scheduler else MAX_T
        study = Study(
            wait_and_report,
            space,
            "error",
            scheduler=scheduler,
            storage=folder,
            name=name,
            max_t=max_t,
        )
        handle = study.start(num_trials=num_trials, time_budget="1h", client=client, progress=False)
        time.sleep(seconds)
        yield Running(study.path, cluster.scheduler.http_server.port)
        handle.stop()
        handle.wait()


def shoot(
    browser: Browser,
    address: str,
    path: Path,
    height: int,
    width: int = 1280,
    act: Callable[[Page], None] = lambda page: None,
) -> None:
    """Open a page, let it follow the study for a while, and take its picture."""
    with browser.page(width, height) as page:
        page.open(address)
        page.wait_for(READY, 200)
        page.run(f"void (window.models = {MODELS})")
        page.wait_for(BUILT, 200)
        act(page)
        time.sleep(4)
        page.screenshot(path)
        with Image.open(path) as picture:
            few = picture.convert("RGB").quantize(
                256, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE
            )
        few.save(path, optimize=True)  # in a third of the bytes
        if page.problems:
            print(path.name, page.problems)


def compare_two(page: Page) -> None:
    """Select the best two trials of the table."""
    page.wait_for("models('DataTable').length == 1")
    page.run(
        "(() => { const s = models('DataTable')[0].source, v = Array.from(s.data.value);"
        " const order = v.map((x, i) => i).filter((i) => v[i] == v[i]).sort((a, b) => v[a] - v[b]);"
        " s.selected.indices = order.slice(0, 2) })()"
    )


def wait_for_replay(page: Page) -> None:
    """Wait until the page says what other schedulers would have cost."""
    page.wait_for("!models('Div').some((div) => div.text.includes('being replayed'))", 200)


PICTURES: dict[str, tuple[str, int, Callable[[Page], None]]] = {
    "study": ("daskhpo", 860, lambda page: None),
    "hyperparameters": ("daskhpo-hyperparameters", 1000, lambda page: None),
    "workers": ("daskhpo-workers", 1000, lambda page: None),
    "trials": ("daskhpo-trials", 900, compare_two),
    "advice": ("daskhpo-advice", 460, wait_for_replay),
}


def main() -> None:
    """Write all pictures."""
    with chromium() as browser:
        with running("digits", 75) as study:
            for name, (page, height, act) in PICTURES.items():
                shoot(browser, study.address(page), FOLDER / f"live-{name}.png", height, act=act)
        members = PBT(60, 5, ["lr", "weight_decay"])
        with running("population", 40, members, num_trials=SLOTS) as study:
            path = FOLDER / "live-population.png"
            shoot(browser, study.address("daskhpo-population"), path, 800)
    for path in sorted(FOLDER.glob("live-*.png")):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
