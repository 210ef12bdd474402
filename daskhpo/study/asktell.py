"""Ask and tell: the user runs the trials, the study decides."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from daskhpo.core.commands import Command, Interrupt, Release, Train
from daskhpo.core.events import (
    Edit,
    Erred,
    SlotsChanged,
    Step,
    StopRequested,
    Trained,
)
from daskhpo.core.types import CheckpointPolicy, Config, Limits, TrialId
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.lock import JobIsOver, no_job_is_over
from daskhpo.engine.session import Session


class AskedTrial:
    """A trial that the user runs.

    Attributes
    ----------
    id, config : number and hyperparameters.
    resource : units of training reported so far; above 0 at first if it was paused before.
    max_t : units at which it is fully trained.
    finished : True if it must not train now: it is paused, or has ended.
    """

    def __init__(self, trial: TrialId, config: Config, resource: int, max_t: int) -> None:
        self.id, self.config = trial, dict(config)
        self.resource, self.max_t = resource, max_t
        self.finished = False

    def __repr__(self) -> str:
        return f"AskedTrial({self.id}, {self.config}, resource={self.resource})"


class AskTellSession:
    """A session whose slots are the trials that a user has asked for.

    Nothing is checkpointed. A user who gets a paused trial again restores its state, or trains it
    again up to ``trial.resource`` without reporting. Threads may share a session: it does one thing
    after another.

    Raises
    ------
    ValueError : the scheduler continues states with new hyperparameters, as PBT does.

    Examples
    --------
    >>> import tempfile
    >>> from daskhpo import Study
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

    def __init__(
        self,
        directory: Path,
        problem: Problem,
        *,
        resume: bool,
        job_is_over: JobIsOver = no_job_is_over,
    ) -> None:
        if names := ", ".join(problem.scheduler.mutates):
            raise ValueError(
                f"the scheduler continues states with another {names}, but with ask() and tell() "
                "the study has no states: give a trainable and use run(), or use another scheduler"
            )
        self._turn, self._closed = threading.Lock(), False
        self._asked_to_stop: list[str] = []  # reasons that other processes gave
        self._edits: deque[Edit] = deque()  # what else they ask
        self._session = Session(
            directory,
            problem,
            Limits(),
            CheckpointPolicy("never"),
            resume=resume,
            on_stop=self._asked_to_stop.append,
            on_edit=self._edits.append,
            job_is_over=job_is_over,
        )
        self._coordinator = self._session.coordinator
        self._max_t = self._coordinator.scheduler.max_t  # larger if the study was extended
        self._objective = problem.objective
        self._zero = time.monotonic() - self._session.began_at
        self._ready: deque[Train] = deque()
        self._asked: dict[TrialId, tuple[AskedTrial, int]] = {}
        self._interrupted: set[TrialId] = set()
        self._perform(self._session.commands)

    def ask(self) -> AskedTrial | None:
        """Return the next trial to run.

        None: the study first needs reports of running trials, or it has no further trial.
        """
        with self._turn:
            if self._closed:
                raise ValueError("the session was closed meanwhile by another thread")
            return self._ask()

    def _ask(self) -> AskedTrial | None:
        self._handle_requests()
        if not self._ready:  # slots exist only while a user asks: no trial starts earlier
            self._handle(SlotsChanged(len(self._asked) + 1, self._now()))
            self._handle(SlotsChanged(0, self._now()))
        if not self._ready or self._coordinator.stop_reason is not None:
            return None
        job = self._ready.popleft()
        trial = AskedTrial(job.trial, job.config, self._reported_resource(job), self._max_t)
        self._asked[job.trial] = (trial, job.attempt)
        return trial

    def tell(self, trial: AskedTrial, metrics: Any) -> bool:
        """Report one unit of training. False: the trial is finished for now.

        Raises
        ------
        MetricError : the metrics are not a flat dict of numbers with the study's metric in it.
        ValueError : the trial is finished, or was never asked for.
        """
        with self._turn:
            return self._tell(trial, metrics)

    def _tell(self, trial: AskedTrial, metrics: Any) -> bool:
        if trial.id not in self._asked or self._asked[trial.id][0] is not trial:
            raise ValueError(f"{trial!r} does not run: it is finished, or was never asked for")
        plain = self._objective.check(metrics)
        self._handle_requests()
        attempt, now = self._asked[trial.id][1], self._now()
        if math.isinf(self._objective.loss(plain)):
            error = f"{self._objective.metric}={plain[self._objective.metric]!r} is not finite"
            self._handle(Erred(trial.id, attempt, error, now, retry=False))
        else:
            step = Step(trial.resource + 1, plain, now)
            preempted = trial.id in self._interrupted
            self._handle(Trained(trial.id, attempt, (step,), now, preempted=preempted))
            trial.resource += 1
        return not trial.finished

    def close(self) -> None:
        """End the session; a later one gives out its unfinished trials again."""
        with self._turn:
            self._closed = True
            self._asked.clear()  # nothing may be told from now on
            self._session.close()

    def _handle_requests(self) -> None:
        while self._edits:
            self._handle(replace(self._edits.popleft(), seconds=self._now()))
        if self._asked_to_stop:
            self._handle(StopRequested(self._asked_to_stop.pop(), self._now()))

    def _reported_resource(self, job: Train) -> int:
        # Without checkpoints the ledger counts from 0 again; the user has trained further.
        return self._coordinator.ledger.trials[job.trial].decided_at

    def _handle(self, event: Any) -> None:
        commands = self._coordinator.handle(event)
        self._session.journal.flush()
        self._perform(commands)

    def _perform(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Train(launch=True):
                    self._ready.append(command)
                case Interrupt(number):
                    self._interrupted.add(number)  # it is finished after its next report
                case Release(number) if number in self._asked:
                    self._asked.pop(number)[0].finished = True
                case _:
                    pass  # a trial that continues needs no message; nothing is saved here

    def _now(self) -> float:
        return time.monotonic() - self._zero
