"""Random states, so that a resumed trial draws what an undisturbed one would."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np


def random_state() -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's generators."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {"python": random.getstate(), "numpy": (str(name), keys, *rest)}
    if (torch := sys.modules.get("torch")) is not None:
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what :func:`random_state` returned; of GPUs, as many as there are here."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    if (torch := sys.modules.get("torch")) is not None and "torch" in state:
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available():
            for device, own in enumerate(state.get("cuda", ())[: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(own, device)
