"""The memory of a trial in its process: freeing it."""

from __future__ import annotations

import contextlib
import gc
import sys
import traceback


def forget_frames(error: BaseException) -> None:
    """Drop the local variables of the calls that an error and its causes went through."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]


def free_caches() -> None:
    """Collect garbage, and give back the device memory that torch keeps for later."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        with contextlib.suppress(Exception):  # a device may be in any state now
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
