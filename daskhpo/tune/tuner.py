"""`tune.run` and `tune.Tuner`: a study made of Ray Tune's arguments."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import write_file
from daskhpo.core.arguments import check_path, shown
from daskhpo.core.domains import Domain
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import is_number
from daskhpo.core.types import CheckpointPolicy
from daskhpo.results.result import Result as StudyResult
from daskhpo.searchers import GridSearch
from daskhpo.study.study import Study
from daskhpo.tune.analysis import ExperimentAnalysis, ResultGrid, TuneError
from daskhpo.tune.library_spaces import check_own, library_space
from daskhpo.tune.logger import followers
from daskhpo.tune.messages import cannot, no_effect, say
from daskhpo.tune.schedulers import ENDLESS, FIFOScheduler, TrialScheduler, create_scheduler
from daskhpo.tune.search import BasicVariantGenerator, Searcher, described
from daskhpo.tune.space import FromFunction, Parameter, ParamSpace
from daskhpo.tune.stopper import ITERATION, Rules, StopStudy, stop_rules
from daskhpo.tune.trainable import checked, resources_of, trial_of

FOREVER = 10**9  # retries
TUNER = "tuner.pkl"


@dataclass
class CheckpointConfig:
    """Which states are written.

    Attributes
    ----------
    checkpoint_frequency : units between two of a class's; 0: when the study needs one.
    checkpoint_at_end : also at the end of each trial.
    num_to_keep, checkpoint_score_attribute, checkpoint_score_order : a study keeps the newest of
        each trial.
    """

    num_to_keep: int | None = None
    checkpoint_score_attribute: str | None = None
    checkpoint_score_order: str = "max"
    checkpoint_frequency: int = 0
    checkpoint_at_end: bool | None = None


@dataclass
class FailureConfig:
    """Consequences of an error of a trial's code; ``max_failures=-1``: always retry."""

    max_failures: int = 0
    fail_fast: bool | str = False


@dataclass
class SyncConfig:
    """Options of copies to a storage; without effect: a study has one directory."""

    upload_dir: str | None = None
    syncer: Any = None
    sync_period: float = 0
    sync_timeout: float = 0
    sync_artifacts: bool = False
    sync_on_checkpoint: bool = True


@dataclass
class RunConfig:
    """Place of a study, and options of its run."""

    name: str | None = None
    storage_path: str | None = None
    storage_filesystem: Any = None
    failure_config: FailureConfig | None = None
    checkpoint_config: CheckpointConfig | None = None
    sync_config: SyncConfig | None = None
    stop: Any = None
    callbacks: Sequence[Any] | None = None
    progress_reporter: Any = None
    verbose: int | None = None
    log_to_file: Any = False
    local_dir: str | None = None


@dataclass
class TuneConfig:
    """Method of a search, and its limits."""

    metric: str | None = None
    mode: str | None = None
    search_alg: Any = None
    scheduler: Any = None
    num_samples: int = 1
    max_concurrent_trials: int | None = None
    time_budget_s: float | timedelta | None = None
    reuse_actors: bool | None = None
    trial_name_creator: Callable[..., str] | None = None
    trial_dirname_creator: Callable[..., str] | None = None
    chdir_to_trial_dir: bool | None = None


@dataclass
class ResumeConfig:
    """Options of a continuation; without effect: unfinished trials continue."""

    unfinished: Any = None
    errored: Any = None
    finished: Any = None


@dataclass
class Plan:
    """A study, and how to run it."""

    study: Study
    params: ParamSpace
    metric: str | None
    mode: str | None
    keywords: dict[str, Any]
    stop_study: StopStudy | None
    raises: bool

    def run(self, *, if_exists: str, retry_failed: bool = False) -> ExperimentAnalysis:
        """Run it, and return what it found."""
        handle = self.study.start(
            **self.keywords,
            if_exists=if_exists,  # type: ignore[arg-type]
            retry_failed=retry_failed,
        )
        if self.stop_study is not None:
            self.stop_study.stop = handle.stop
        return self.analysis(handle.wait())

    def analysis(self, result: StudyResult) -> ExperimentAnalysis:
        """Return a result in Ray's words."""
        seed = self.study.problem.seed
        return ExperimentAnalysis(result, self.params, seed, self.metric, self.mode)


