"""accelerate: the whole state of an accelerator, for a training loop of your own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from daskhpo.integrations.folders import packed, shared_folder, unpack, wait_for_ranks


def save_state(accelerator: Any) -> dict[str, Any]:
    """Return the state of all that was prepared, for ``trial.report(..., state=)``.

    Models, optimizers, schedulers, samplers, random states, and what the user registered for
    checkpointing. All ranks must call it, as ``trial.report`` does.
    """
    with tempfile.TemporaryDirectory(prefix="daskhpo-") as own:
        folder = shared_folder(own)
        accelerator.save_state(folder)
        wait_for_ranks()
        files = packed(Path(folder)) if accelerator.is_main_process else {}
        wait_for_ranks()  # rank 0's folder is in use until here
    # The ranks' common generators of samplers, which accelerate's own checkpoint does not hold.
    generators = [each and each.get_state() for each in _generators(accelerator)]
    return {"files": files, "generators": generators}


def load_state(accelerator: Any, state: dict[str, Any] | None) -> None:
    """Restore a trial's checkpoint after ``accelerator.prepare``; None: do nothing."""
    if state is None:
        return
    with tempfile.TemporaryDirectory(prefix="daskhpo-") as folder:
        unpack(state["files"], Path(folder))
        accelerator.load_state(folder)
    for generator, own in zip(_generators(accelerator), state["generators"], strict=True):
        if generator is not None and own is not None:
            generator.set_state(own)


def _generators(accelerator: Any) -> list[Any]:
    return [getattr(each, "synchronized_generator", None) for each in accelerator._dataloaders]
