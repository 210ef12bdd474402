"""Hugging Face transformers: report each evaluation, save and resume a trainer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from daskhpo.core.errors import CheckpointMissing, MissingLibrary
from daskhpo.integrations.folders import packed, shared_folder, unpack, wait_for_ranks
from daskhpo.integrations.metrics import MetricNames, check_metrics, selected
from daskhpo.trainable import TrialContext

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise MissingLibrary(
        f"{error.name} is not installed: pip install daskhpo[transformers]"
    ) from error

LAST = "checkpoint"


class ReportCallback(TrainerCallback):  # type: ignore[misc]
    """Report each evaluation of a trainer to its trial; the trial may end there.

    One unit is one evaluation, such as an epoch with ``eval_strategy="epoch"``. It adds itself to
    the trainer. Under DDP every rank has this callback, and gets its trial from
    :func:`daskhpo.distributed.launch`.

    Parameters
    ----------
    trial : the second argument of the study's function.
    trainer : its ``args.output_dir`` gets no checkpoint of the trial.
    metrics : names to report, such as ``"eval_loss"``: one, several, or ``{reported name: the
        trainer's}``; None: all numbers of the evaluation.

    Examples
    --------
    The trainer stops where the study decides, and continues from ``resume_from_checkpoint``::

        def train(config, trial):
            args = TrainingArguments(
                "out", num_train_epochs=trial.max_t, eval_strategy="epoch", save_strategy="no", ...
            )
            trainer = Trainer(model, args, train_dataset=..., eval_dataset=...)
            report = ReportCallback(trial, trainer, "eval_loss")
            trainer.train(resume_from_checkpoint=report.resume_from_checkpoint)
    """

    def __init__(self, trial: TrialContext, trainer: Any, metrics: MetricNames = None) -> None:
        self._trial, self._trainer, self._metrics = trial, trainer, check_metrics(metrics)
        self._state = trial.checkpoint
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._trains = False
        trainer.add_callback(self)

    @property
    def resume_from_checkpoint(self) -> str | None:
        """The folder for ``trainer.train(resume_from_checkpoint=)``; None: a new trial."""
        if self._state is None:
            return None
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="daskhpo-")
        folder = Path(self._folder.name, LAST)
        unpack(self._state, folder)
        return str(folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trains = True
        if self._state is not None and state.global_step == 0:
            raise CheckpointMissing(
                f"trial {self._trial.id} resumes after unit {self._trial.resource}, but the "
                "trainer begins at step 0: give trainer.train(resume_from_checkpoint="
                "report.resume_from_checkpoint), where report is the ReportCallback"
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trains = False

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any
    ) -> None:
        if not self._trains:  # the user's own, before or after the training
            return
        self._state = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._trial.report(selected(self._metrics, metrics), state=self._checkpoint)

    def _checkpoint(self) -> dict[str, bytes]:
        """Return the trainer's checkpoint folder; all ranks call this, rank 0 has it."""
        trainer, args = self._trainer, self._trainer.args
        before = args.output_dir
        with tempfile.TemporaryDirectory(prefix="daskhpo-") as own:
            args.output_dir = shared_folder(own)
            try:
                trainer._save_checkpoint(trainer.model, trial=None)
            finally:
                folder, args.output_dir = Path(args.output_dir), before
            wait_for_ranks()
            (made,) = folder.glob(f"{LAST}-*")
            files = packed(made) if trainer.is_world_process_zero() else {}
            wait_for_ranks()  # rank 0's folder is in use until here
        return files
