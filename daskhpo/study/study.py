"""The study, which a user defines, runs and resumes."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.console import ConsoleProgress
from daskhpo.checkpoints import open_store
from daskhpo.cluster.jobs import is_over
from daskhpo.core.objective import Mode, Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy
from daskhpo.engine.branch import branch
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.options import check_options
from daskhpo.engine.session import (
    check_startable,
    last_limits,
    study_records,
)
from daskhpo.executors.dask.handle import StudyHandle, start
from daskhpo.remote.attach import AttachedStudy, attach
from daskhpo.remote.script import controller_script
from daskhpo.remote.submission import JobDirectory, Submission
from daskhpo.remote.submit import prepare, submit
from daskhpo.results.result import Result
from daskhpo.searchers.random import RandomSearch
from daskhpo.study.asktell import AskedTrial, AskTellSession
from daskhpo.study.definition import check_name, check_parts, check_trainable
from daskhpo.study.loader import check_not_loading, load, source_of
from daskhpo.trainable import Trainable

logger = logging.getLogger("daskhpo")


class Study:
    """A search for good hyperparameters: a trainable, a space and a method.

    Creating a study starts nothing; :meth:`run` does. Everything that happens is recorded in
    ``storage/name``, from which :meth:`resume` continues after a stop or a crash.

    Parameters
    ----------
    trainable : a :class:`daskhpo.Trainable` subclass, or a function ``f(config, trial)`` that
        reports; None if you run the trials yourself.
    space : domain of :mod:`daskhpo.space` for each hyperparameter; a plain value is a constant.
    metric, mode : name of the reported number to optimise; ``"min"`` or ``"max"``.
    scheduler : decides how far each trial trains, e.g. ``ASHA(max_t=81, grace_period=3)``.
    searcher : proposes configurations; default: random search.
    storage, name : directory of studies, and this study's name in it (default: from the time).
    seed : the same seed and the same order of events give the same decisions.

    Attributes
    ----------
    problem : space, objective, scheduler, searcher and seed.
    source : ``FILE.py:NAME`` if it was loaded from a file; else None.

    Raises
    ------
    TypeError, ValueError : an argument is not valid; the message says what it must be.
    """

    problem: Problem
    source: str | None = None

    def __init__(
        self,
        trainable: type[Trainable] | Any | None,
        space: Mapping[str, Any],
        metric: str,
        mode: Mode = "min",
        *,
        scheduler: Scheduler,
        searcher: Searcher | None = None,
        storage: str | Path = "runs",
        name: str | None = None,
        seed: int = 0,
    ) -> None:
        if searcher is None:
            searcher = RandomSearch()
        self.trainable = check_trainable(trainable)
        self.name = check_name(time.strftime("study-%Y%m%d-%H%M%S") if name is None else name)
        self.storage = Path(storage)
        space = space if isinstance(space, Space) else Space(space)
        self.problem = Problem(space, Objective(metric, mode), scheduler, searcher, seed)
        check_parts(self.problem, self.trainable)
        self._asktell: AskTellSession | None = None

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {self.problem.scheduler!r}, {self.problem.searcher!r})"

    @property
    def path(self) -> Path:
        """The study's directory."""
        return self.storage / self.name

    def at(self, path: str | Path, source: str | None = None) -> Study:
        """Return the same study in another directory, such as one that was moved.

        ``source``: the file that defines it, ``FILE.py:NAME``; None: as before.
        """
        other, path = copy.copy(self), Path(path)
        other.storage, other.name, other._asktell = path.parent, path.name, None
        other.source = self.source if source is None else source
        return other

    def run(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        **options: Any,
    ) -> Result:
        """Run the study and wait for its end; Ctrl-C stops it cleanly.

        Parameters
        ----------
        num_trials, time_budget, target : where the study ends, whichever comes first: trials
            started, seconds (or text such as ``"8h"``), a value of the metric. None: no limit.
        **options : see :meth:`start`.

        Returns
        -------
        Result : also after Ctrl-C, with all reports until then.
        """
        return self.start(num_trials, time_budget, target, **options).wait()

    def resume(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        **options: Any,
    ) -> Result:
        """Continue a study that was stopped or killed; running trials are launched again.

        ``num_trials`` counts the trials of the whole study. Without any limit, the last session's
        number of trials and target apply again. The time budget is that of this session.
        """
        limits = (num_trials, time_budget, target)
        if all(limit is None for limit in limits):
            num_trials, target = last_limits(self.path)
        handle = self.start(num_trials, time_budget, target, resume=True, **options)
        return handle.wait()

    def extend(self, num_trials: int, **options: Any) -> Result:
        """Continue a study that has ended, until it has ``num_trials`` trials in all."""
        return self.resume(num_trials, **options)

    def start(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        *,
        client: Any = None,
        resources: Mapping[str, float] | None = None,
        max_concurrent: int | None = None,
        worker_timeout: float | str | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | CheckpointPolicy = "auto",
        fail_fast: bool = False,
        max_failures: int = 0,
        reuse_actors: bool = True,
        verify_reuse: bool = False,
        progress: bool = True,
        resume: bool = False,
    ) -> StudyHandle:
        """Start the study and return at once.

        Parameters
        ----------
        client : a ``distributed.Client``, a Dask cluster, or None for worker processes on this
            machine, one per slot.
        resources : what one trial needs: ``cpu`` (threads), ``gpu`` (the worker's ``GPU``
            resource; may be a fraction), or any other Dask resource. None: one CPU.
        max_concurrent : most trials at a time; None: as many as fit.
        worker_timeout : seconds (or text such as ``"10m"``) to wait for the first worker that
            can run a trial; None: no limit, with a warning.
        callbacks : objects that follow the study's journal.
        checkpoint : which states are written: ``"auto"`` (those worth their write), ``"every:N"``
            (also after every N units), ``"rung"`` (after every segment), ``"end"`` (at every pause
            and end), ``"never"``; or a :class:`daskhpo.checkpoints.CheckpointPolicy`, which also
            limits the memory and disk that they use.
        fail_fast : stop at the first trial that fails.
        max_failures : how often a trial whose code raises is retried, from its checkpoint.
        reuse_actors : let objects whose ``reset_config`` returns True serve many trials.
        verify_reuse : train each reused object's first segment also with a new object and compare.
        progress : show progress in the terminal.
        resume : continue the study that the directory holds.

        Raises
        ------
        TypeError, ValueError : an argument is not valid.
        StudyExists, StudyMismatch, StudyLocked : the directory holds trials already, holds another
            study, or is in use.
        NoSuitableWorkers : no worker can run a trial (after ``worker_timeout``, from ``wait``).
        """
        check_not_loading("start")
        if self.trainable is None:
            raise TypeError("this study has no trainable: run its trials with ask() and tell()")
        options = check_options(
            self.problem,
            num_trials,
            time_budget,
            target,
            resources=resources,
            max_concurrent=max_concurrent,
            worker_timeout=worker_timeout,
            checkpoint=checkpoint,
            fail_fast=fail_fast,
            max_failures=max_failures,
            reuse_actors=reuse_actors,
            verify_reuse=verify_reuse,
        )
        followers = _followers(callbacks, progress)
        check_startable(self.path, self.problem, resume=resume, job_is_over=is_over)
        directory = self.path.absolute()
        return start(
            problem=self.problem,
            directory=directory,
            store=open_store(directory),
            trainable=self.trainable,
            options=options,
            resume=resume,
            source=self.source,
            client=client,
            callbacks=followers,
        )

    def submit(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        *,
        walltime: float | str,
        **options: Any,
    ) -> AttachedStudy:
        """Run the study in a Slurm job, and return at once.

        Scheduler and coordinator run in a small job without GPUs, the controller, which submits
        the jobs of the workers. You may log out: :meth:`attach`, or
        ``daskhpo status | attach | stop``, reach the study through its directory. A study that the
        directory already holds is continued.

        The study must be a global variable of a Python file, which the job imports.

        Parameters
        ----------
        num_trials, time_budget, target : where the study ends, as for :meth:`run`. The time is
            that of all jobs of the chain, without their time in the queue.
        walltime : of the controller: ``"12h"``, seconds, or Slurm's ``"D-HH:MM:SS"``.
        workers : options of :func:`daskhpo.cluster.slurm_cluster` for the workers' jobs, such as
            ``{"jobs": 8, "queue": "gpu", "walltime": "04:00:00", "cores": 8, "memory": "32GB"}``.
        chain : most controller jobs, one after the other (default: 1). When one ends, by its
            walltime or for another reason, the next one continues.
        one_allocation : True: all in one job, with the workers as its steps, for sites where jobs
            may not submit jobs (default: False). ``workers`` then describes this job: ``jobs`` is
            its number of nodes; ``gpus_per_job``, ``cores`` and ``memory`` are those of each node.
        queue, account, cores, memory, job_extra_directives, job_script_prologue : options of the
            controller, as in ``slurm_cluster``; default: 2 cores and 4 GB.
        **options : those of :meth:`start`, such as ``resources`` and ``checkpoint``. By default a
            trial has the GPU, or the part of one, that a worker has.

        Returns
        -------
        AttachedStudy : with ``wait()``, ``stop()``, ``status()`` and the number of the ``job``.

        Raises
        ------
        TypeError, ValueError : an argument is not valid, or the job could not find or import the
            study.
        StudyExists : nothing is left to do.
        StudyLocked : the study is running, or was submitted already.
        StudyMismatch : the directory belongs to another study.
        CommandMissing, CommandFailed : Slurm is not available here, or refuses the job.
        """
        given = self._prepare(num_trials, time_budget, target, walltime=walltime, **options)
        submit(self.problem, self.path, given)
        return AttachedStudy(self.path.absolute(), _followers((), progress=True))

    def job_script(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        *,
        walltime: float | str,
        **options: Any,
    ) -> str:
        """Return the script that :meth:`submit` would submit; write and start nothing."""
        given = self._prepare(num_trials, time_budget, target, walltime=walltime, **options)
        return controller_script(given, JobDirectory(self.path.absolute()))

    def attach(self, callbacks: Sequence[Callback] = (), progress: bool = True) -> AttachedStudy:
        """Follow the study while another process runs it, on any machine.

        ``wait()`` follows it until it ends, and Ctrl-C leaves it running; ``stop()`` ends it;
        ``status()`` counts its trials by status.

        Raises
        ------
        FileNotFoundError : the directory holds no study.
        StudyNotRunning : no process runs the study, and no job is going to.
        """
        return attach(self.path.absolute(), _followers(callbacks, progress))

    def ask(self) -> AskedTrial | None:
        """Return the next trial for you to run.

        None: the study first needs reports of running trials, or it has no further trial. The
        first call opens the study's directory and continues what it holds; :meth:`close` closes
        it. The trainable may be None.

        Examples
        --------
        >>> import tempfile
        >>> from daskhpo.schedulers import ASHA
        >>> from daskhpo.space import Real
        >>> study = Study(
        ...     None, {"x": Real(-1, 1)}, "loss", scheduler=ASHA(9), storage=tempfile.mkdtemp()
        ... )
        >>> for _ in range(20):
        ...     trial = study.ask()
        ...     while study.tell(trial, {"loss": trial.config["x"] ** 2 - trial.resource}):
        ...         pass
        >>> study.close()
        >>> len(study.result().trials())
        20
        """
        if self._asktell is None:
            self._asktell = AskTellSession(
                self.path, self.problem, resume=True, job_is_over=is_over
            )
        return self._asktell.ask()

    def tell(self, trial: AskedTrial, metrics: Mapping[str, Any]) -> bool:
        """Report one unit of training. True: train on; False: ask for another trial.

        Raises
        ------
        MetricError : the metrics are not a flat dict of numbers with the study's metric in it.
        ValueError : the trial is finished, or was not asked for in this session.
        """
        if self._asktell is None:
            raise ValueError(f"{trial!r} was not asked for in this session: call ask() first")
        return self._asktell.tell(trial, metrics)

    def close(self) -> None:
        """End the session of :meth:`ask`; another process may then continue the study."""
        if self._asktell is not None:
            self._asktell.close()
            self._asktell = None

    def branch(self, name: str, seconds: float | None = None) -> Study:
        """Create a study in ``storage/name`` that begins as a copy of this one.

        The branch has this study's journal up to a point, and its checkpoints. Their bytes are not
        copied if the file system has hard links. :meth:`resume` continues the branch. The two
        studies are then independent, and either may be deleted. This study may be running.

        Only checkpoints that were committed then and still exist can be shared. If the checkpoint
        of a trial was deleted meanwhile, the trial notices this when it continues. It then begins
        at an older checkpoint, or trains again from its start; its earlier reports remain valid.
        The same applies to states that were only in the memory of a worker.

        Parameters
        ----------
        name : of the new study's directory, which must not exist.
        seconds : point in this study's time (see ``Result.history()``); None: the current end of
            its journal.

        Raises
        ------
        ValueError, TypeError : an argument is not valid.
        FileNotFoundError : this study has not been started.
        StudyExists : ``storage/name`` exists.
        StudyMismatch : the study in this one's directory has another definition.
        """
        other = self.at(self.storage / check_name(name))
        branch(self.path, other.path, self.problem, seconds)
        return other

    def result(self) -> Result:
        """Return the results so far; the study may be running."""
        return Result(study_records(self.path), self.problem.objective, self.path)

    def _prepare(self, *limits: Any, walltime: float | str, **options: Any) -> Submission:
        check_not_loading("submit")
        if self.trainable is None:
            raise TypeError("this study has no trainable: a job would have nothing to train")
        return prepare(
            self.problem, self.path, source_of(self), *limits, walltime=walltime, **options
        )


def load_source(source: str) -> Study:
    """Load the study that ``FILE.py:NAME`` defines; see `daskhpo.study.loader.load`."""
    return load(source, Study)


def _followers(callbacks: Sequence[Callback], progress: bool) -> list[Callback]:
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: {callback!r} must be a Callback")
    if not progress:
        return [*callbacks]
    return [ConsoleProgress(), *callbacks]
