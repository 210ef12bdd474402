"""Functions that a trial's code calls: report, get_checkpoint, get_context."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from daskhpo.core.errors import MetricError
from daskhpo.core.objective import single_number
from daskhpo.trainable import TrialContext
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.messages import say
from daskhpo.tune.names import ITERATION, trial_name
from daskhpo.tune.stopper import Rules

_current: ContextVar[Session | None] = ContextVar("daskhpo-tune-session", default=None)
_running: list[Session] = []  # also seen by threads that a trial's code starts
_of_rank: list[Session] = []  # in a process of `daskhpo.distributed`: its session


class Session:
    """A running trial, as Ray Tune's functions see it.

    Attributes
    ----------
    config : the nested configuration.
    iteration : reports so far; less than the trial has made if it trains some units again.
    state : newest checkpoint that was reported, as a state; None: none.
    experiment, name : of the study, and of the trial in it.
    at_end : called when the trial leaves this process.
    """

    def __init__(self, trial: TrialContext, config: dict[Any, Any], rules: Rules) -> None:
        self.trial, self.config, self._rules = trial, config, rules
        self.experiment = rules.experiment
        self.name = f"{rules.experiment}-{trial_name(trial.id)}"
        self.at_end: list[Callable[[], Any]] = []
        self._stopper = rules.new_stopper()
        self._results: list[dict[str, Any]] = []  # for a stopper, in the next process
        self.iteration = 0
        self.state: dict[str, Any] | None = None
        self._seconds, self._began = 0.0, time.monotonic()
        self._saved: Callable[[], Any] = lambda: None  # the state to continue from
        self._next: Checkpoint | None = None  # from `checkpoint_dir`
        self.folder: str | None = None

    def begin(self, saved: Callable[[], Mapping[str, Any] | None]) -> None:
        """Begin, perhaps with a state from which the code may continue."""
        self._saved = saved

    def continue_from_state(self) -> Checkpoint | None:
        """Return the checkpoint; from now on, reports follow those that it has.

        Raises
        ------
        MetricError : it is not one of this module's.
        """
        saved = self._saved()
        if saved is None:
            return None
        if "iteration" not in saved:
            raise MetricError("the checkpoint was not made by daskhpo.tune")
        if self.iteration == 0 and saved["iteration"] > 0:
            self.iteration, self._seconds = saved["iteration"], saved["seconds"]
            self.state = saved
            for result in saved["results"]:
                self._feed(dict(result))
        return Checkpoint.unpacked(saved)

    def snapshot(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return a checkpoint as a state at this iteration."""
        seconds = self._seconds + time.monotonic() - self._began
        position = {"iteration": self.iteration, "seconds": seconds}
        return checkpoint.packed() | position | {"results": list(self._results)}

    def next_result(self, metrics: Any) -> tuple[dict[str, Any], dict[str, float], bool]:
        """Count a report; return Ray's result, the study's metrics, and whether it ends."""
        if not isinstance(metrics, Mapping):
            number = single_number(metrics)
            if number is None:
                raise MetricError(f"reported a {type(metrics).__name__}: report a dict")
            metrics = {self._rules.metric: number}
        self.iteration += 1
        numbers = self._rules.numbers(metrics, self.iteration)
        result: dict[str, Any] = dict(numbers) | {
            ITERATION: self.iteration,
            "time_total_s": self._seconds + time.monotonic() - self._began,
            "trial_id": trial_name(self.trial.id),
            "done": bool(metrics.get("done")),
        }
        is_done = self._feed(result) or result["done"]
        return result, numbers, is_done

    def _feed(self, result: dict[str, Any]) -> bool:
        done = self._rules.is_reached(result)
        if self._stopper is not None:
            self._results.append(result)
            done = bool(self._stopper(trial_name(self.trial.id), result)) or done
        return done

    def report(self, metrics: Any, checkpoint: Checkpoint | None) -> None:
        """Report of a function; returns when the trial continues."""
        _, numbers, is_done = self.next_result(metrics)
        if checkpoint is None:
            checkpoint, self._next = self._next, None
        if checkpoint is not None:
            self.state = self.snapshot(checkpoint)
        if self.iteration <= self.trial.resource:
            return  # this unit was reported before; it is trained again
        if is_done:
            self.trial.complete()
        state = self.state
        self.trial.report(numbers, state=None if state is None else lambda: state)

    def attach(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint for the next report."""
        files = Checkpoint.unpacked(checkpoint.packed())
        self._next = files

    def trial_folder(self) -> str:
        """Return a folder of this machine for the trial's own files."""
        if self.folder is None:
            self.folder = tempfile.mkdtemp(prefix=f"daskhpo-trial-{self.trial.id}-")
        return self.folder

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let the functions of this file mean this trial."""
        token = _current.set(self)
        _running.append(self)
        try:
            yield
        finally:
            _running.remove(self)
            _current.reset(token)

    def close(self) -> None:
        """End what the trial's code has begun, and remove its folder."""
        for end in self.at_end:
            end()
        self.at_end.clear()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class LaunchingTrial:
    """The trial of a function, as `daskhpo.distributed.launch` takes it.

    It is a :class:`daskhpo.trainable.TrialContext`; what its ranks report counts as the function's.
    """

    def __init__(self, session: Session) -> None:
        trial = session.trial
        self.id, self.config, self.seed = trial.id, session.config, trial.seed
        self.max_t, self.device, self.devices = trial.max_t, trial.device, trial.devices
        self.should_stop, self.complete = trial.should_stop, trial.complete
        self.remaining_walltime = trial.remaining_walltime
        self._session = session
        saved = session.continue_from_state()
        self.checkpoint = None if saved is None else saved.to_dict()["ranks"]
        session.iteration = trial.resource  # ranks do not report again what was reported

    @property
    def resource(self) -> int:
        """Units of training done."""
        return self._session.trial.resource

    def report(self, metrics: Any, state: Callable[[], Any] | None = None) -> None:
        """Report one unit of the ranks."""
        session = self._session
        _, numbers, is_done = session.next_result(metrics)
        if is_done:
            self.complete()
        made = None
        if state is not None:
            made = lambda: session.snapshot(Checkpoint(data={"ranks": state()}))  # noqa: E731
        session.trial.report(numbers, made)


def session_or_none() -> Session | None:
    """Return the running trial's session; None: no trial runs here."""
    session = _current.get()
    if session is None and len(_running) == 1:
        return _running[0]
    return session or _session_of_rank()


def _session_of_rank() -> Session | None:
    """Return the session of a process that `daskhpo.distributed.launch` has started."""
    from daskhpo.distributed import current_trial

    trial: Any = current_trial()
    if trial is None:
        return None
    if not _of_rank:
        _of_rank.append(Session(trial, dict(trial.config), Rules("")))
        _of_rank[0].begin(lambda: trial.checkpoint)
    return _of_rank[0]


def current(what: str) -> Session:
    """Return the running trial's session.

    Raises
    ------
    RuntimeError : no trial of `daskhpo.tune` runs here.
    """
    session = session_or_none()
    if session is None:
        raise RuntimeError(
            f"tune.{what}() was called outside a trial: it is for the function or class that "
            "tune.run or tune.Tuner trains"
        )
    return session


def is_session_enabled() -> bool:
    """Return True in the code of a trial."""
    return session_or_none() is not None


def report(metrics: Any = None, *, checkpoint: Checkpoint | None = None, **kwargs: Any) -> None:
    """Report one unit of training: ``report({"loss": 0.1})``, or ``report(loss=0.1)``.

    Outside a trial it does nothing, so that a function can be called by hand.
    """
    if metrics is None:
        metrics = kwargs
    elif kwargs and isinstance(metrics, Mapping):
        metrics = {**metrics, **kwargs}
    if (session := session_or_none()) is None:
        say("tune.report() outside a trial", "does nothing")
    else:
        session.report(metrics, checkpoint)


def log(**metrics: Any) -> None:
    """Report one unit of training, as ``tune.track.log(loss=0.1)``."""
    report(metrics)


def get_checkpoint() -> Checkpoint | None:
    """Return the checkpoint to continue from, or None; None outside a trial, too."""
    session = session_or_none()
    return None if session is None else session.continue_from_state()


@contextmanager
def checkpoint_dir(step: int | None = None) -> Iterator[str]:
    """Give a folder for a checkpoint, which belongs to the next report."""
    session = session_or_none()
    with tempfile.TemporaryDirectory(prefix="daskhpo-checkpoint-") as folder:
        yield folder
        if session is not None:
            session.attach(Checkpoint(folder))


class TuneContext:
    """Context of a trial, which ``tune.get_context()`` returns, also in its ranks.

    The numbers of ranks are those of `daskhpo.distributed.launch`; a function that starts none is
    the only one.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def trial(self) -> LaunchingTrial:
        """The trial of a function, for `daskhpo.distributed.launch`."""
        return LaunchingTrial(self._session)

    def get_trial_id(self) -> str:
        """Return the trial's number as text."""
        return trial_name(self._session.trial.id)

    get_trial_name = get_trial_id

    def get_experiment_name(self) -> str:
        """Return the study's name; that of the trained function, if it was given none."""
        return self._session.experiment

    def get_trial_dir(self) -> str:
        """Return a folder of this machine, which is removed with the trial."""
        return self._session.trial_folder()

    def get_trial_resources(self) -> dict[str, Any]:
        """Return the trial's devices."""
        return {"devices": list(self._session.trial.devices)}

    def get_world_size(self) -> int:
        """Return the number of the trial's ranks."""
        return self._of_rank("WORLD_SIZE", 1)

    def get_local_world_size(self) -> int:
        """Return the number of ranks on this node."""
        return self._of_rank("LOCAL_WORLD_SIZE", 1)

    def get_world_rank(self) -> int:
        """Return the number of this rank."""
        return self._of_rank("RANK", 0)

    def get_local_rank(self) -> int:
        """Return the number of this rank on its node."""
        return self._of_rank("LOCAL_RANK", 0)

    def get_node_rank(self) -> int:
        """Return the number of this node among the trial's."""
        return self._of_rank("GROUP_RANK", 0)

    def _of_rank(self, variable: str, alone: int) -> int:
        return int(os.environ[variable]) if self._session in _of_rank else alone


def get_context() -> TuneContext:
    """Return the running trial's context."""
    return TuneContext(current("get_context"))


def get_trial_id() -> str:
    """Return the running trial's number as text."""
    return get_context().get_trial_id()


get_trial_name = get_trial_id


def get_experiment_name() -> str:
    """Return the running trial's study."""
    return get_context().get_experiment_name()


def get_world_size() -> int:
    """Return the number of the running trial's ranks."""
    return get_context().get_world_size()


def get_local_world_size() -> int:
    """Return the number of ranks on this node."""
    return get_context().get_local_world_size()


def get_world_rank() -> int:
    """Return the number of this rank."""
    return get_context().get_world_rank()


def get_local_rank() -> int:
    """Return the number of this rank on its node."""
    return get_context().get_local_rank()


def get_node_rank() -> int:
    """Return the number of this node among the trial's."""
    return get_context().get_node_rank()


def get_trial_dir() -> str:
    """Return a folder of this machine for the trial's files, removed with the trial."""
    return get_context().get_trial_dir()


def get_trial_resources() -> dict[str, Any]:
    """Return the running trial's devices."""
    return get_context().get_trial_resources()


def shutdown() -> None:
    """Do nothing: `track.shutdown`."""


trial_dir, trial_id = get_trial_dir, get_trial_id  # of `track`
