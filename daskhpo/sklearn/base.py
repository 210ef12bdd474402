"""The base of all searches: ``fit``."""

from __future__ import annotations

import contextlib
import inspect
import math
import numbers
import pickle
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, is_classifier
from sklearn.metrics import check_scoring, get_scorer
from sklearn.model_selection import ParameterGrid, ParameterSampler, ShuffleSplit, check_cv
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from daskhpo.core.arguments import check_int, check_path, shown
from daskhpo.core.errors import InvalidArgument, StudyFailed
from daskhpo.core.scheduler import Scheduler
from daskhpo.executors.dask.local import local_cluster
from daskhpo.results.result import Result
from daskhpo.searchers.random import RandomSearch
from daskhpo.sklearn.best import OfBestEstimator
from daskhpo.sklearn.candidates import Candidates, drawn, proposed
from daskhpo.sklearn.dataset import DataSet, Split, stored
from daskhpo.sklearn.tables import by_model, cv_results, history
from daskhpo.sklearn.trial import SAMPLES, CandidateTrial, Growing, PartialFit, Task, refitted
from daskhpo.study.study import Study

HELD_OUT = 0.2  # share of the rows, at most
DATA = "_data"  # constant of a stored study: what it was trained with


@dataclass(frozen=True)
class Plan:
    """The number of candidates, and how far each of them trains.

    Attributes
    ----------
    n_candidates : number of candidates that are drawn; None: the whole grid.
    scheduler : decides how far each is trained.
    milestones : units after which it decides; empty: after each one.
    """

    n_candidates: int | None
    scheduler: Scheduler
    milestones: frozenset[int] = frozenset()


