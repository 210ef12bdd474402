"""The checkpoint policy: states to save, their reuse, and the order of deletion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, get_args

from daskhpo.core.quantities import parse_bytes
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Continue,
    Decision,
    Pause,
    ReuseProbability,
    Stop,
    Trial,
    WritePolicy,
)

HIGH_WATER = 0.9  # fraction of a budget; the rest is for writes in progress


def check_policy(given: str | CheckpointPolicy) -> CheckpointPolicy:
    """Return the policy for a name (``"auto"``, ``"every:5"``) or object, checked.

    Raises
    ------
    TypeError, ValueError : the policy is invalid; the message says what is allowed.
    """
    policy = _parse_policy(given) if isinstance(given, str) else given
    if not isinstance(policy, CheckpointPolicy):
        raise TypeError(
            f"checkpoint={given!r} must be a name, such as 'auto', or a CheckpointPolicy"
        )
    known = get_args(WritePolicy)
    if policy.write not in known:
        raise ValueError(
            f"checkpoint={policy.write!r} must be one of {', '.join(map(repr, known))} "
            "(or 'every:N': also after every N units)"
        )
    every = policy.every
    if policy.write == "every":
        every = _check_int("every", 1 if every is None else every, 1)
    elif every is not None:
        raise ValueError(f"every={every!r} is allowed with write='every' only")
    if not isinstance(policy.durability, int | float) or not policy.durability > 0:
        raise ValueError(f"durability={policy.durability!r} must be a number above 0")
    return replace(
        policy,
        every=every,
        keep_best=_check_int("keep_best", policy.keep_best, 0),
        max_bytes=_check_int("max_bytes", parse_bytes(policy.max_bytes, "max_bytes"), 1),
        max_files=_check_int("max_files", policy.max_files, 1),
        memory=_check_int("memory", parse_bytes(policy.memory, "memory"), 0),
    )


def _parse_policy(text: str) -> CheckpointPolicy:
    name, colon, number = text.partition(":")
    if not colon:
        return CheckpointPolicy(text)  # type: ignore[arg-type]
    if name != "every" or not number.isdecimal():
        raise ValueError(f"checkpoint={text!r} must be a name, or 'every:N' with a whole number N")
    return CheckpointPolicy("every", every=int(number))


def _check_int(name: str, value: Any, least: int) -> Any:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be an int or None")
    if value < least:
        raise ValueError(f"{name}={value!r} must be at least {least}")
    return value


def reuse_probability(
    policy: CheckpointPolicy, decision: Decision | None, retained: bool
) -> ReuseProbability | None:
    """Return the probability that a state is needed again; None: do not save it.

    Parameters
    ----------
    decision : the decision after which it is saved; None: the trial is preempted, or a checkpoint
        of ``every`` is due.
    retained : True if the trial's checkpoint would be kept at its end, as one of the best.
    """
    match decision:
        case _ if policy.write == "never":
            return None
        case None:
            return ReuseProbability.CERTAIN
        case Pause(keep):
            if policy.write != "auto":
                return ReuseProbability.CERTAIN
            return ReuseProbability.LIKELY if keep else ReuseProbability.UNLIKELY
        case Continue(keep=keep):
            if policy.write == "rung":
                return ReuseProbability.CERTAIN
            return ReuseProbability.LIKELY if keep else None
        case Stop():
            return ReuseProbability.CERTAIN if retained else None


def n_retained(policy: CheckpointPolicy) -> float:
    """Return the maximum number of ended trials whose checkpoint is kept."""
    if policy.keep_best is not None:
        return policy.keep_best
    return {"never": 0, "auto": 1, "every": 1}.get(policy.write, float("inf"))


def next_checkpoint(policy: CheckpointPolicy, resource: int, until: int) -> int:
    """Return the resource of the next stop: the segment's end, or a checkpoint before."""
    if policy.every is None:
        return until
    return min(until, (resource // policy.every + 1) * policy.every)


def is_full(policy: CheckpointPolicy, n_bytes: int, n_files: int) -> bool:
    """Return True if the bytes or files exceed ``HIGH_WATER`` of the budget."""
    return any(
        limit is not None and taken > max(int(limit * HIGH_WATER), 1)
        for taken, limit in ((n_bytes, policy.max_bytes), (n_files, policy.max_files))
    )


def eviction_candidate(living: Iterable[Trial], ended: Iterable[Trial]) -> CheckpointRef | None:
    """Return the checkpoint to delete first, or None if there is no checkpoint.

    The order is: previous checkpoints of trials that have not ended, their newest checkpoints,
    checkpoints of ended trials. Among the first two, the least trained trial comes first, and of
    equally trained ones the worst. Among ended trials, the worst comes first.
    """
    living = [trial for trial in living if trial.checkpoint is not None]
    if spare := [trial for trial in living if trial.previous is not None]:
        return min(spare, key=_progress).previous
    if living:
        return min(living, key=_progress).checkpoint
    if kept := [trial for trial in ended if trial.checkpoint is not None]:
        return max(kept, key=lambda trial: (trial.best_loss, trial.id)).checkpoint
    return None


def _progress(trial: Trial) -> tuple[int, float, int]:
    return trial.resource, -trial.best_loss, -trial.id
