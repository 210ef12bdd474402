"""Find a learning-rate schedule, fit a multistep one, train with both."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from distributed import Client, LocalCluster

from daskhpo import Study
from daskhpo.core.scheduler import Scheduler
from daskhpo.results.figures import plot_genealogy, plot_schedule
from daskhpo.results.multistep import MultiStep
from daskhpo.results.result import Result
from daskhpo.schedulers import FIFO, PBT, PBTReplay
from daskhpo.searchers import GridSearch
from experiments.adsorption.data import prepare
from experiments.adsorption.evaluate import test_error
from experiments.adsorption.trainable import AdsorptionNet
from experiments.pbt_schedule.profiles import PROFILES, Profile
from experiments.pbt_schedule.scheduled import ScheduledNet
from experiments.readme import Place

MAX_STEPS = 3
N_AGAIN = 3  # networks trained from scratch with each schedule that was found
SEEDS = [2, 3, 4]  # 0 and 1 were used to choose the profile


@dataclass(frozen=True)
class Runner:
    """A runner of the studies of one profile and seed; resumes existing ones."""

    profile: Profile
    seed: int
    storage: Path
    figures: Path
    client: Client

    def run(
        self,
        name: str,
        trainable: Any,
        space: dict[str, Any],
        scheduler: Scheduler,
        num_trials: int = 1,
        searcher: Any = None,
    ) -> Result:
        """Run a study, or resume it, and return its result."""
        study = Study(
            trainable,
            space,
            "val_mae",
            "min",
            scheduler=scheduler,
            searcher=searcher,
            storage=self.storage,
            name=f"{self.profile.name}-{name}-{self.seed}",
            seed=self.seed,
        )
        known = study.path.exists() and study.result().num_trials
        began = time.monotonic()
        result = (study.resume if known else study.run)(
            num_trials=num_trials, client=self.client, checkpoint="end", progress=False
        )
        seconds = time.monotonic() - began
        print(f"  {study.name}: best {result.best_value:.4f} eV, {seconds:.0f} s", flush=True)
        return result


def compare(runner: Runner) -> Iterator[dict[str, Any]]:
    """Train by each method; yield rows of the table, with errors in eV.

    Errors of selected networks (the best member, the best of several constant rates) profit from
    the selection; those of networks trained from scratch do not.
    """
    profile = runner.profile
    n_epochs = profile.population * profile.max_t
    population = runner.run(
        "pbt",
        AdsorptionNet,
        profile.space(),
        PBT(profile.max_t, profile.interval, ["lr"], compare="best"),
        profile.population,
    )
    winner = settled(population, profile.interval)
    schedule = population.schedule(winner)
    yield {"method": "PBT, its best member", "epochs": n_epochs} | errors(population, winner)
    steps = schedule.fit_multistep("lr", max_steps=MAX_STEPS)
    print(f"  {steps}", flush=True)
    draw(population, winner, steps, runner.figures / f"{profile.name}-{runner.seed}")

    space = profile.space() | {"rates": steps.values, "milestones": steps.milestones}
    del space["lr"]
    again = runner.run("multistep", ScheduledNet, space, FIFO(steps.max_t), N_AGAIN)
    yield from_scratch("fitted multistep", again, steps.max_t)

    again = runner.run("replay", AdsorptionNet, schedule.initial, PBTReplay(schedule), N_AGAIN)
    yield from_scratch("replay of the schedule", again, schedule.max_t)

    constants = runner.run(
        "constant",
        AdsorptionNet,
        profile.space(),
        FIFO(profile.max_t),
        profile.population,
        GridSearch(num_points=profile.population),
    )
    name = f"constant rate, the best of {profile.population}"
    yield {"method": name, "epochs": n_epochs} | errors(constants, constants.best_trial.id)

    again = runner.run("again", AdsorptionNet, constants.best_config, FIFO(profile.max_t), N_AGAIN)
    yield from_scratch("the best constant rate", again, profile.max_t)


def from_scratch(method: str, result: Result, epochs: int) -> dict[str, Any]:
    """Return the mean errors (eV) of all trials of a study."""
    each = pd.DataFrame(errors(result, trial) for trial in result.trials().trial)
    return {"method": f"{method}, from scratch", "epochs": epochs, **dict(each.mean())}


def errors(result: Result, trial: int) -> dict[str, float]:
    """Return errors (eV) of a trial.

    They are the validation error at its best epoch and at its last one, and the test error of the
    best epoch.
    """
    state = result.checkpoint(trial)
    return {
        "validation": state["best"]["val_mae"],
        "validation, last epoch": result.training(trial)["val_mae"].iloc[-1],
        "test": test_error(result.trial(trial).config, state),
    }


def settled(result: Result, n: int) -> int:
    """Return the member with the lowest mean error in the last ``n`` epochs.

    It is the validation error. The best single epoch is no criterion: the error jumps where the
    rate is high, and the best of hundreds of epochs is partly luck.
    """
    members = result.trials().trial
    return int(min(members, key=lambda trial: result.training(trial)["val_mae"].tail(n).mean()))


def draw(result: Result, member: int, steps: MultiStep, stem: Path) -> None:
    """Write two figures of a population and one of its members, as PNG files."""
    schedule = plot_schedule(result, "lr", steps, trial_id=member)
    schedule.savefig(f"{stem}-schedule.png", dpi=100)
    plot_genealogy(result, "lr", member).savefig(f"{stem}-genealogy.png", dpi=100)


def table(rows: pd.DataFrame) -> str:
    """Format mean ± standard deviation over the seeds as a Markdown table."""
    columns = ["validation", "validation, last epoch", "test"]
    lines = [
        f"| | epochs trained | {' | '.join(columns)} |",
        "|---|---|" + "---|" * len(columns),
    ]
    for method, of_one in rows.groupby("method", sort=False):
        cells = [
            f"{of_one[column].mean():.3f} ± {of_one[column].std(ddof=1):.3f}"
            if len(of_one) > 1
            else f"{of_one[column].iloc[0]:.3f}"
            for column in columns
        ]
        lines.append(f"| {method} | {of_one['epochs'].iloc[0]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(profile: Profile, rows: pd.DataFrame) -> str:
    """Return the results for the README: the table, and the figures of each seed."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    versions = ", ".join(f"{n} {version(n)}" for n in ("daskhpo", "distributed", "torch", "numpy"))
    seeds = list(dict.fromkeys(rows["seed"]))
    parts = [
        f"Profile `{profile.name}`, seeds {', '.join(map(str, seeds))}, {date.today()}; {machine}; "
        f"Python {platform.python_version()}, {versions}. Mean absolute error, eV: mean ± "
        "standard deviation over the seeds.",
        table(rows),
    ]
    for seed in seeds:
        for what in ("schedule", "genealogy"):
            parts.append(f"![Seed {seed}: {what}](figures/{profile.name}-{seed}-{what}.png)")
    return "\n\n".join(parts)


def main() -> None:
    """Run all studies of all seeds on this machine; write the README's results."""
    options = _options()
    profile = PROFILES[options.profile]
    try:
        place = Place(options.readme, profile.name)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    prepare(profile.data)
    figures = options.readme.parent / "figures"
    for folder in (options.storage, figures):
        folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with (
        LocalCluster(threads_per_worker=1, n_workers=options.workers, dashboard_address=":0") as c,
        Client(c, set_as_default=False) as client,
    ):
        for seed in options.seeds:
            print(f"seed {seed}", flush=True)
            runner = Runner(profile, seed, options.storage, figures, client)
            rows += [{"seed": seed, **each} for each in compare(runner)]
    frame = pd.DataFrame(rows)
    frame.to_csv(options.storage / f"{profile.name}-errors.csv", index=False)
    place.fill(report(profile, frame))
    print(f"\n{table(frame)}\n\nwrote {options.readme}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="laptop")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--storage", type=Path, default=Path("runs/pbt_schedule"))
    parser.add_argument("--readme", type=Path, default=Path(__file__).parent / "README.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