def plan(
    trainable: Any,
    config: Mapping[str, Any] | None,
    tune_config: TuneConfig,
    run_config: RunConfig,
    *,
    resources: Any = None,
    loggers: Sequence[Any] | None = None,
    client: Any = None,
) -> Plan:
    """Return the study that Ray Tune's arguments mean.

    Raises
    ------
    InvalidArgument : an argument is not valid, or cannot be meant here.
    """
    trainable = checked(trainable)
    search = described(tune_config.search_alg)
    scheduler = _scheduler(tune_config.scheduler)
    metric = _one("metric", tune_config.metric, scheduler.metric, search.metric)
    mode = _one("mode", tune_config.mode, scheduler.mode, search.mode)
    if metric is not None and mode is None:
        mode = "max"
    if metric is None and (type(scheduler) is not FIFOScheduler or _needs_metric(search)):
        raise InvalidArgument(
            "metric= is not given: name the reported number to compare, and mode="
        )
    reached, stopper, seconds = stop_rules(run_config.stop)
    params = _params(config, search.space, scheduler)
    longest = int(reached.get(ITERATION, ENDLESS))
    reached = {name: value for name, value in reached.items() if name != ITERATION}
    made = scheduler.made(longest)
    if longest < made.max_t:  # it ends before the scheduler's end
        reached[ITERATION] = longest
    rules = Rules(metric or ITERATION, reached, stopper, scheduler.time_attr)
    checkpoints = run_config.checkpoint_config or CheckpointConfig()
    failures = run_config.failure_config or FailureConfig()
    num_samples = tune_config.num_samples
    searcher = search.made(params) if not params.grid else _grid(search, params, num_samples)
    asked = resources if resources is not None else resources_of(trainable, config or {})
    stop_study = StopStudy(stopper) if stopper is not None else None
    following = followers(run_config.callbacks, loggers)
    study = Study(
        trial_of(trainable, params, rules, bool(tune_config.reuse_actors)),
        params.space,
        metric or ITERATION,
        mode or "max",
        scheduler=made,
        searcher=searcher,
        storage=_storage(run_config),
        name=run_config.name,
        seed=search.seed or 0,
    )
    keywords = {
        "num_trials": num_samples if num_samples > 0 and not params.grid else None,
        "time_budget": _seconds(tune_config.time_budget_s, seconds),
        "resources": _resources(asked),
        "max_concurrent": tune_config.max_concurrent_trials or search.max_concurrent,
        "checkpoint": _policy(trainable, checkpoints),
        "fail_fast": bool(failures.fail_fast),
        "max_failures": FOREVER if failures.max_failures < 0 else failures.max_failures,
        "callbacks": [*following, *filter(None, [stop_study])],
        "progress": run_config.verbose != 0,
        "client": client,
    }
    if num_samples < 0 and keywords["time_budget"] is None and stopper is None:
        raise InvalidArgument(
            "num_samples=-1 needs time_budget_s, or a Stopper that ends the study"
        )
    _say_unused(tune_config, run_config, checkpoints)
    return Plan(study, params, metric, mode, keywords, stop_study, failures.fail_fast == "raise")


