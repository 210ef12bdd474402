"""The study, which a user defines, runs and resumes."""

from __future__ import annotations

import copy
import html
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack, get_args

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.console import ConsoleProgress
from daskhpo.callbacks.notebook import NotebookProgress, is_notebook
from daskhpo.checkpoints import open_store
from daskhpo.cluster.jobs import is_over
from daskhpo.core.arguments import (
    check_bool,
    check_callable,
    check_choice,
    check_int,
    check_kind,
    check_list,
    check_mapping,
    check_path,
    check_text,
    optional,
)
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.objective import Mode, Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.tracebacks import BriefInterrupt
from daskhpo.engine.branch import branch
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.extension import check_extension, extended
from daskhpo.engine.foresight import MemoryOf
from daskhpo.engine.options import LimitKeywords, RunKeywords, RunOptions, merge_options
from daskhpo.engine.protocols import MakeExecutor
from daskhpo.engine.session import (
    IfExists,
    check_startable,
    free_name,
    last_limits,
    read_manifest,
    study_records,
    with_last_limits,
)
from daskhpo.executors import thread
from daskhpo.executors.dask import handle
from daskhpo.executors.dask.handle import StudyHandle
from daskhpo.plots.look import table
from daskhpo.remote.attach import AttachedStudy, attach
from daskhpo.remote.script import controller_script
from daskhpo.remote.submission import JobDirectory, Submission
from daskhpo.remote.submit import SubmitKeywords, prepare, submit
from daskhpo.results.result import Result
from daskhpo.study import edits
from daskhpo.study.asktell import AskedTrial, AskTellSession
from daskhpo.study.definition import (
    check_name,
    check_parts,
    check_seed,
    check_trainable,
    default_parts,
)
from daskhpo.study.loader import check_not_loading, load, source_of
from daskhpo.trainable import Trainable


class ResumeKeywords(RunKeywords, total=False):
    """Keywords of :meth:`Study.resume` besides the limits."""

    options: RunOptions | None
    client: Any
    executor: MakeExecutor | None
    callbacks: Sequence[Callback]
    progress: bool


