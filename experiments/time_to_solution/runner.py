"""A runner of a profile's studies, one after another; resumes interrupted ones."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskhpo import Study, load_study
from daskhpo.callbacks import Callback, StudySummary
from daskhpo.core.errors import CheckpointMissing, DaskhpoError
from daskhpo.engine.session import study_records
from experiments.adsorption.data import load
from experiments.adsorption.evaluate import test_error
from experiments.adsorption.model import build
from experiments.adsorption.trainable import AdsorptionNet
from experiments.time_to_solution import machine
from experiments.time_to_solution.methods import Method, in_turn
from experiments.time_to_solution.profiles import Profile

TEST_FILE = "test.json"
ENOUGH = 0.01  # seconds of the budget that may be missing, as journals have microseconds
N_LINES = 6  # lines of progress per study


@dataclass(frozen=True)
class Runner:
    """A runner of the studies of one profile on one cluster."""

    profile: Profile
    storage: Path
    client: Any

    def run(self, seeds: range) -> list[str]:
        """Run all methods, seed by seed; return descriptions of failures.

        Raises
        ------
        KeyboardInterrupt : the user stopped a study. It was closed properly and can be resumed.
        """
        jobs = [(seed, method) for seed in seeds for method in in_turn(seed)]
        left = {job: self.profile.seconds - spent(self._path(*job)) for job in jobs}
        problems = []
        for number, (seed, method) in enumerate(jobs, start=1):
            head = f"[{number:2} of {len(jobs)}] seed {seed}  {method.label:21}"
            if left[seed, method] <= ENOUGH:
                say(f"{head} is finished")
                self._test(seed, method)
                continue
            say(f"{head} {left[seed, method]:.0f} s to run")
            try:
                self._train(seed, method, left[seed, method])
            except DaskhpoError as error:
                problems.append(f"{method.label}, seed {seed}: {error}")
                say(f"    failed: {error}")
            left[seed, method] = 0.0
            say(f"    about {sum(max(0.0, s) for s in left.values()) / 60:.1f} min left")
        return problems

    def study(self, seed: int, method: Method) -> Study:
        """Define the study of a method."""
        task = self.profile.task
        return Study(
            AdsorptionNet,
            task.space(),
            "val_mae",
            "min",
            scheduler=method.scheduler(task),
            searcher=method.searcher(),
            storage=self.storage,
            name=study_name(self.profile, seed, method),
            seed=seed,
        )

    def _path(self, seed: int, method: Method) -> Path:
        return self.storage / study_name(self.profile, seed, method)

    def _train(self, seed: int, method: Method, seconds: float) -> None:
        study = self.study(seed, method)
        known = study.path.exists() and study.result().num_trials
        with machine.watched(self.client, study.path):
            result = (study.resume if known else study.run)(
                time_budget=seconds,
                client=self.client,
                resources={"cpu": 1, "gpu": self.profile.gpus} if self.profile.gpus else None,
                checkpoint=method.checkpoint,
                callbacks=[Lines(seconds / N_LINES)],
                progress=False,
            )
        if result.stop_reason == "Ctrl-C":
            raise KeyboardInterrupt
        best = f"best {result.best_value:.4f} eV" if result.has_reports else "no report"
        say(f"    {result.num_trials} trials, {best}")
        self._test(seed, method)

    def _test(self, seed: int, method: Method) -> None:
        """Evaluate the best trial of a finished study on the test part, once."""
        path = self._path(seed, method)
        if (path / TEST_FILE).exists():
            return
        result = load_study(path)
        if not result.has_reports:
            return
        best = result.best_trial
        try:
            state = result.checkpoint()
        except CheckpointMissing as error:
            say(f"    no test error: {error}")
            return
        found = {
            "trial": best.id,
            "epoch": state["best"]["epoch"],
            "validation": state["best"]["val_mae"],
            "test": test_error(best.config, state),
        }
        (path / TEST_FILE).write_text(json.dumps(found) + "\n")


class Lines(Callback):
    """A callback that prints progress as plain lines."""

    def __init__(self, seconds: float) -> None:
        self._every = seconds
        self._next = math.nan

    def on_tick(self, study: StudySummary) -> None:
        now = time.monotonic()
        if math.isnan(self._next):
            self._next = now + self._every
        if now < self._next or study.best is None:
            return
        self._next = now + self._every
        best = study.best.best_value
        say(f"    {study.seconds:6.0f} s  {study.n_trials:4} trials, best {best:.4f} eV")


def study_name(profile: Profile, seed: int, method: Method) -> str:
    """Return the name of a study, and of its directory."""
    return f"{profile.name}-{seed}-{method.name}"


def spent(path: Path) -> float:
    """Return the seconds that a study has run in all sessions; 0: never started."""
    return max((record.seconds for record in study_records(path)), default=0.0)


def warm_up(client: Any, profile: Profile) -> None:
    """Let each worker load the data and take a step, before any study starts."""
    for outcome in client.run(_step, profile, on_error="return").values():
        if isinstance(outcome, BaseException):
            raise outcome


def _step(profile: Profile) -> None:
    """Train a small network for one batch in a worker, because the first step is slow."""
    import torch

    torch.set_num_threads(1)
    device = "cuda:0" if profile.gpus and torch.cuda.is_available() else "cpu"
    sizes = {"embedding": 4, "conv_layers": 1, "fc_size": 8, "fc_layers": 1}
    data, net = load(profile.task.space(), device), build(sizes).to(device)
    batch = data.batch(data.parts["train"][:40])
    optimiser = torch.optim.Adam(net.parameters())
    (net(batch) - batch.target).abs().mean().backward()
    optimiser.step()


def say(text: str) -> None:
    """Print a line and flush it, also into a pipe or a file."""
    print(text, flush=True)