def run(
    run_or_experiment: Any,
    name: str | None = None,
    metric: str | None = None,
    mode: str | None = None,
    stop: Any = None,
    time_budget_s: float | timedelta | None = None,
    config: Mapping[str, Any] | None = None,
    resources_per_trial: Any = None,
    num_samples: int = 1,
    local_dir: str | None = None,
    storage_path: str | None = None,
    search_alg: Any = None,
    scheduler: Any = None,
    keep_checkpoints_num: int | None = None,
    checkpoint_score_attr: str | None = None,
    checkpoint_freq: int = 0,
    checkpoint_at_end: bool = False,
    checkpoint_config: CheckpointConfig | None = None,
    verbose: int | None = None,
    progress_reporter: Any = None,
    loggers: Sequence[Any] | None = None,
    callbacks: Sequence[Any] | None = None,
    max_failures: int = 0,
    fail_fast: bool | str = False,
    restore: str | None = None,
    resume: bool | str = False,
    reuse_actors: bool | None = None,
    raise_on_failed_trial: bool = True,
    max_concurrent_trials: int | None = None,
    sync_config: Any = None,
    client: Any = None,
    **others: Any,
) -> ExperimentAnalysis:
    """Run a study of Ray Tune's arguments, and wait for its end.

    Parameters
    ----------
    client : a Dask client or cluster, as for `daskhpo.Study.run`; None: worker processes here.
    **others : options of Ray that have no effect here.

    Raises
    ------
    InvalidArgument : an argument is not valid, or cannot be meant here.
    TuneError : a trial failed, unless ``raise_on_failed_trial=False``.
    """
    if isinstance(run_or_experiment, Experiment):
        given = {"name": name, "stop": stop, "config": config} | run_or_experiment.keywords
        return run(run_or_experiment.trainable, **given)
    unknown = sorted(set(others) - UNUSED)
    if unknown:
        raise InvalidArgument(f"tune.run has no {', '.join(unknown)}=")
    no_effect(others, "there is nothing like it here")
    if restore is not None:
        cannot("restore=", "use daskhpo.Study.branch to begin from a study's checkpoints")
    if checkpoint_config is None:
        checkpoint_config = CheckpointConfig(
            keep_checkpoints_num, checkpoint_score_attr, "max", checkpoint_freq, checkpoint_at_end
        )
    planned = plan(
        run_or_experiment,
        config,
        TuneConfig(
            metric,
            mode,
            search_alg,
            scheduler,
            num_samples,
            max_concurrent_trials,
            time_budget_s,
            reuse_actors,
        ),
        RunConfig(
            name,
            storage_path or local_dir,
            failure_config=FailureConfig(max_failures, fail_fast),
            checkpoint_config=checkpoint_config,
            sync_config=sync_config,
            stop=stop,
            callbacks=callbacks,
            progress_reporter=progress_reporter,
            verbose=verbose,
        ),
        resources=resources_per_trial,
        loggers=loggers,
        client=client,
    )
    words = str(resume).upper().split("+")
    if resume and name is None:
        raise InvalidArgument(f"resume={resume!r} needs name=, and the storage_path of that study")
    if resume and "AUTO" not in words and not planned.study.path.exists():
        raise InvalidArgument(f"resume={resume!r}: there is no study in {planned.study.path}")
    retry = any("ERRORED" in word for word in words)
    analysis = planned.run(if_exists="resume" if resume else "new", retry_failed=retry)
    failed = [trial for trial in analysis.trials if trial.status == "ERROR"]
    if failed and (raise_on_failed_trial or planned.raises):
        raise TuneError(f"{len(failed)} trials failed, the first: {failed[0].error}")
    return analysis


class Tuner:
    """A study of Ray Tune's arguments; :meth:`fit` runs it.

    Parameters
    ----------
    client : a Dask client or cluster, as for `daskhpo.Study.run`; None: worker processes here.
    """

    def __init__(
        self,
        trainable: Any,
        *,
        param_space: Mapping[str, Any] | None = None,
        tune_config: TuneConfig | None = None,
        run_config: RunConfig | None = None,
        client: Any = None,
    ) -> None:
        self._trainable, self._param_space = checked(trainable), param_space
        self._tune_config, self._run_config = tune_config or TuneConfig(), run_config or RunConfig()
        self._client = client
        self._restored: dict[str, Any] | None = None
        self._analysis: ExperimentAnalysis | None = None

    def fit(self) -> ResultGrid:
        """Run the study, or continue it after :meth:`restore`, and wait for its end.

        Failed trials do not raise: see `ResultGrid.errors`.
        """
        planned = self._plan()
        planned.study.name = planned.study.name if self._restored else self._free(planned.study)
        if not self._restored:
            self._write(planned.study.path)
        how = self._restored or {"if_exists": "new"}
        self._analysis = planned.run(**how)
        if planned.raises and (errors := ResultGrid(self._analysis).errors):
            raise errors[0]
        return ResultGrid(self._analysis)

    def get_results(self) -> ResultGrid:
        """Return the results so far."""
        if self._analysis is None:
            planned = self._plan()
            self._analysis = planned.analysis(planned.study.result())
        return ResultGrid(self._analysis)

    @staticmethod
    def can_restore(path: str | os.PathLike[str], **kwargs: Any) -> bool:
        """Return True if a study that a Tuner began is in the directory."""
        return Path(path, TUNER).is_file()

    @classmethod
    def restore(
        cls,
        path: str | os.PathLike[str],
        trainable: Any,
        *,
        resume_unfinished: bool = True,
        resume_errored: bool = False,
        restart_errored: bool = False,
        param_space: Mapping[str, Any] | None = None,
        client: Any = None,
        **kwargs: Any,
    ) -> Tuner:
        """Return a tuner that continues the study in a directory.

        It unpickles what :meth:`fit` has written there, so it refuses a file of another user.

        Raises
        ------
        InvalidArgument : the directory has no such file, or another user has written it.
        """
        folder = check_path("path", path).absolute()
        file = folder / TUNER
        if not file.is_file():
            raise InvalidArgument(f"Tuner.restore({str(path)!r}): there is no {file}")
        if hasattr(os, "getuid") and file.stat().st_uid != os.getuid():
            raise InvalidArgument(f"{file} was written by another user, whose code it would run")
        no_effect(
            {"restart_errored": restart_errored, **kwargs}, "failed trials have their checkpoints"
        )
        space, tune_config, run_config = pickle.loads(file.read_bytes())
        run_config = replace(run_config, name=folder.name, storage_path=str(folder.parent))
        tuner = cls(
            trainable,
            param_space=space if param_space is None else param_space,
            tune_config=tune_config,
            run_config=run_config,
            client=client,
        )
        retry = resume_errored or restart_errored
        tuner._restored = {"if_exists": "resume", "retry_failed": retry}
        return tuner

    def _plan(self) -> Plan:
        return plan(
            self._trainable,
            self._param_space,
            self._tune_config,
            self._run_config,
            client=self._client,
        )

    def _free(self, study: Study) -> str:
        from daskhpo.engine.session import free_name

        return free_name(study.storage, study.name)

    def _write(self, path: Path) -> None:
        import cloudpickle

        path.mkdir(parents=True, exist_ok=True)
        run_config = replace(self._run_config, callbacks=None, progress_reporter=None)
        data = cloudpickle.dumps((self._param_space, self._tune_config, run_config))
        write_file(path / TUNER, data)