class BaseSearch(OfBestEstimator, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """A search over an estimator's parameters; :mod:`daskhpo.sklearn` has its kinds.

    Attributes
    ----------
    best_estimator_, best_params_, best_score_, best_index_, scorer_ : as in scikit-learn.
    n_splits_, multimetric_, refit_time_ : as in scikit-learn.
    cv_results_ : as in scikit-learn, with one entry for each candidate: its score when it ended.
    n_iter_ : units of training of the best candidate.
    history_, model_history_, metadata_ : as in dask-ml: a row for each score, by model, and totals.
    study_path_ : directory of the study, or None.
    """

    # -- what each kind of search says ---------------------------------------------------------

    @abstractmethod
    def _plan(self) -> Plan:
        """Return what this search does, from checked arguments."""

    def _bracket(self, number: int) -> int | None:
        """Return a bracket's name by its number in the study; None: there are no brackets."""
        return None

    def _metadata(self, models: Mapping[Any, list[dict[str, Any]]]) -> dict[str, Any]:
        """Return ``metadata_`` from the history of each model."""
        calls = [rows[-1]["partial_fit_calls"] for rows in models.values()]
        return {
            "n_models": len(models),
            "partial_fit_calls": sum(calls),
            "max_iter": max(calls),
        }

    @property
    def _distributions(self) -> Any:
        return self.parameters

    # -- fit -----------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, *, groups: Any = None, **fit_params: Any) -> BaseSearch:
        """Search, and fit the best candidate to all rows.

        Trials run on the current Dask client; without one, in worker processes on this machine,
        which end with the search.

        Parameters
        ----------
        X : of shape (n_samples, n_features): array, Dask array, data frame of pandas or Dask,
            sparse matrix, or list. The chunks of a Dask array are never all in one memory, unless
            the estimator has no ``partial_fit``.
        y : labels or targets; None for an estimator that learns without.
        groups : for the splitter ``cv``.
        **fit_params : for the estimator's ``fit`` or ``partial_fit``; those with one entry for each
            row, such as sample weights, are split with the rows.

        Raises
        ------
        ValueError : an argument is not valid, or every candidate failed.
        """
        plan = self._plan()
        metric, scorer = self._scorer()
        candidates = self._candidates(plan)
        resource = self._resource(plan)
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(_client(self.n_jobs))
            folder = self._folder(stack)
            aligned = _aligned(X, fit_params)
            files = folder.parent / f"{folder.name}-data"
            stack.callback(shutil.rmtree, files, ignore_errors=True)
            data, labels = stored(client, files, X, y, aligned)
            fixed = {name: value for name, value in fit_params.items() if name not in aligned}
            if isinstance(resource, PartialFit) and labels is not None:
                names = inspect.signature(self.estimator.partial_fit).parameters
                if "classes" in names:
                    fixed.setdefault("classes", np.unique(labels))
            task = Task(
                estimator=self.estimator,
                candidates=candidates,
                data=data,
                splits=self._splits(data, labels, groups),
                scorer=scorer,
                metric=metric,
                resource=resource,
                fixed=fixed,
                patience=self._n_patience(plan),
                tol=math.nan if self.tol is None else self.tol,
            )
            of_data = {} if self.storage is None else {DATA: _fingerprint(X, labels, aligned)}
            result = self._run(plan, task, folder, client, of_data)
            self._learn(plan, task, result, client)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(best := getattr(self, "best_estimator_", None), name):
                setattr(self, name, getattr(best, name))
        return self

    def _folder(self, stack: contextlib.ExitStack) -> Path:
        if self.storage is not None:
            self.study_path_: Path | None = check_path("storage", self.storage).absolute()
            return self.study_path_
        self.study_path_ = None
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="daskhpo-"))
        return Path(temporary) / "search"

    def _scorer(self) -> tuple[str, Any]:
        """Return the name of the score that counts, and the scorer."""
        scoring = self.scoring
        if scoring is None or isinstance(scoring, str) or callable(scoring):
            scorer = check_scoring(self.estimator, scoring=scoring)
            by_name = callable(scoring) and isinstance(self.refit, str)
            return (self.refit if by_name else "score"), scorer
        if not isinstance(scoring, Mapping):
            scoring = {name: name for name in scoring}
        if self.refit not in scoring:
            raise InvalidArgument(
                f"refit={shown(self.refit)} must be one of the scores {[*scoring]}: the one by "
                "which candidates are compared"
            )
        return self.refit, _Scores({name: get_scorer(each) for name, each in scoring.items()})

    def _candidates(self, plan: Plan) -> Candidates:
        of, n = self._distributions, plan.n_candidates
        if isinstance(self.resource, str) and any(
            self.resource in each for each in ([of] if isinstance(of, Mapping) else of)
        ):
            raise InvalidArgument(
                f"resource={self.resource!r} is also searched: remove it from the parameters"
            )
        if self.searcher is not None:
            if n is None:
                raise InvalidArgument(
                    "searcher= proposes candidates: give their number, not 'grid'"
                )
            return proposed(of)
        if n is None:
            return drawn(of, [*ParameterGrid(of)])
        return drawn(of, [*ParameterSampler(of, n, random_state=self.random_state)])

    def _resource(self, plan: Plan) -> PartialFit | Growing:
        name, estimator = self.resource, self.estimator
        seed = self._seed()
        if name == "auto":
            name = "partial_fit" if hasattr(estimator, "partial_fit") else SAMPLES
        if name == "partial_fit":
            if not hasattr(estimator, "partial_fit"):
                raise InvalidArgument(
                    f"resource='partial_fit', but {type(estimator).__name__} has no partial_fit: "
                    "give 'n_samples' or the name of a parameter"
                )
            return PartialFit(seed)
        if name == SAMPLES:
            return Growing(name, None, None, plan.milestones, seed)
        params = estimator.get_params()
        if name not in params:
            raise InvalidArgument(
                f"resource={shown(name)} must be 'auto', 'partial_fit', 'n_samples' or a parameter "
                f"of {type(estimator).__name__}"
            )
        most = check_int(
            f"the estimator's {name}", params[name], at_least=1, why="the search grows up to it"
        )
        warm = f"{name.rpartition('__')[0]}__warm_start".removeprefix("__")
        return Growing(name, most, warm if warm in params else None, plan.milestones, seed)

    def _seed(self) -> int:
        seed = self.random_state
        if not isinstance(seed, numbers.Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        return int(seed)

    def _n_patience(self, plan: Plan) -> int:
        if self.patience is True:
            return max(plan.scheduler.max_t // 3, 2)
        patience = check_int("patience", int(self.patience), at_least=0)
        if patience == 1:
            raise InvalidArgument(
                "patience=1 always finds that the last score has not improved on itself: give "
                "2 or more"
            )
        return patience

    def _splits(self, data: DataSet, labels: Any, groups: Any) -> tuple[Split, ...]:
        if self.cv is None:
            size = min(HELD_OUT, 1 / data.n_blocks) if data.n_blocks > 1 else HELD_OUT
            size = size if self.test_size is None else self.test_size
            splitter: Any = ShuffleSplit(1, test_size=size, random_state=self._seed())
        else:
            splitter = check_cv(self.cv, labels, classifier=is_classifier(self.estimator))
        rows = np.zeros((data.n_rows, 1))
        return tuple(Split(*pair) for pair in splitter.split(rows, labels, groups))

    def _run(
        self, plan: Plan, task: Task, folder: Path, client: Any, of_data: Mapping[str, str]
    ) -> Result:
        points = [{**point, **of_data} for point in task.candidates.points]
        study = Study(
            type("SearchedCandidate", (CandidateTrial,), {"task": task}),
            {**task.candidates.space, **of_data},
            task.metric,
            "max",
            scheduler=plan.scheduler,
            searcher=RandomSearch(points) if self.searcher is None else self.searcher,
            storage=folder.parent,
            name=folder.name,
            seed=self._seed() if isinstance(self.random_state, numbers.Integral) else 0,
        )
        try:
            result = study.run(
                len(points) or plan.n_candidates,
                client=client,
                if_exists="error" if self.storage is None else "resume",
                checkpoint="auto" if self.refit else "end",
                fail_fast=self.error_score == "raise",
                progress=bool(self.verbose),
            )
        except StudyFailed as error:
            raise ValueError(f"the search has failed: {error}") from error
        failed = result.failed_trials()
        if len(failed) == result.num_trials or (failed and self.error_score == "raise"):
            raise ValueError(
                f"{len(failed)} of {result.num_trials} candidates failed. The first one:\n"
                f"{failed[0].error}"
            )
        return result

    def _learn(self, plan: Plan, task: Task, result: Result, client: Any) -> None:
        """Set the attributes that a search has after ``fit``."""
        has_brackets = self._bracket(0) is not None
        bracket: Any = self._bracket if has_brackets else None

        def model_id(trial: int, number: int) -> Any:
            return f"bracket={self._bracket(number)}-{trial}" if has_brackets else trial

        params = task.candidates.params
        self.scorer_, self.n_splits_ = task.scorer, len(task.splits)
        error_score = math.nan if self.error_score == "raise" else float(self.error_score)
        self.cv_results_ = cv_results(
            result, params, model_id, self.n_splits_, error_score, bracket
        )
        self.history_ = history(result, params, model_id, task.metric, bracket)
        self.model_history_ = by_model(self.history_)
        self.metadata_ = self._metadata(self.model_history_)
        scores = self.cv_results_[f"test_{task.metric}"]
        self.multimetric_ = "test_score" not in self.cv_results_
        chosen = self.refit(self.cv_results_) if callable(self.refit) else np.nanargmax(scores)
        self.best_index_ = int(chosen)
        self.best_score_ = float(scores[self.best_index_])
        self.best_params_ = dict(self.cv_results_["params"][self.best_index_])
        self.n_iter_ = units = int(self.cv_results_["partial_fit_calls"][self.best_index_])
        if self.refit:
            future = client.submit(
                refitted, task, self.best_params_, units, plan.scheduler.max_t, pure=False
            )
            self.best_estimator_, self.refit_time_ = future.result()
        elif self.n_splits_ == 1:
            (self.best_estimator_,), *_ = pickle.loads(result.checkpoint(self.best_index_))

    @property
    def _estimator_type(self) -> Any:  # scikit-learn before 1.6
        return getattr(self.estimator, "_estimator_type", None)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import get_tags

        tags, of = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.estimator_type = of.estimator_type
        tags.classifier_tags, tags.regressor_tags = of.classifier_tags, of.regressor_tags
        tags.transformer_tags, tags.target_tags = of.transformer_tags, of.target_tags
        tags.input_tags.pairwise, tags.input_tags.sparse = (
            of.input_tags.pairwise,
            of.input_tags.sparse,
        )
        return tags


@dataclass(frozen=True)
class _Scores:
    """Several scorers as one."""

    scorers: Mapping[str, Any]

    def __call__(self, estimator: Any, *data: Any) -> dict[str, float]:
        return {name: scorer(estimator, *data) for name, scorer in self.scorers.items()}


@contextlib.contextmanager
def _client(n_jobs: int | None) -> Iterator[Any]:
    """Yield the current Dask client, or one of worker processes on this machine."""
    from distributed import Client

    try:
        current = Client.current()
    except ValueError:
        current = None
    if current is not None:
        yield current
        return
    n = None if n_jobs in (None, -1) else check_int("n_jobs", n_jobs, at_least=1)
    with local_cluster({"cpu": 1.0}, n) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def _aligned(X: Any, fit_params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with one entry for each row."""
    if not fit_params:
        return {}
    n = _num_samples(X)
    if not isinstance(n, numbers.Integral):  # a Dask data frame's, or a chunk of unknown size
        return {}
    return {
        name: value
        for name, value in fit_params.items()
        if hasattr(value, "__len__") and not isinstance(value, (str, Mapping)) and len(value) == n
    }


def _fingerprint(*data: Any) -> str:
    """Return a text that other data do not have, but the same data in another process."""
    import joblib
    from dask.base import is_dask_collection, tokenize

    known = [tokenize(each) if is_dask_collection(each) else each for each in data]
    return str(joblib.hash(known))
