"""Trials as runs of Weights & Biases, or of a library with the same interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.continued import Bookmark
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.arguments import check_int, check_text, shown
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.libraries import need
from daskhpo.core.types import Status, TrialId

# W&B's watching of this process says nothing about trials, which run in others.
RUN_SETTINGS = {
    "console": "off",
    "silent": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
}


class WandbLogger(Callback):
    """One run of Weights & Biases per trial; the study is their group.

    Only the process of the coordinator logs, so compute nodes need no network. Without one there
    either, give ``mode="offline"`` and run ``wandb sync`` later on the folders in ``wandb`` in the
    study's directory. A session that resumes a study continues the runs.

    Parameters
    ----------
    project : name of the project.
    trials : ``"all"``: log each trial while it runs. ``"finished"``: log it at its end, which is
        better for thousands of short trials. An int: log only so many of the best, at the end.
    module : a library with the interface of W&B, such as ``"trackio"``.
    **options : for its ``init``, such as ``mode``, ``entity`` or ``tags``.

    Raises
    ------
    MissingLibrary : the library is not installed.
    """

    own_thread = True

    def __init__(
        self,
        project: str = "daskhpo",
        *,
        trials: Literal["all", "finished"] | int = "all",
        module: str = "wandb",
        **options: Any,
    ) -> None:
        self._project = check_text("project", project)
        if trials not in ("all", "finished"):
            if isinstance(trials, str):
                raise InvalidArgument(
                    f"trials={shown(trials)} must be 'all', 'finished', or an int: the number of "
                    "the best trials to log"
                )
            trials = check_int("trials", trials, at_least=1)
        self._trials, self._options = trials, options
        self._module_name = check_text("module", module)
        for given in ("id", "group", "config", "resume", "reinit"):
            if given in options:
                raise InvalidArgument(
                    f"options: {given}= is set for each trial, and cannot be given"
                )
        need(self._module_name, "wandb" if module == "wandb" else None)

    def on_study_start(self, info: StudyInfo) -> None:
        self._module = import_module(self._module_name)
        self._info = info
        self._mark = Bookmark(info.directory / f"{self._module_name}.json")
        self._best = f"best/{info.objective.metric}"
        self._open: dict[TrialId, Any] = {}
        self._waiting: dict[TrialId, list[dict[str, Any]]] = {}  # rows of trials that run
        self._ended: list[tuple[float, FrozenTrial, list[dict[str, Any]]]] = []

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        row = {**report.metrics, "resource": report.resource, self._best: trial.best_value}
        if trial.n_exploits:  # population based training has changed it
            row |= {
                f"config/{n}": v for n, v in trial.config.items() if isinstance(v, (int, float))
            }
        if self._trials != "all":
            self._waiting.setdefault(trial.id, []).append(row)
        elif self._mark.is_new(report):
            self._run(trial).log(row)

    def on_trial_end(self, trial: FrozenTrial) -> None:
        is_new = self._mark.is_new_end()
        rows = self._waiting.pop(trial.id, [])
        match self._trials:
            case "all" if is_new:
                self._finish(trial)
            case "finished" if is_new:
                self._log(trial, rows)
            case int(k) if trial.best_value is not None:
                loss = self._info.objective.loss({self._info.objective.metric: trial.best_value})
                before = [e for e in self._ended if e[1].id == trial.id]  # it was resumed
                rows = [*(row for entry in before for row in entry[2]), *rows]
                others = [entry for entry in self._ended if entry not in before]
                self._ended = sorted([*others, (loss, trial, rows)], key=lambda entry: entry[0])[:k]

    def on_tick(self, study: StudySummary) -> None:
        self._mark.save()

    def on_study_end(self, study: StudySummary) -> None:
        for _, trial, rows in self._ended:
            if str(trial.id) not in self._mark.runs:
                self._mark.runs[str(trial.id)] = "logged"
                self._log(trial, rows)
        for run in self._open.values():  # unfinished; a session that resumes them continues
            run.finish()
        self._open = {}
        self._mark.save(now=True)

    def _log(self, trial: FrozenTrial, rows: list[dict[str, Any]]) -> None:
        run = self._run(trial)
        for row in rows:
            run.log(row)
        self._finish(trial)

    def _run(self, trial: FrozenTrial) -> Any:
        """Return the run of a trial; it is begun or continued if it is not open."""
        if (run := self._open.get(trial.id)) is None:
            keywords: dict[str, Any] = {
                "project": self._project,
                "group": self._info.name,
                "name": f"{self._info.name}-{trial.id}",
                "id": f"{self._mark.id}-{trial.id}",
                "config": {**trial.config, "trial": trial.id, "bracket": trial.bracket},
                "dir": str(self._info.directory),
                "resume": "allow",
                "reinit": "create_new",  # many at a time
                "settings": RUN_SETTINGS,
            }
            run = _call(self._module.init, keywords | self._options)
            if (define := getattr(run, "define_metric", None)) is not None:
                define("*", step_metric="resource")
            self._open[trial.id] = run
        return run

    def _finish(self, trial: FrozenTrial) -> None:
        run = self._run(trial)
        facts = {"status": trial.status.value, "reason": trial.reason, "seconds": trial.seconds}
        if (summary := getattr(run, "summary", None)) is not None:
            summary.update(facts)
        _call(run.finish, {"exit_code": int(trial.status is Status.FAILED)})
        del self._open[trial.id]


def _call(function: Callable[..., Any], keywords: Mapping[str, Any]) -> Any:
    """Call a function with those of the keywords that it has."""
    parameters = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return function(**keywords)
    return function(**{name: value for name, value in keywords.items() if name in parameters})
