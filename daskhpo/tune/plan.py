"""The study that Ray Tune's arguments mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from daskhpo.core.arguments import shown
from daskhpo.core.domains import Domain
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import is_number
from daskhpo.core.random import trial_seed
from daskhpo.core.types import CheckpointPolicy
from daskhpo.results.result import Result as StudyResult
from daskhpo.searchers import GridSearch
from daskhpo.study.study import Study
from daskhpo.tune.analysis import ExperimentAnalysis
from daskhpo.tune.configs import (
    CheckpointConfig,
    FailureConfig,
    PlacementGroupFactory,
    RunConfig,
    TuneConfig,
)
from daskhpo.tune.drawn import FromFunction
from daskhpo.tune.library_spaces import check_own, library_space
from daskhpo.tune.logger import followers
from daskhpo.tune.messages import cannot, no_effect, say
from daskhpo.tune.names import ITERATION
from daskhpo.tune.schedulers import ENDLESS, FIFOScheduler, TrialScheduler, create_scheduler
from daskhpo.tune.search import BasicVariantGenerator, Searcher, described
from daskhpo.tune.space import Parameter, ParamSpace
from daskhpo.tune.stopper import Rules, StopStudy, stop_rules
from daskhpo.tune.trainable import checked, resources_of, trial_of

FOREVER = 10**9  # retries


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
    if not _needs_metric(search):  # a library's searcher does not know such a domain
        params.show_drawn()
    longest = int(reached.get(ITERATION, ENDLESS))
    reached = {name: value for name, value in reached.items() if name != ITERATION}
    made = scheduler.made(longest)
    if longest < made.max_t:  # it ends before the scheduler's end
        reached[ITERATION] = longest
    experiment = str(run_config.name or getattr(trainable, "__name__", "study"))
    rules = Rules(metric or ITERATION, reached, stopper, scheduler.time_attr, experiment)
    checkpoints = run_config.checkpoint_config or CheckpointConfig()
    failures = run_config.failure_config or FailureConfig()
    num_samples = tune_config.num_samples
    searcher = search.made(params) if not params.grid else _grid(search, params, num_samples)
    asked = resources if resources is not None else resources_of(trainable, config or {})
    stop_study = StopStudy(stopper) if stopper is not None else None
    seed = search.seed or 0
    following = followers(
        run_config.callbacks,
        loggers,
        config or {},
        lambda number, raw: params.config(raw, trial_seed(seed, number)),
    )
    study = Study(
        trial_of(trainable, params, rules, bool(tune_config.reuse_actors)),
        params.space,
        metric or ITERATION,
        mode or "max",
        scheduler=made,
        searcher=searcher,
        storage=_storage(run_config),
        name=run_config.name,
        seed=seed,
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


def _policy(trainable: Any, config: CheckpointConfig) -> CheckpointPolicy:
    if config.checkpoint_frequency:
        every = config.checkpoint_frequency
        return CheckpointPolicy("every", every=every, keep_best=ENDLESS)
    at_end = config.checkpoint_at_end
    is_function = not isinstance(trainable, type)
    return CheckpointPolicy("end" if at_end or is_function else "auto")
