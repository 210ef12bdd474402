"""`ray.tune.integration.wandb`: runs of W&B, by a study or by a trial's code."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daskhpo.core.libraries import need
from daskhpo.tune.logger import WandbLogger, WandbLoggerCallback
from daskhpo.tune.session import session_or_none
from daskhpo.tune.trainable import Trainable

__all__ = [
    "WandbLogger",
    "WandbLoggerCallback",
    "WandbTrainableMixin",
    "setup_wandb",
    "wandb_mixin",
]


def setup_wandb(
    config: Mapping[str, Any] | None = None,
    api_key: str | None = None,
    api_key_file: str | None = None,
    rank_zero_only: bool = True,
    **kwargs: Any,
) -> Any:
    """Begin a run of W&B for the running trial, and return it; it ends with the trial.

    The study is its group, and a trial that continues elsewhere continues its run.

    Parameters
    ----------
    config : the trial's; its ``"wandb"``, if it has that, are options.
    api_key, api_key_file : for W&B; by default as W&B finds it.
    rank_zero_only : without effect: a trial is one process.
    **kwargs : for ``wandb.init``.

    Raises
    ------
    MissingLibrary : W&B is not installed.
    """
    need("wandb", "wandb")
    import wandb

    session = session_or_none()
    config = dict(config or {})
    options = {**config.pop("wandb", {}), **kwargs}
    key, file = options.pop("api_key", api_key), options.pop("api_key_file", api_key_file)
    if file is not None:
        key = Path(file).expanduser().read_text().strip()
    if key is not None:
        os.environ["WANDB_API_KEY"] = key
    if session is None:
        return wandb.init(config=config, **options)
    own = {"id": session.name, "name": session.name, "group": session.experiment}
    run = wandb.init(**{**own, "resume": "allow", "config": config, **options})
    # Its service is a process of the trial's, which ends with it: the next trial starts another.
    session.at_end += [run.finish, wandb.teardown]
    return run


def wandb_mixin(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the trainable with a run of W&B; ``config["wandb"]`` has its options."""
    if isinstance(function, type):
        return type(function.__name__, (WandbTrainableMixin, function), {})

    @functools.wraps(function)
    def with_run(config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        setup_wandb(config)
        return function(config, *args, **kwargs)

    return with_run


class WandbTrainableMixin(Trainable):
    """A class whose trials have a run of W&B; ``config["wandb"]`` has its options."""

    def __init__(self, config: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.wandb = setup_wandb(config)
        super().__init__(config, **kwargs)
