"""`tune.run` and `tune.Tuner`: a study made of Ray Tune's arguments."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import write_file
from daskhpo.core.arguments import check_path
from daskhpo.core.errors import InvalidArgument
from daskhpo.engine.session import free_name
from daskhpo.tune.analysis import ExperimentAnalysis, ResultGrid, Trial, TuneError
from daskhpo.tune.configs import (
    CheckpointConfig,
    FailureConfig,
    ResumeConfig,
    RunConfig,
    TuneConfig,
)
from daskhpo.tune.messages import cannot, no_effect
from daskhpo.tune.plan import Plan, plan
from daskhpo.tune.trainable import checked

__all__ = ["Experiment", "Trial", "Tuner", "run", "run_experiments"]

TUNER = "tuner.pkl"


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
        given = dict(locals())
        del given["run_or_experiment"], given["others"]
        return run(run_or_experiment.trainable, **given | others | run_or_experiment.keywords)
    resume_config = others.pop("resume_config", None) or ResumeConfig()
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
    retry = resume_config.retries or any("ERRORED" in word for word in words)
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
        if self._restored is None:
            study = planned.study
            study.name = free_name(study.storage, study.name)
            self._write(study.path)
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
        *("return_trials", "sync_function", "_remote"),
    }
)