class StartKeywords(ResumeKeywords, total=False):
    """Keywords of :meth:`Study.start` besides the limits."""

    if_exists: IfExists


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
    scheduler : decides how far each trial trains, e.g. ``ASHA(max_t=81, grace_period=3)``. None:
        :class:`daskhpo.schedulers.GuardedASHA`, for which ``max_t`` is given; FIFO for trials of
        one or two units, as those of a function that takes ``config`` alone.
    searcher : proposes configurations. None: :class:`daskhpo.searchers.ForestSearch` without a
        scheduler or with `GuardedASHA`, random search with any other one.
    storage, name : directory of studies, and this study's name in it (default: from the time).
        A relative directory is that of the working directory when the study is first used.
    seed : the same seed and the same order of events give the same decisions.
    max_t : units of training, that is reports, of a trial that is trained to the end; only without
        a scheduler, which has its own.
    memory : a function that returns the bytes that a configuration needs: of a GPU if trials have
        one, else of their machine. What no worker has is never run. None: predicted from the
        trials so far.

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
        scheduler: Scheduler | None = None,
        searcher: Searcher | None = None,
        storage: str | Path = "runs",
        name: str | None = None,
        seed: int = 0,
        max_t: int | None = None,
        memory: MemoryOf | None = None,
    ) -> None:
        self.trainable = check_trainable(trainable)
        self.name = check_name(_unused_name() if name is None else name)
        self.storage = check_path("storage", storage)
        space = space if isinstance(space, Space) else Space(space)
        scheduler, searcher = default_parts(self.trainable, scheduler, searcher, max_t)
        self.problem = Problem(
            space, Objective(metric, mode), scheduler, searcher, check_seed(seed), memory
        )
        check_parts(self.problem, self.trainable)
        self._asktell: AskTellSession | None = None
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return what defines the study: a copy has no open session of :meth:`ask`."""
        return vars(self) | {"_asktell": None, "_opening": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _opening=threading.Lock())

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {self.problem.scheduler!r}, {self.problem.searcher!r})"

    def _repr_html_(self) -> str:
        """Return the study as a notebook shows it: its definition, and what it has found."""
        problem = self.problem
        found = self.result() if self.path.exists() else None
        rows = [
            ("metric", f"{problem.objective.metric} ({problem.objective.mode})"),
            ("scheduler", repr(problem.scheduler)),
            ("searcher", repr(problem.searcher)),
            *((name, repr(domain)) for name, domain in problem.space.items()),
        ]
        shown = f"<b>Study {html.escape(self.name)}</b>" + table(("", ""), rows)
        return shown if found is None else shown + found._repr_html_()

    @property
    def path(self) -> Path:
        """The study's directory."""
        return self.storage / self.name

    def _fixed_path(self) -> Path:
        """Return the directory, which a change of the working directory no longer moves."""
        self.storage = self.storage.absolute()
        return self.path

    def at(self, path: str | Path, source: str | None = None) -> Study:
        """Return the same study in another directory, such as one that was moved.

        ``source``: the file that defines it, ``FILE.py:NAME``; None: as before.
        """
        other, path = copy.copy(self), check_path("path", path)
        other.storage, other.name = path.parent, path.name
        other.source = self.source if source is None else check_text("source", source)
        return other

    def run(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        **keywords: Unpack[StartKeywords],
    ) -> Result:
        """Run the study and wait for its end; Ctrl-C stops it cleanly.

        Parameters
        ----------
        num_trials, time_budget, target : where the study ends, whichever comes first: trials
            started, seconds (or text such as ``"8h"``), a value of the metric. None: no limit.
        **keywords : see :meth:`start`.

        Returns
        -------
        Result : also after Ctrl-C, with all reports until then.
        """
        with BriefInterrupt():
            return self.start(num_trials, time_budget, target, **keywords).wait()

    def resume(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        *,
        retry_failed: bool = False,
        max_t: int | None = None,
        **keywords: Unpack[ResumeKeywords],
    ) -> Result:
        """Continue a study that was stopped or killed; running trials are launched again.

        ``num_trials`` counts the trials of the whole study. Without any limit, the last session's
        number of trials and target apply again. The time budget is that of this session.

        Parameters
        ----------
        retry_failed : run failed trials again, before new ones. They keep their numbers,
            configurations and reports, and train from their newest checkpoint, or from the start.
        max_t : train trials until this resource from now on, as :meth:`extend` does; None: as
            before.

        Raises
        ------
        FileNotFoundError : there is no such study; ``run(if_exists="resume")`` would begin it.
        """
        max_t = optional(check_int, "max_t", max_t, at_least=1)
        if max_t is not None and num_trials is time_budget is target is None:
            num_trials = last_limits(self._fixed_path()).num_trials  # its target may be reached
            num_trials = num_trials or max(1, self.result().num_trials)
        with BriefInterrupt():
            return self._start(
                LimitKeywords(num_trials=num_trials, time_budget=time_budget, target=target),
                if_exists="resume",
                must_exist=True,
                retry_failed=retry_failed,
                max_t=max_t,
                **keywords,
            ).wait()

    def extend(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        *,
        max_t: int | None = None,
        **keywords: Unpack[ResumeKeywords],
    ) -> Result:
        """Continue a study that has ended, with more trials, more time or longer training.

        Trials that were cut short because the study ended continue.

        With ``max_t`` the old ``max_t`` becomes a rung: the trials that were fully trained are
        compared there, and the best continue: from their states, or again from their starts where
        none is left. Each scheduler says in its ``on_extend`` what that means for it.
        The study keeps its definition: define it with the old ``max_t``, as before.

        Parameters
        ----------
        num_trials : trials in all, earlier sessions included; None: no limit, but with ``max_t``
            alone that of the last session, or as many as there are.
        time_budget : more seconds, or text such as ``"2h"``; None: no limit.
        max_t : units of training of a trial that is trained to the end, more than before; None: as
            before.
        **keywords : see :meth:`start`.

        Raises
        ------
        TypeError : none of them is given.
        ValueError : the scheduler cannot train trials further, or not to fewer units than before.
        """
        if num_trials is time_budget is max_t is None:
            raise TypeError(
                "extend() needs num_trials= (in all), time_budget= (more) or max_t= (longer)"
            )
        with BriefInterrupt():
            return self.resume(
                optional(check_int, "num_trials", num_trials, at_least=1),
                time_budget,
                max_t=max_t,
                **keywords,
            )

    def enqueue(self, config: Mapping[str, Any]) -> None:
        """Add a trial with this configuration, while the study runs or before it does.

        The next free slot for a new trial takes it, before those that the searcher suggests. It is
        one of ``num_trials``; if the study has all of them, it comes on top. Another process may
        run the study. If none does, the trial starts in the next session.

        Parameters
        ----------
        config : a value of each hyperparameter; constants may be left out.

        Raises
        ------
        TypeError, ValueError : the configuration is not in the space; or the study cannot take it:
            a population has all its members from the start, and a grid all its points.
        StudyMismatch : the directory belongs to another study.
        """
        edits.enqueue(self._fixed_path(), self.problem, self.source, config)

    def stop_trial(self, trial: int, reason: str = "stopped by hand") -> None:
        """End one trial, while the study runs; what it has reported counts.

        It ends as *stopped*: at its next report, or at once if it holds no slot. Another process
        may run the study. If none does, it ends when the study is resumed.

        Raises
        ------
        FileNotFoundError : the study was not started.
        KeyError : there is no such trial.
        ValueError : the trial has ended.
        """
        edits.stop_trial(self._fixed_path(), trial, reason)

    def pause_trial(self, trial: int) -> None:
        """Take one trial out of its slot until :meth:`resume_trial`.

        It leaves at its next report, with its state, and others use the slot. What the scheduler
        decides on it stands, and is carried out when it is resumed. The study does not wait for
        it: once all other trials have ended, the session ends. Another process may run the study.

        Raises
        ------
        FileNotFoundError : the study was not started.
        KeyError : there is no such trial.
        ValueError : the trial has ended, or is paused by hand already.
        """
        edits.pause_trial(self._fixed_path(), trial, paused=True)

    def resume_trial(self, trial: int) -> None:
        """Let a trial continue that was paused by hand, now or in the next session.

        Raises
        ------
        FileNotFoundError : the study was not started.
        KeyError : there is no such trial.
        ValueError : the trial has ended, or is not paused by hand.
        """
        edits.pause_trial(self._fixed_path(), trial, paused=False)

    def start(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        *,
        options: RunOptions | None = None,
        client: Any = None,
        executor: MakeExecutor | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        if_exists: IfExists = "error",
        retry_failed: bool = False,
        **keywords: Unpack[RunKeywords],
    ) -> StudyHandle:
        """Start the study and return at once.

        Parameters
        ----------
        num_trials, time_budget, target : as for :meth:`run`.
        **keywords : other options of :class:`daskhpo.RunOptions`: ``resources``,
            ``max_concurrent``, ``worker_timeout``, ``checkpoint``, ``fail_fast``,
            ``max_failures``, ``max_failed_trials``, ``reuse_actors``, ``verify_reuse``.
        options : all or some of these as one object; each may be given in one way only.
        client : a ``distributed.Client``, a Dask cluster, or None for worker processes on this
            machine, one per slot.
        executor : what runs the trials in the place of Dask: a class, or a function, that takes a
            `SessionSpec` of :mod:`daskhpo.engine.protocols` and returns an `Executor`.
        callbacks : objects that follow the study's journal.
        progress : show progress in the terminal.
        if_exists : what to do if the directory holds trials already. ``"error"``: raise
            StudyExists. ``"resume"``: continue them, as :meth:`resume` does. ``"new"``: begin
            another study beside them, under the next free name, such as ``name-2``; :attr:`name`
            then changes.
        retry_failed : with ``if_exists="resume"``: run failed trials again, as :meth:`resume` does.

        Raises
        ------
        TypeError, ValueError : an argument is not valid.
        StudyExists, StudyMismatch, StudyLocked : the directory holds trials already, holds another
            study, or is in use.
        NoSuitableWorkers : no worker can run a trial (after ``worker_timeout``, from ``wait``).
        """
        with BriefInterrupt():
            return self._start(
                LimitKeywords(num_trials=num_trials, time_budget=time_budget, target=target),
                options=options,
                client=client,
                executor=executor,
                callbacks=callbacks,
                progress=progress,
                if_exists=if_exists,
                retry_failed=retry_failed,
                **keywords,
            )

    def _start(
        self,
        limits: LimitKeywords,
        *,
        options: RunOptions | None = None,
        client: Any = None,
        executor: MakeExecutor | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        if_exists: IfExists = "error",
        must_exist: bool = False,
        retry_failed: bool = False,
        max_t: int | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> StudyHandle:
        check_not_loading("start")
        if executor is None and self.trainable is None:
            raise TypeError("this study has no trainable: run its trials with ask() and tell()")
        if executor is not None:
            check_callable("executor", executor, "a class or function: executor(session)")
        if_exists = check_choice("if_exists", if_exists, get_args(IfExists))
        retry_failed = check_bool("retry_failed", retry_failed)
        if executor is not None and client is not None:
            raise TypeError("client= is for trials on Dask: it cannot be given with executor=")
        handle.check_client(client)
        if retry_failed and if_exists != "resume":
            raise TypeError(
                "retry_failed=True needs if_exists='resume': a new study has no failed trial"
            )
        options = merge_options("start", options, {**limits, **keywords})
        following = _followers(callbacks, progress)
        if must_exist:
            read_manifest(self._fixed_path())
        if if_exists == "new":
            self.name = free_name(self.storage, self.name)
        resume = if_exists == "resume"
        if resume:
            options = with_last_limits(options, self._fixed_path())
        options.check_ends(self.problem.scheduler, self.problem.searcher)
        if max_t is None:
            options.warn_if_too_few(self.problem.scheduler)
        directory = self._fixed_path()
        check_startable(directory, self.problem, resume=resume, job_is_over=is_over)
        if max_t == extended(self.problem.scheduler, directory).max_t:
            max_t = None  # another call of the same extension continues it
        if max_t is not None:
            options.warn_if_too_few(check_extension(directory, self.problem, max_t))
        on_dask = partial(handle.start, client=client)
        begin = on_dask if executor is None else partial(thread.start, executor=executor)
        return begin(
            problem=self.problem,
            directory=directory,
            store=open_store(directory),
            trainable=self.trainable,
            options=options,
            resume=resume,
            retry_failed=retry_failed,
            max_t=max_t,
            source=self.source,
            callbacks=following,
        )

    def submit(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        *,
        walltime: float | str,
        **keywords: Unpack[SubmitKeywords],
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
        **keywords : ``workers``, ``chain``, ``one_allocation`` and the controller's own, which
            :class:`daskhpo.remote.submit.SubmitKeywords` describes; and ``options`` of
            :meth:`start`, or its keywords such as ``resources``. By default a trial has the GPU,
            or the part of one, that a worker has.

        Raises
        ------
        TypeError, ValueError : an argument is not valid, or the job could not find or import the
            study.
        StudyExists : nothing is left to do.
        StudyLocked : the study is running, or was submitted already.
        StudyMismatch : the directory belongs to another study.
        CommandError : Slurm is not available here, or refuses the job.
        """
        given = self._prepare(num_trials, time_budget, target, walltime=walltime, **keywords)
        submit(self.problem, self.path, given)
        return AttachedStudy(self.path, _followers((), progress=True))

    def job_script(
        self,
        num_trials: int | None = None,
        time_budget: float | str | None = None,
        target: float | None = None,
        *,
        walltime: float | str,
        **keywords: Unpack[SubmitKeywords],
    ) -> str:
        """Return the script that :meth:`submit` would submit; write and start nothing."""
        given = self._prepare(num_trials, time_budget, target, walltime=walltime, **keywords)
        return controller_script(given, JobDirectory(self.path))

    def _prepare(self, *limits: Any, **keywords: Any) -> Submission:
        check_not_loading("submit")
        if self.trainable is None:
            raise TypeError("this study has no trainable: a job would have nothing to train")
        return prepare(self.problem, self._fixed_path(), source_of(self), *limits, **keywords)

    def attach(self, callbacks: Sequence[Callback] = (), progress: bool = True) -> AttachedStudy:
        """Follow the study while another process runs it, on any machine.

        ``wait()`` follows it until it ends, and Ctrl-C leaves it running; ``stop()`` ends it;
        ``status()`` counts its trials by status.

        Raises
        ------
        FileNotFoundError : the directory holds no study.
        StudyNotRunning : no process runs the study, and no job is going to.
        """
        return attach(self._fixed_path(), _followers(callbacks, progress))

    def ask(self) -> AskedTrial | None:
        """Return the next trial for you to run.

        None: the study first needs reports of running trials, or it has no further trial. The
        first call opens the study's directory and continues what it holds; :meth:`close` closes
        it. The trainable may be None. Threads may call this and :meth:`tell` at the same time.
        """
        with self._opening:
            if self._asktell is None:
                self._asktell = AskTellSession(
                    self._fixed_path(), self.problem, resume=True, job_is_over=is_over
                )
            session = self._asktell
        return session.ask()

    def tell(self, trial: AskedTrial, metrics: Mapping[str, Any]) -> bool:
        """Report one unit of training. True: train on; False: ask for another trial.

        Raises
        ------
        MetricError : the metrics are not a flat dict of numbers with the study's metric in it.
        ValueError : the trial is finished, or was not asked for in this session.
        """
        check_kind("trial", trial, AskedTrial, "a trial that ask() returned")
        session = self._asktell
        if session is None:
            raise ValueError(f"{trial!r} was not asked for in this session: call ask() first")
        return session.tell(trial, metrics)

    def close(self) -> None:
        """End the session of :meth:`ask`; another process may then continue the study."""
        with self._opening:
            if self._asktell is not None:
                self._asktell.close()
                self._asktell = None

    def branch(
        self,
        name: str,
        seconds: float | None = None,
        *,
        space: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        scheduler: Scheduler | None = None,
        searcher: Searcher | None = None,
    ) -> Study:
        """Create a study in ``storage/name`` that begins as a copy of this one.

        The branch has this study's journal up to a point, and its checkpoints. Their bytes are not
        copied if the file system has hard links. :meth:`resume` continues the branch. The two
        studies are then independent, and either may be deleted. This study may be running.

        Only checkpoints that were committed then and still exist can be shared: a trial without
        its own begins at an older one, or trains again from its start. Its reports remain valid.

        Parameters
        ----------
        name : of the new study's directory, which must not exist.
        seconds : point in this study's time (see ``Result.history()``); None: the current end of
            its journal.
        space : a changed space, in which all trials must have a place: wider ranges, more values,
            new hyperparameters. None: the same.
        defaults : values of the new hyperparameters for the trials that this study has.
        scheduler : another one, from which all that is recorded must follow, such as one with a
            larger ``max_t`` while no trial has reached the old one. None: the same.
        searcher : another one, which learns from the trials that this study has. None: the same.

        Raises
        ------
        ValueError, TypeError : an argument is not valid.
        FileNotFoundError : this study has not been started.
        StudyExists : ``storage/name`` exists.
        StudyMismatch : the study in this one's directory has another definition; or its record
            does not follow from the changed one, and the message says where.
        """
        source = self._fixed_path()
        other = self.at(self.storage / check_name(name))
        if all(each is None for each in (space, scheduler, searcher)):
            if defaults is not None:
                raise TypeError("defaults= is for a space= with new hyperparameters")
            branch(source, other.path, self.problem, seconds)
            return other
        problem = self.problem
        other.problem = Problem(
            problem.space if space is None else Space(space),
            problem.objective,
            problem.scheduler if scheduler is None else scheduler,
            problem.searcher if searcher is None else searcher,
            problem.seed,
            problem.memory_of,
        )
        other.source, other._asktell = None, None
        check_parts(other.problem, self.trainable)
        given = {} if defaults is None else check_mapping("defaults", defaults, of="values")
        if unknown := [name for name in given if name not in other.problem.space]:
            raise InvalidArgument(f"defaults={given}: space= has no {', '.join(map(str, unknown))}")
        branch(source, other.path, problem, seconds, other.problem, given)
        return other

    def result(self) -> Result:
        """Return the results so far; the study may be running."""
        directory = self._fixed_path()
        return Result(study_records(directory), self.problem.objective, directory)


def _unused_name() -> str:
    """Return a name from the time that no other study has."""
    return f"{time.strftime('study-%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


def load_source(source: str) -> Study:
    """Load the study that ``FILE.py:NAME`` defines; see `daskhpo.study.loader.load`."""
    return load(source, Study)


def _followers(callbacks: Sequence[Callback], progress: bool) -> list[Callback]:
    given = check_list("callbacks", callbacks, of="Callback objects")
    for number, callback in enumerate(given):
        check_kind(f"callbacks[{number}]", callback, Callback, "a Callback")
    if not check_bool("progress", progress):
        return given
    return [NotebookProgress() if is_notebook() else ConsoleProgress(), *given]
