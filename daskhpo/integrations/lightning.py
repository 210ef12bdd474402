"""Lightning, of either import name: report each epoch, save and resume."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from daskhpo.core.errors import CheckpointMissing, MissingLibrary
from daskhpo.integrations.metrics import MetricNames, check_metrics, selected
from daskhpo.integrations.random_state import random_state, set_random_state
from daskhpo.trainable import TrialContext

NAMES = ("lightning.pytorch", "pytorch_lightning")


def lightning_bases() -> tuple[type, ...]:
    """Return the base class of callbacks of each Lightning that this process uses."""
    for name in (*(name for name in NAMES if name in sys.modules), *NAMES):
        with contextlib.suppress(ModuleNotFoundError):
            import_module(name)
            used = [sys.modules[name] for name in NAMES if name in sys.modules]
            return tuple(dict.fromkeys(module.Callback for module in used))
    raise MissingLibrary("Lightning is not installed: pip install daskhpo[lightning]")


class ReportCallback(*lightning_bases()):  # type: ignore[misc]
    """Report each epoch of a trainer to its trial; the trial may end there.

    One unit is one epoch, with its validation and the step of its learning-rate schedulers. Under
    DDP every rank has this callback, and gets its trial from :func:`daskhpo.distributed.launch`.

    Parameters
    ----------
    trial : the second argument of the study's function.
    metrics : names of logged values to report: one, several, or ``{reported name: logged name}``;
        None: all. What a module logs in its own ``on_train_epoch_end`` is not among them: it comes
        after the callbacks.

    Examples
    --------
    The trainer stops where the study decides, and continues from ``ckpt_path``::

        def train(config, trial):
            report = ReportCallback(trial, "val_loss")
            trainer = L.Trainer(max_epochs=trial.max_t, callbacks=[report])
            trainer.fit(Net(**config), data, ckpt_path=report.ckpt_path)
    """

    def __init__(self, trial: TrialContext, metrics: MetricNames = None) -> None:
        super().__init__()
        self._trial, self._metrics = trial, check_metrics(metrics)
        self._state = trial.checkpoint
        self._file: tempfile.TemporaryDirectory[str] | None = None
        self._n_reported = 0
        self._found: dict[str, Any] = {}

    @property
    def ckpt_path(self) -> str | None:
        """The file to resume from, for ``trainer.fit``; None: a new trial."""
        if self._state is None:
            return None
        if self._file is None:
            self._file = tempfile.TemporaryDirectory(prefix="daskhpo-")
        path = Path(self._file.name, "trial.ckpt")
        path.write_bytes(self._state["checkpoint"])
        return str(path)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self._state is not None:
            _begin_epoch(checkpoint["loops"]["fit_loop"])

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self._state is not None:  # before the trainer makes the iterators of its loaders
            set_random_state(self._state["random"])

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._n_reported = trainer.current_epoch
        if self._state is None:
            return
        if trainer.current_epoch != self._trial.resource:
            raise CheckpointMissing(
                f"trial {self._trial.id} resumes after epoch {self._trial.resource}, but the "
                f"trainer begins at epoch {trainer.current_epoch}: give trainer.fit(..., "
                "ckpt_path=report.ckpt_path), where report is the ReportCallback"
            )
        self._state = None
        if self._file is not None:
            self._file.cleanup()
            self._file = None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._found = dict(trainer.callback_metrics)  # the next epoch begins with none

    # An epoch's schedulers step after `on_train_epoch_end`: a state of then would lack the step.

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._report(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._report(trainer)

    def _report(self, trainer: Any) -> None:
        if trainer.current_epoch > self._n_reported:
            self._n_reported = trainer.current_epoch
            metrics = selected(self._metrics, self._found)
            self._trial.report(metrics, state=lambda: _state(trainer))


def _begin_epoch(loops: dict[str, Any]) -> None:
    """Let a checkpoint begin with the first batch of its epoch.

    It was taken before that batch, and still has the last epoch's progress, which the trainer
    resets after the callbacks.
    """
    for name, progress in loops.items():
        if name.startswith("epoch_loop.") and name.endswith("progress"):
            for part in (progress, *progress.get("optimizer", {}).values()):
                counts = part.get("current", {})
                counts.update(dict.fromkeys(counts, 0))
                if "is_last_batch" in part:
                    part["is_last_batch"] = False
    # The trainer adds the batch in which, it supposes, the checkpoint was taken.
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def _state(trainer: Any) -> dict[str, Any] | None:
    """Return the trainer's checkpoint; all ranks call this, rank 0 has it."""
    random = random_state()
    with tempfile.TemporaryDirectory(prefix="daskhpo-") as folder:
        path = Path(folder, "trial.ckpt")
        trainer.save_checkpoint(path)
        return {"checkpoint": path.read_bytes(), "random": random} if path.exists() else None
