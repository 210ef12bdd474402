"""Trainables in Ray Tune's words, and what runs them as trials of a study."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from daskhpo import trainable as core
from daskhpo.core.arguments import shown
from daskhpo.core.errors import InvalidArgument
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.messages import cannot, no_effect, say
from daskhpo.tune.names import ITERATION, trial_name
from daskhpo.tune.session import Session
from daskhpo.tune.space import ParamSpace
from daskhpo.tune.stopper import Rules

UNCALLED = ("export_model", "log_result", "resource_help")  # hooks that Ray calls
registered: dict[str, Any] = {}


class Trainable:
    """A trial as a class: `setup` and `step`; `save_checkpoint` and `load_checkpoint`.

    The names of 2020 work, too: `_setup`, `_train`, `_save`, `_restore`, `_stop`.

    Attributes
    ----------
    config : the configuration.
    iteration : units trained so far.
    """

    _session: Session | None = None

    def __init__(self, config: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.config = copy.copy(config or {})
        self._iteration = 0
        for name in UNCALLED:
            if hasattr(self, name):
                say(f"{name} of {type(self).__name__}", "is not called")
        self.setup(self.config)

    def setup(self, config: dict[str, Any]) -> None:
        """Build what the trial needs."""
        if hasattr(self, "_setup"):
            self._setup(config)

    def step(self) -> dict[str, Any]:
        """Train one unit, and return its metrics."""
        if hasattr(self, "_train"):
            return self._train()  # type: ignore[no-any-return]
        raise NotImplementedError(f"{type(self).__name__} does not define step()")

    def save_checkpoint(self, checkpoint_dir: str) -> Any:
        """Write files to a folder, or return a dict; None: the folder."""
        if hasattr(self, "_save"):
            return self._save(checkpoint_dir)
        raise NotImplementedError(f"{type(self).__name__} does not define save_checkpoint()")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Restore what :meth:`save_checkpoint` returned: a folder, a file or a dict."""
        if hasattr(self, "_restore"):
            self._restore(checkpoint)
            return
        raise NotImplementedError(f"{type(self).__name__} does not define load_checkpoint()")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial; True if this was done."""
        return bool(self._reset_config(new_config)) if hasattr(self, "_reset_config") else False

    def cleanup(self) -> None:
        """Release what :meth:`setup` acquired."""
        if hasattr(self, "_stop"):
            self._stop()

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> Any:
        """Return what a trial needs; None: one CPU."""
        return None

    @property
    def iteration(self) -> int:
        """Units trained so far."""
        return self._iteration

    training_iteration = iteration

    @property
    def trial_id(self) -> str:
        """Number of the trial, as text; ``"default"`` outside a study."""
        return "default" if self._session is None else trial_name(self._session.trial.id)

    trial_name = trial_id

    @property
    def logdir(self) -> str:
        """A folder of this machine, which is removed with the trial."""
        if self._session is None:
            return tempfile.gettempdir()
        return self._session.trial_folder()

    @property
    def trial_resources(self) -> dict[str, Any]:
        """Devices of the trial."""
        return {} if self._session is None else {"devices": list(self._session.trial.devices)}

    def get_config(self) -> dict[str, Any]:
        """Return the configuration."""
        return self.config

    def train(self) -> dict[str, Any]:
        """Train one unit outside a study."""
        result = dict(self.step())
        self._iteration += 1
        return result | {ITERATION: self._iteration}

    def save(self, checkpoint_dir: str | None = None) -> Checkpoint:
        """Return a checkpoint, outside a study."""
        return Checkpoint.unpacked(_saved(self) | {"iteration": self._iteration})

    def restore(self, checkpoint: Any) -> None:
        """Restore a checkpoint, such as that of a study's best trial."""
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint.from_directory(checkpoint)
        _restore(self, checkpoint.packed())

    def stop(self) -> None:
        """Release everything."""
        self.cleanup()


class DurableTrainable(Trainable):
    """A class of 2020 whose checkpoints are copied to a storage: a study's always are."""

    def __init__(self, config: dict[str, Any] | None = None, *args: Any, **kwargs: Any) -> None:
        given = {"remote_checkpoint_dir": args[0] if args else kwargs.get("remote_checkpoint_dir")}
        no_effect(given, "checkpoints are in the study's directory")
        super().__init__(config)


