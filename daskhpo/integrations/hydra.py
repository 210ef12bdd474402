"""Hydra: the work of the sweeper ``hydra/sweeper=daskhpo``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
)
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf, open_dict

from daskhpo.cluster import slurm_cluster
from daskhpo.core.arguments import shown
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.plain import is_number
from daskhpo.results.result import Result
from daskhpo.study.study import Study
from daskhpo.trainable import TrialContext

logger = logging.getLogger("daskhpo")
_trial: ContextVar[TrialContext | None] = ContextVar("trial", default=None)


def current_trial() -> TrialContext | None:
    """Return the trial whose job runs here, or None, as in a single run of the app."""
    return _trial.get()


def sweep(
    arguments: list[str],
    config: DictConfig,
    hydra_context: Any,
    task_function: Callable[[DictConfig], Any],
    *,
    metric: str,
    mode: str,
    name: str,
    seed: int,
    params: Mapping[str, Any] | None,
    scheduler: Any,
    searcher: Any,
    max_t: int | None,
    slurm: Mapping[str, Any] | None,
    run: Mapping[str, Any],
    **limits: Any,
) -> Result:
    """Search what the overrides leave open, and return the result.

    The study is in ``hydra.sweep.dir``, and continues if it is there already.
    """
    listed = [f"{key}={value}" for key, value in (params or {}).items()]
    given = {override.get_key_element() for override in _parsed(arguments)}
    overrides = [each for each in _parsed(listed) if each.get_key_element() not in given]
    fixed, space = split_overrides([*overrides, *_parsed(arguments)])
    if not space:
        raise InvalidArgument(
            f"overrides={shown(arguments)} leave nothing to search: give a range, such as "
            "'lr=interval(0.001, 0.1)' or 'layers=choice(1, 2, 3)'"
        )
    if scheduler is None and max_t is None:
        max_t = 1  # a job that returns its value
    folder = Path(str(config.hydra.sweep.dir)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    state = Singleton.get_state()

    def job(values: Mapping[str, Any], trial: TrialContext) -> Any:
        return run_trial(values, trial, fixed, config, hydra_context, task_function, state, metric)

    study = Study(
        job,
        space,
        metric,
        mode,  # type: ignore[arg-type]
        scheduler=scheduler,
        searcher=searcher,
        max_t=None if scheduler is not None else max_t,
        storage=folder,
        name=name,
        seed=seed,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet("distributed"))
        client = None
        if slurm is not None:
            client = stack.enter_context(slurm_cluster(**OmegaConf.to_object(_config(slurm))))
        options = {str(key): value for key, value in (run or {}).items()}
        result = study.run(**limits, **options, client=client, if_exists="resume")
    best = result.best_trial
    found = {
        "name": "daskhpo",
        "best_evaluated_params": {_plain_key(key): value for key, value in best.config.items()},
        "best_evaluated_result": result.best_value,
    }
    OmegaConf.save(OmegaConf.create(found), folder / "optimization_results.yaml")
    logger.info("best %s=%s with %s", metric, result.best_value, dict(best.config))
    return result


def run_trial(
    values: Mapping[str, Any],
    trial: TrialContext,
    fixed: list[str],
    config: DictConfig,
    hydra_context: Any,
    task_function: Callable[[DictConfig], Any],
    state: Any,
    metric: str,
) -> Any:
    """Run the app's job function with a trial's overrides, in this process."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import run_job, setup_globals

    setup_globals()
    Singleton.set_state(state)
    overrides = [*fixed, *(f"{key}={value}" for key, value in values.items())]
    own = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(own):
        own.hydra.job.id = f"{own.hydra.job.name}_{trial.id}"
        own.hydra.job.num = trial.id
    HydraConfig.instance().set_config(own)
    token = _trial.set(trial)
    try:
        done = run_job(
            hydra_context=hydra_context,
            task_function=task_function,
            config=own,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            configure_logging=False,
        )
    finally:
        _trial.reset(token)
    return done.return_value  # raises what the job raised


def split_overrides(overrides: list[Override]) -> tuple[list[str], dict[str, Domain]]:
    """Return the overrides of all trials, and the domain of each that is searched."""
    fixed, space = [], {}
    for override in overrides:
        if not override.is_sweep_override():
            fixed.append(str(override.input_line))
        elif isinstance(found := _domain(override), Domain):
            space[override.get_key_element()] = found
        else:
            fixed.append(f"{override.get_key_element()}={found}")
    return fixed, space


def _domain(override: Override) -> Any:
    """Return the domain of a sweep; the value alone, if there is only one."""
    value = override.value()
    tags: Any = getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if isinstance(low, int) and isinstance(high, int):
            return Integer(int(low), int(high), log="log" in tags)
        return Real(float(low), float(high), log="log" in tags)
    if isinstance(value, RangeSweep):
        numbers = [*value.range()]
        return Ordinal(numbers) if len(numbers) > 1 else numbers[0]
    if not isinstance(value, ChoiceSweep):
        texts = [*override.sweep_string_iterator()]  # a glob
    else:
        items = [i.text if isinstance(i, QuotedString) else i for i in value.list]
        if all(map(is_number, items)) and len(items) > 1 and items == sorted(set(items)):
            return Ordinal(items)
        texts = [*override.sweep_string_iterator()]
    return Categorical(texts) if len(texts) > 1 else texts[0]


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library's news out of the app's log, which Hydra opens for all."""
    import_module(name)  # it sets its levels then
    library = logging.getLogger(name)
    level = library.level
    library.setLevel(logging.WARNING)
    try:
        yield
    finally:
        library.setLevel(level)


def _parsed(texts: list[str]) -> list[Override]:
    return list(OverridesParser.create().parse_overrides(texts))


def _config(slurm: Mapping[str, Any]) -> DictConfig:
    return slurm if isinstance(slurm, DictConfig) else OmegaConf.create(dict(slurm))


def _plain_key(key: str) -> str:
    return key.lstrip("+~")