@dataclass
class Experiment:
    """Arguments of a study, for `run_experiments`."""

    name: str
    trainable: Any
    keywords: dict[str, Any] = field(default_factory=dict)

    def __init__(self, name: str, run: Any, **keywords: Any) -> None:
        self.name, self.trainable = name, run
        if "trial_resources" in keywords:
            keywords["resources_per_trial"] = keywords.pop("trial_resources")
        if "repeat" in keywords:
            keywords["num_samples"] = keywords.pop("repeat")
        self.keywords = {"name": name, **keywords}


def run_experiments(experiments: Any, **keywords: Any) -> list[Any]:
    """Run several studies, one after another, and return their trials."""
    if isinstance(experiments, Mapping):
        experiments = [Experiment(name, **spec) for name, spec in experiments.items()]
    elif isinstance(experiments, Experiment):
        experiments = [experiments]
    return [
        trial
        for each in experiments
        for trial in run(each.trainable, **{**each.keywords, **keywords}).trials
    ]


# Options of tune.run without a meaning here.
UNUSED = frozenset(
    {
        *("log_to_file", "trial_name_creator", "trial_dirname_creator", "chdir_to_trial_dir"),
        *("export_formats", "server_port", "with_server", "queue_trials", "trial_executor"),
        *("sync_to_driver", "sync_on_checkpoint", "upload_dir", "sync_to_cloud", "ray_auto_init"),
        *("global_checkpoint_period", "run_errored_only", "checkpoint_keep_all_ranks"),
        *("checkpoint_upload_from_workers", "storage_filesystem", "progress_metrics"),
        *("return_trials", "run_or_experiment", "sync_function", "_remote"),
    }
)


def _say_unused(tune: TuneConfig, run: RunConfig, checkpoints: CheckpointConfig) -> None:
    no_effect(
        {"trial_name_creator": tune.trial_name_creator, "progress_reporter": run.progress_reporter}
        | {"trial_dirname_creator": tune.trial_dirname_creator},
        "trials have numbers, and progress is daskhpo's",
    )
    no_effect(
        {"sync_config": run.sync_config, "storage_filesystem": run.storage_filesystem},
        "a study has one directory, which all workers share",
    )
    no_effect({"log_to_file": run.log_to_file}, "what trials print is in logs/TRIAL.log")
    kept = checkpoints.num_to_keep if (checkpoints.num_to_keep or 0) > 1 else None
    no_effect(
        {"num_to_keep (keep_checkpoints_num)": kept}
        | {"checkpoint_score_attribute": checkpoints.checkpoint_score_attribute},
        "the newest checkpoint of each trial is kept",
    )


