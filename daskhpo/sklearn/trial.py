"""One candidate as a trial: an estimator for each split, trained unit by unit."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskhpo.core.types import Config
from daskhpo.sklearn.candidates import Candidates
from daskhpo.sklearn.dataset import DataSet, Split, kept, n_rows
from daskhpo.trainable import Trainable

SAMPLES = "n_samples"


@dataclass(frozen=True)
class PartialFit:
    """A unit is one call of ``partial_fit`` on one block, in an order by ``seed``."""

    seed: int


@dataclass(frozen=True)
class Growing:
    """A unit is a share of a parameter's largest value, or of the training samples.

    Attributes
    ----------
    name : of the parameter, or `SAMPLES`.
    most : its value after ``max_t`` units; None: all samples.
    warm_start : name of the parameter by which a fit continues the last one; None: each fit
        begins at the start, so there is one at ``milestones`` alone.
    milestones : units after which the scheduler decides; empty: after every one.
    """

    name: str
    most: int | None
    warm_start: str | None
    milestones: frozenset[int]
    seed: int

    def amount(self, unit: int, max_t: int, n_samples: int) -> int:
        """Return the value after ``unit`` units."""
        most = n_samples if self.most is None else self.most
        return max(1, math.ceil(most * unit / max_t))


@dataclass(frozen=True)
class Task:
    """Everything that all trials of a search share.

    Attributes
    ----------
    splits : at least one.
    scorer : scikit-learn's; several scores if it returns a dict.
    metric : name of the score by which candidates are compared.
    fixed : fit parameters that are not aligned with rows.
    patience : units without an improvement of more than ``tol`` after which a trial completes;
        0: no limit.
    """

    estimator: Any
    candidates: Candidates
    data: DataSet
    splits: tuple[Split, ...]
    scorer: Any
    metric: str
    resource: PartialFit | Growing
    fixed: Mapping[str, Any]
    patience: int
    tol: float

    def new_estimator(self, params: Mapping[str, Any]) -> Any:
        from sklearn.base import clone

        return clone(self.estimator).set_params(
            **{name: clone(value, safe=False) for name, value in params.items()}
        )

    def train(self, estimator: Any, part: Mapping[str, Any], partial: bool = False) -> None:
        """Fit an estimator to a part of the data."""
        given = {name: part[name] for name in self.data.aligned} | dict(self.fixed)
        fit = estimator.partial_fit if partial else estimator.fit
        fit(part["X"], *([part["y"]] if self.data.has_y else ()), **given)

    def block_of(self, unit: int) -> int:
        """Return the block of a unit: each block once a pass, in a new order each pass."""
        assert isinstance(self.resource, PartialFit)
        turn, place = divmod(unit - 1, self.data.n_blocks)
        numbers = np.random.default_rng((self.resource.seed, turn))
        return int(numbers.permutation(self.data.n_blocks)[place])


class CandidateTrial(Trainable):
    """A trial of a search; a subclass has its `Task`."""

    task: Task

    def setup(self, config: Config) -> None:
        params = self.task.candidates.params(config)
        self._models = [self.task.new_estimator(params) for _ in self.task.splits]
        self._scores: list[float] = []
        self._metrics: dict[str, float] = {}

    def step(self) -> Mapping[str, Any]:
        unit = self.trial.resource + 1
        task = self.task
        if self._is_due(unit):
            began = time.perf_counter()
            amount = self._partial_fit(unit) if self._is_partial else self._fit(unit)
            fitted = time.perf_counter()
            scores = self._score()
            seconds = {
                "fit_time": (fitted - began) / len(task.splits),
                "score_time": (time.perf_counter() - fitted) / len(task.splits),
            }
            self._metrics = {**scores, **seconds, "n_resources": amount}
        self._scores.append(self._metrics[task.metric])
        if task.patience and self._has_settled():
            self.trial.complete()
        return self._metrics

    def save_checkpoint(self) -> bytes:
        return pickle.dumps((self._models, self._scores, self._metrics))

    def load_checkpoint(self, state: bytes) -> None:
        self._models, self._scores, self._metrics = pickle.loads(state)

    @property
    def _is_partial(self) -> bool:
        return isinstance(self.task.resource, PartialFit)

    def _is_due(self, unit: int) -> bool:
        resource = self.task.resource
        if isinstance(resource, PartialFit) or resource.warm_start is not None:
            return True
        return not resource.milestones or unit in resource.milestones or not self._metrics

    def _partial_fit(self, unit: int) -> int:
        data, block = self.task.data, self.task.block_of(unit)
        for number, (model, split) in enumerate(zip(self._models, self.task.splits, strict=True)):
            key = (data.folder, number, "block", block)
            part = kept(key, lambda rows=split.train: data.block(block, rows))  # type: ignore[misc]
            if n_rows(part["X"]):  # else all of the block is in the split's test part
                self.task.train(model, part, partial=True)
        return unit

    def _fit(self, unit: int) -> int:
        resource, data = self.task.resource, self.task.data
        assert isinstance(resource, Growing)
        amount = 0
        for number, (model, split) in enumerate(zip(self._models, self.task.splits, strict=True)):
            amount = resource.amount(unit, self.trial.max_t, len(split.train))
            rows = split.train
            if resource.name == SAMPLES:
                order = np.random.default_rng((resource.seed, number)).permutation(rows)
                rows = np.sort(order[:amount])
            else:
                model.set_params(**{resource.name: amount})
            if resource.warm_start is not None:
                model.set_params(**{resource.warm_start: True})
            key = (data.folder, number, "train", len(rows))
            self.task.train(model, kept(key, lambda rows=rows: data.take(rows)))  # type: ignore[misc]
        return amount

    def _score(self) -> dict[str, float]:
        task, data = self.task, self.task.data
        by_name: dict[str, list[float]] = {}
        for number, (model, split) in enumerate(zip(self._models, task.splits, strict=True)):
            key = (data.folder, number, "test")
            part = kept(key, lambda rows=split.test: data.take(rows))  # type: ignore[misc]
            found = task.scorer(model, part["X"], *([part["y"]] if data.has_y else ()))
            for name, value in (found if isinstance(found, dict) else {"score": found}).items():
                by_name.setdefault(name, []).append(float(value))
        splits = {
            f"split{number}_{name}": value
            for name, values in by_name.items()
            for number, value in enumerate(values)
        }
        return {name: float(np.mean(values)) for name, values in by_name.items()} | splits

    def _has_settled(self) -> bool:
        """Return True if the last ``patience`` units brought no more than ``tol``.

        The first ``patience`` units are compared with the first of them, as in dask-ml.
        """
        if len(self._scores) < self.task.patience:
            return False
        window = self._scores[-self.task.patience - 1 :]
        return max(window) - window[0] <= self.task.tol  # never, if tol is nan


def refitted(task: Task, params: Mapping[str, Any], resource: int, max_t: int) -> tuple[Any, float]:
    """Return an estimator trained with all rows for some units, and the seconds."""
    began = time.perf_counter()
    model = task.new_estimator(params)
    if isinstance(task.resource, PartialFit):
        for unit in range(1, resource + 1):
            task.train(model, task.data.block(task.block_of(unit)), partial=True)
    else:
        growing = task.resource
        if growing.name != SAMPLES:
            amount = growing.amount(resource, max_t, task.data.n_rows)
            model.set_params(**{growing.name: amount})
        task.train(model, task.data.take(None))
    return model, time.perf_counter() - began
