"""The study: what a user defines, runs and resumes."""

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
    check_manifest,
    check_startable,
    last_limits,
    read_manifest,
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
from daskhpo.study.definition import check_mutations, check_name, check_parts, check_trainable
from daskhpo.study.loader import check_not_loading, load, source_of
from daskhpo.trainable import Trainable

logger = logging.getLogger("daskhpo")


class Study:
    """A search for good hyperparameters: what is trained, where to search, and how.

    Making a study starts nothing; :meth:`run` does. Everything that happens goes to
    ``storage/name``, from which :meth:`resume` goes on after whatever went wrong.

    Parameters
    ----------
    trainable : a :class:`daskhpo.Trainable` subclass, or a function ``f(config, trial)`` that
        reports; None if you run the trials yourself.
    space : hyperparameter names to domains of :mod:`daskhpo.space`; a plain value is a constant.
    metric, mode : name of the reported number that counts; ``"min"`` or ``"max"``.
    scheduler : how far each trial trains, for example ``ASHA(max_t=81, grace_period=3)``.
    searcher : which configurations; by default random search.
    storage, name : directory of studies, and this one's name in it (by default the time).
    seed : same seed and same order of events: same decisions.

    Raises
    ------
    TypeError, ValueError : something given is not what it should be; the message says what is.
    """

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
        self.name = time.strftime("study-%Y%m%d-%H%M%S") if name is None else name
        check_name(self.name)
        self.storage = Path(storage)
        space = space if isinstance(space, Space) else Space(space)
        check_parts(space, scheduler, searcher, seed)
        self._problem = Problem(space, Objective(metric, mode), scheduler, searcher, seed)
        check_mutations(self.trainable, scheduler)
        self._asktell: AskTellSession | None = None
        self.source: str | None = None  # "FILE.py:study", set by the command line

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {self._problem.scheduler!r}, {self._problem.searcher!r})"

    @property
    def problem(self) -> Problem:
        """What is searched, and how: space, objective, scheduler, searcher and seed."""
        return self._problem

    @property
    def path(self) -> Path:
        """The study's directory."""
        return self.storage / self.name

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
        num_trials, time_budget, target : where it ends, whichever comes first: trials started,
            seconds (or text such as ``"8h"``), a value of the metric.
        **options : see :meth:`start`.

        Returns
        -------
        Result : also after Ctrl-C, with what there is.
        """
        return self.start(num_trials, time_budget, target, **options).wait()

    def resume(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        **options: Any,
    ) -> Result:
        """Go on with a study that was stopped or killed; what ran is started again.

        ``num_trials`` counts the trials of the whole study; without any limit the last session's
        number of trials and target hold again. The time budget is this session's.
        """
        limits = (num_trials, time_budget, target)
        if all(limit is None for limit in limits):
            num_trials, target = last_limits(self.path)
        handle = self.start(num_trials, time_budget, target, resume=True, **options)
        return handle.wait()

    def extend(self, num_trials: int, **options: Any) -> Result:
        """Go on with a study that came to its end, until it has so many trials in all."""
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
        """Begin the study and return at once.

        Parameters
        ----------
        client : a ``distributed.Client``, a Dask cluster, or None for worker processes on this
            machine, one per slot.
        resources : what one trial needs: ``cpu`` (threads), ``gpu`` (the worker's ``GPU``
            resource; may be a fraction), or any other Dask resource. Default: one CPU.
        max_concurrent : most trials at a time.
        worker_timeout : how long to wait for the first worker that can run a trial; default: for
            ever, with a warning.
        callbacks : they follow the study's journal.
        checkpoint : which states are written: ``"auto"`` (what is worth it), ``"every:N"`` (after
            every N units, too), ``"rung"`` (after every segment), ``"end"`` (at every pause and
            end), ``"never"``; or a :class:`daskhpo.checkpoints.CheckpointPolicy`, which also
            limits what they may take.
        fail_fast : stop at the first trial that fails.
        max_failures : how often a trial whose code raises is tried again, from its checkpoint.
        reuse_actors : let objects whose ``reset_config`` returns True serve many trials.
        verify_reuse : train each reused object's first segment beside a new object and compare.
        progress : show progress in the terminal.
        resume : go on with what the study's directory holds.

        Raises
        ------
        TypeError, ValueError : bad arguments.
        StudyExists, StudyMismatch, StudyLocked : the directory is not this study's to use now.
        NoSuitableWorkers : no worker can run a trial (after ``worker_timeout``, from ``wait``).
        """
        check_not_loading("start")
        if self.trainable is None:
            raise TypeError("this study has no trainable: run its trials by ask() and tell()")
        options = check_options(
            self._problem,
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
        check_startable(self.path, self._problem, resume=resume, job_is_over=is_over)
        directory = self.path.absolute()
        return start(
            problem=self._problem,
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
        **words: Any,
    ) -> AttachedStudy:
        """Run the study in a Slurm job of its own, and return at once.

        Scheduler and coordinator live in a small job without GPUs; the workers are further jobs
        that it submits. You may log out: :meth:`attach`, or ``daskhpo status | attach | stop``,
        reach it through the study's directory. What the directory holds already is gone on with.

        The study must be a global variable of a Python file, which the job imports.

        Parameters
        ----------
        num_trials, time_budget, target : where the study ends, as for :meth:`run`. The time is
            that of all jobs of the chain; while they wait in the queue it stands still.
        walltime : of the job that runs the study: ``"12h"``, seconds, or Slurm's ``"D-HH:MM:SS"``.
        workers : words of :func:`daskhpo.cluster.slurm_cluster` for the workers' jobs, such as
            ``{"jobs": 8, "queue": "gpu", "walltime": "04:00:00", "cores": 8, "memory": "32GB"}``.
        chain : so many jobs at most, one after the other (1): when one ends, by its walltime or
            however else, the next goes on.
        one_allocation : all in one job, the workers as its steps, for sites where jobs may not
            submit jobs (False). ``workers`` then says what the job has: ``jobs`` is the number of
            its nodes; ``gpus_per_job``, ``cores`` and ``memory`` are those of each.
        queue, account, cores, memory, job_extra_directives, job_script_prologue : of the job that
            runs the study, in the words of ``slurm_cluster``; 2 cores and 4 GB by default.
        **options : those of :meth:`start`, such as ``resources`` and ``checkpoint``. By default a
            trial has the GPU, or the part of one, that a worker has.

        Returns
        -------
        AttachedStudy : with ``wait()``, ``stop()``, ``status()`` and the number of the ``job``.

        Raises
        ------
        TypeError, ValueError : bad arguments, or a study that the job could not find or import.
        StudyExists : there is nothing left to do.
        StudyLocked : it runs, or was submitted already.
        StudyMismatch : the directory belongs to another study.
        CommandMissing, CommandFailed : there is no Slurm here, or it refuses the job.
        """
        given = self._prepare(num_trials, time_budget, target, walltime=walltime, **words)
        submit(self._problem, self.path, given)
        return AttachedStudy(self.path.absolute(), _followers((), progress=True))

    def job_script(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        *,
        walltime: float | str,
        **words: Any,
    ) -> str:
        """The batch script that :meth:`submit` would submit; nothing is written or started."""
        given = self._prepare(num_trials, time_budget, target, walltime=walltime, **words)
        return controller_script(given, JobDirectory(self.path.absolute()))

    def attach(self, callbacks: Sequence[Callback] = (), progress: bool = True) -> AttachedStudy:
        """Look at the study while another process runs it, on whatever machine.

        ``wait()`` follows it to its end, and Ctrl-C leaves it running; ``stop()`` ends it;
        ``status()`` tells where its trials stand.

        Raises
        ------
        FileNotFoundError : the directory holds no study.
        StudyNotRunning : nobody runs it, and no job is going to.
        """
        return attach(self.path.absolute(), _followers(callbacks, progress))

    def ask(self) -> AskedTrial | None:
        """The next trial for you to run; None if the study wants none before it is told more.

        The first call opens the study's directory, or goes on with what it holds; :meth:`close`
        closes it. The trainable may be None.

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
                self.path, self._problem, resume=True, job_is_over=is_over
            )
        return self._asktell.ask()

    def tell(self, trial: AskedTrial, metrics: Mapping[str, Any]) -> bool:
        """Tell one unit of a trial's training. True: train on; False: ask for another trial.

        Raises
        ------
        MetricError : the metrics are no flat dict of numbers with the study's metric in it.
        ValueError : the trial does not run.
        """
        if self._asktell is None:
            raise ValueError(f"{trial!r} was not asked for in this session: call ask() first")
        return self._asktell.tell(trial, metrics)

    def close(self) -> None:
        """End what :meth:`ask` began, so that another process may go on with the study."""
        if self._asktell is not None:
            self._asktell.close()
            self._asktell = None

    def branch(self, name: str, seconds: float | None = None) -> Study:
        """Another study, in ``storage/name``, that begins where this one stood.

        It has this one's journal up to that point, and its checkpoints, of which no bytes are
        copied where the file system has hard links. :meth:`resume` goes on with it; from then on
        the two have nothing to do with each other, and either may be deleted. This one may be
        running.

        Only checkpoints can be shared that were committed then and are still there. A trial whose
        checkpoint was deleted meanwhile finds that out when it goes on: it begins at an older one,
        or trains again from its start, and what it reported before stands. The same goes for
        states that were only in the memory of a worker.

        Parameters
        ----------
        name : of the new study's directory, which must not be there yet.
        seconds : of this study's time (see ``Result.history()``); None: after all that its journal
            holds now.

        Raises
        ------
        ValueError, TypeError : bad arguments.
        FileNotFoundError : this study was not begun yet.
        StudyExists : there is something in ``storage/name``.
        StudyMismatch : the directory's study is defined otherwise than this one.
        """
        check_name(name)
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (is_number and seconds >= 0):
            raise ValueError(f"seconds={seconds!r} must be a number of 0 or more, or None")
        read_manifest(self.path)
        check_manifest(self.path, self._problem)
        other = copy.copy(self)
        other.name, other._asktell = name, None
        branch(self.path, other.path, seconds)
        return other

    def result(self) -> Result:
        """What the study has found so far; works while it runs, too."""
        return Result(study_records(self.path), self._problem.objective, self.path)

    def _prepare(self, *limits: Any, walltime: float | str, **words: Any) -> Submission:
        check_not_loading("submit")
        if self.trainable is None:
            raise TypeError("this study has no trainable: nothing could be trained in a job")
        return prepare(
            self._problem, self.path, source_of(self), *limits, walltime=walltime, **words
        )


def load_source(source: str) -> Study:
    """The study that ``FILE.py:NAME`` defines; see :func:`daskhpo.study.loader.load`."""
    return load(source, Study)


def _followers(callbacks: Sequence[Callback], progress: bool) -> list[Callback]:
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: {callback!r} is no Callback")
    if not progress:
        return [*callbacks]
    return [ConsoleProgress(), *callbacks]