class FunctionTrial:
    """A trial whose code is a function of Ray Tune: of ``config``, and perhaps more.

    Parameters
    ----------
    function : it reports by ``tune.report``, by its second argument, or by what it returns.
    """

    def __init__(self, function: Callable[..., Any], params: ParamSpace, rules: Rules) -> None:
        self._function, self._params, self._rules = function, params, rules
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self._takes = _second_parameter(function)

    def __call__(self, config: Mapping[str, Any], trial: core.TrialContext) -> None:
        session = Session(trial, self._params.config(config, trial.seed), self._rules)
        session.begin(lambda: trial.checkpoint)
        arguments: list[Any] = [session.config]
        if self._takes == "reporter":
            arguments.append(_Reporter(session))
        elif self._takes == "checkpoint_dir":
            checkpoint = session.continue_from_state()
            arguments.append(None if checkpoint is None else checkpoint.path)
        try:
            with session.active():
                returned = self._function(*arguments)
                if inspect.isgenerator(returned):
                    for metrics in returned:
                        session.report(metrics, None)
                elif returned is not None or session.iteration == 0:
                    session.report({} if returned is None else returned, None)
        finally:
            session.close()


class ClassTrial(core.Trainable):
    """A trial whose code is a class of Ray Tune; a study has a subclass of it.

    Attributes
    ----------
    user_class, params, rules, reuse : the class; its configuration; when it stops; True: an object
        may serve several trials.
    """

    user_class: ClassVar[type[Trainable]]
    params: ClassVar[ParamSpace]
    rules: ClassVar[Rules]
    reuse: ClassVar[bool] = False

    def setup(self, config: Mapping[str, Any]) -> None:
        self.session = Session(self.trial, self._config(config), self.rules)
        with self.session.active():
            self.object = self._made()

    def step(self) -> Mapping[str, Any]:
        with self.session.active():
            metrics = self.object.step()
        _, numbers, is_done = self.session.next_result(metrics)
        self.object._iteration = self.session.iteration
        if is_done:
            self.trial.complete()
        return numbers

    def save_checkpoint(self) -> Any:
        with self.session.active():
            try:
                state = _saved(self.object)
            except NotImplementedError:
                return None
        position = self.session.snapshot(Checkpoint(data={}))
        return {name: position[name] for name in ("iteration", "seconds", "results")} | state

    def load_checkpoint(self, state: Any) -> None:
        self.session.begin(lambda: state)
        self.session.continue_from_state()
        with self.session.active():
            _restore(self.object, state)

    def reset_config(self, config: Mapping[str, Any]) -> bool:
        if not self.reuse:
            return False
        session = Session(self.trial, self._config(config), self.rules)
        with session.active():
            if not self.object.reset_config(session.config):
                return False
        self.session.close()
        self.session = self.object._session = session
        self.object.config, self.object._iteration = session.config, 0
        return True

    def cleanup(self) -> None:
        try:
            self.object.cleanup()
        finally:
            self.session.close()

    def _config(self, config: Mapping[str, Any]) -> dict[Any, Any]:
        return self.params.config(config, self.trial.seed)

    def _made(self) -> Trainable:
        made = self.user_class.__new__(self.user_class)
        made._session = self.session
        made.__init__(self.session.config)  # type: ignore[misc]
        return made