def _scheduler(given: Any) -> TrialScheduler:
    match given:
        case None:
            return FIFOScheduler()
        case str():
            return create_scheduler(given)
        case TrialScheduler():
            return given
    cannot(
        f"scheduler={given!r:.60}",
        "give one of daskhpo.tune.schedulers; daskhpo's own are for daskhpo.Study",
    )


def _one(name: str, *values: Any) -> Any:
    given = {value for value in values if value is not None}
    if len(given) > 1:
        raise InvalidArgument(f"{name} is given twice, as {' and '.join(map(repr, sorted(given)))}")
    return given.pop() if given else None


def _needs_metric(search: Searcher) -> bool:
    return type(search) is not BasicVariantGenerator


def _params(
    config: Mapping[str, Any] | None, searched: Any, scheduler: TrialScheduler
) -> ParamSpace:
    """Return the space of a configuration, with that of the searcher below it."""
    if config is not None and not isinstance(config, Mapping):
        raise InvalidArgument(f"config={shown(config)} must be a dict of names to values")
    check_own(config or {})
    library = library_space(searched)
    below = searched if library is None and searched is not None else {}
    params = ParamSpace.of({**below, **(config or {})}, library)
    for name, domain in scheduler.space.items():
        path = tuple(name.split("/"))
        if path in params.functions:
            function = params.functions.pop(path)
            domain = FromFunction(function.sample)  # its first value
        elif name in params.space:
            continue
        params.space[name], params.paths[name] = domain, path
        params.parameters[name] = Parameter(domain)
    return params


def _grid(search: Searcher, params: ParamSpace, num_samples: int) -> GridSearch:
    if type(search) is not BasicVariantGenerator or num_samples < 1:
        search.made(params)  # raises
    sampled = [n for n, d in params.space.items() if isinstance(d, Domain) and n not in params.grid]
    return GridSearch(
        points_to_evaluate=search.points(params), sampled=sampled, repeats=num_samples
    )


def _storage(run_config: RunConfig) -> Any:
    given = run_config.storage_path or run_config.local_dir
    return "runs" if given is None else given


def _seconds(*budgets: float | timedelta | None) -> float | None:
    given = [b.total_seconds() if isinstance(b, timedelta) else b for b in budgets if b is not None]
    return min(given, default=None)


def _resources(asked: Any) -> dict[str, float] | None:
    if asked is None:
        return None
    if isinstance(asked, PlacementGroupFactory):
        asked = asked.resources
    if not isinstance(asked, Mapping):
        raise InvalidArgument(f"resources={shown(asked)} must be a dict, such as {{'cpu': 2}}")
    found = {str(name): value for name, value in asked.items() if value}
    for name in [name for name in found if name.startswith("extra_")]:
        cannot(f"resources_per_trial={{{name!r}: ...}}", "count all that a trial needs as cpu, gpu")
    if "memory" in found:
        no_effect({"resources_per_trial={'memory': ...}": found.pop("memory")}, "see memory_limit=")
    cpu = found.get("cpu", 1)
    if is_number(cpu) and 0 < cpu < 1:
        say(f"cpu={cpu}", "is 1 here: each trial has its own process")
        found["cpu"] = 1
    return found


class PlacementGroupFactory:
    """Resources of a trial, as a list of one bundle: ``[{"CPU": 1, "GPU": 1}]``."""

    def __init__(self, bundles: Sequence[Mapping[str, float]], *args: Any, **kwargs: Any) -> None:
        if len(bundles) != 1:
            cannot(
                f"PlacementGroupFactory with {len(bundles)} bundles",
                "a trial has one worker: count all it needs there, and start processes by "
                "daskhpo.distributed.launch",
            )
        self.resources = {name.lower(): value for name, value in bundles[0].items()}


def _policy(trainable: Any, config: CheckpointConfig) -> CheckpointPolicy:
    if config.checkpoint_frequency:
        every = config.checkpoint_frequency
        return CheckpointPolicy("every", every=every, keep_best=ENDLESS)
    at_end = config.checkpoint_at_end
    is_function = not isinstance(trainable, type)
    return CheckpointPolicy("end" if at_end or is_function else "auto")