class _Reporter:
    """The second argument of a function of 2018: ``reporter(loss=0.1)``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, metrics: Any = None, **kwargs: Any) -> None:
        self._session.report(kwargs if metrics is None else metrics, None)


def trial_of(trainable: Any, params: ParamSpace, rules: Rules, reuse: bool) -> Any:
    """Return what a study trains for a function or class of Ray Tune."""
    if not isinstance(trainable, type):
        return FunctionTrial(trainable, params, rules)
    attributes = {"user_class": trainable, "params": params, "rules": rules, "reuse": reuse}
    return type(trainable.__name__, (ClassTrial,), {**attributes, "__module__": "__main__"})


def checked(trainable: Any) -> Any:
    """Return a function or class; a name that was registered stands for one.

    Raises
    ------
    InvalidArgument : it is neither.
    """
    if isinstance(trainable, str):
        if trainable not in registered:
            raise InvalidArgument(
                f"no trainable is registered as {trainable!r}: call tune.register_trainable first"
            )
        trainable = registered[trainable]
    if isinstance(trainable, type):
        if issubclass(trainable, core.Trainable):
            cannot(
                f"tune.run({trainable.__name__}), whose class is daskhpo.Trainable",
                "give it to daskhpo.Study, or derive it from tune.Trainable",
            )
        if not issubclass(trainable, Trainable):
            raise InvalidArgument(f"{trainable.__name__} must be a subclass of tune.Trainable")
        has_step = trainable.step is not Trainable.step or hasattr(trainable, "_train")
        if not has_step:
            raise InvalidArgument(f"{trainable.__name__} does not define step()")
    elif hasattr(trainable, "as_trainable"):
        cannot(
            type(trainable).__name__,
            "start ranks by daskhpo.distributed.launch(function, tune.get_context().trial, 2)",
        )
    elif not callable(trainable):
        raise InvalidArgument(f"{shown(trainable)} must be a function or a tune.Trainable")
    else:
        _second_parameter(trainable)
    return trainable


def register_trainable(name: str, trainable: Any, warn: bool = True) -> None:
    """Let a name stand for a function or class."""
    registered[name] = trainable


def get_trainable_cls(name: str) -> Any:
    """Return the function or class of a name."""
    return checked(name)


def has_trainable(name: str) -> bool:
    """Return True if the name stands for a function or class."""
    return name in registered


def is_function_trainable(trainable: Any) -> bool:
    """Return True for a function, False for a class."""
    return not isinstance(checked(trainable), type)


def validate_trainable(trainable: Any) -> Any:
    """Return the function or class, checked."""
    return checked(trainable)


def with_parameters(trainable: Any, **kwargs: Any) -> Any:
    """Return a trainable that also gets these objects; each worker receives them once."""
    trainable = checked(trainable)
    if not isinstance(trainable, type):
        return _WithParameters(trainable, kwargs)

    class WithParameters(trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            super().setup(config, **kwargs)

    WithParameters.__name__ = WithParameters.__qualname__ = trainable.__name__
    return WithParameters


class _WithParameters:
    """A function with some of its keyword arguments."""

    def __init__(self, function: Callable[..., Any], kwargs: dict[str, Any]) -> None:
        self.function, self.kwargs = function, kwargs
        self.__name__ = getattr(function, "__name__", "function")
        parameters = inspect.signature(function).parameters.values()
        left = [p for p in parameters if p.name not in kwargs]
        self.__signature__ = inspect.Signature(left)
        self.resources = getattr(function, "resources", None)

    def __call__(self, config: Any, *more: Any) -> Any:
        return self.function(config, *more, **self.kwargs)


def with_resources(trainable: Any, resources: Any) -> Any:
    """Return a trainable whose trials need these: ``{"cpu": 2, "gpu": 1}``."""
    trainable = checked(trainable)
    if isinstance(trainable, type):
        made: Any = type(trainable.__name__, (trainable,), {})
    else:
        made = _WithParameters(trainable, {})
    made.resources = resources
    return made


def resources_of(trainable: Any, config: Mapping[str, Any]) -> Any:
    """Return what a trainable says that its trials need, or None."""
    given = getattr(trainable, "resources", None)
    if given is None and isinstance(trainable, type):
        given = trainable.default_resource_request(dict(config))  # type: ignore[attr-defined]
    return given(dict(config)) if callable(given) and not isinstance(given, Mapping) else given


def _second_parameter(function: Any) -> str:
    """Return the meaning of a function's second parameter; ``""``: it has none."""
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except ValueError:
        return ""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in parameters if p.kind in kinds]
    starred = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    if not positional and not starred:
        raise InvalidArgument(f"{shown(function)} must take config: def train(config)")
    names = [p.name for p in positional]
    if "checkpoint_dir" in names[1:]:
        return "checkpoint_dir"
    needed = [p for p in positional[1:] if p.default is inspect.Parameter.empty]
    if len(needed) > 1:
        raise InvalidArgument(
            f"{shown(function)} needs {', '.join(p.name for p in needed)}: give them by "
            "tune.with_parameters"
        )
    return "reporter" if needed else ""


@contextmanager
def _folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="daskhpo-checkpoint-") as folder:
        yield folder


def _saved(made: Trainable) -> dict[str, Any]:
    with _folder() as folder:
        returned = made.save_checkpoint(folder)
        if isinstance(returned, Mapping):
            return {"data": dict(returned), "metadata": {}, "returned": None}
        place = None if returned is None else Path(returned).relative_to(folder).as_posix()
        return {**Checkpoint(folder).packed(), "returned": place}


def _restore(made: Trainable, state: Mapping[str, Any]) -> None:
    checkpoint = Checkpoint.unpacked(state)
    made._iteration = state.get("iteration", 0)
    if "data" in state:
        made.load_checkpoint(checkpoint.to_dict())
        return
    place = state.get("returned")
    if place is None and hasattr(made, "_restore"):  # in 2020 a file was given
        names = [name for name in state["files"] if "/" not in name]
        place = names[0] if len(names) == 1 else None
    made.load_checkpoint(checkpoint.path if place is None else str(Path(checkpoint.path, place)))
