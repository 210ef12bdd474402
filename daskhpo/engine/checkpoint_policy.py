"""The checkpoint policy: states to save, their reuse, and the order of deletion."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from daskhpo.core.arguments import (
    check_int,
    check_kind,
    check_number,
    check_path,
    optional,
    shown,
)
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.quantities import check_bytes
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Continue,
    Decision,
    Pause,
    ReuseProbability,
    Stop,
    Trial,
    TrialId,
    WritePolicy,
)

WRITES = get_args(WritePolicy)
HIGH_WATER = 0.9  # fraction of a budget; the rest is for writes in progress


def check_policy(given: str | CheckpointPolicy) -> CheckpointPolicy:
    """Return the policy for a name (``"auto"``, ``"every:5"``) or object, checked.

    Raises
    ------
    TypeError, ValueError : the policy is invalid; the message says what is allowed.
    """
    if isinstance(given, str):
        policy = _parse_policy(given)
    else:
        such_as = "a name, such as 'auto', or a CheckpointPolicy"
        policy = check_kind("checkpoint", given, CheckpointPolicy, such_as)
    write = policy.write
    if write not in WRITES:
        raise InvalidArgument(f"checkpoint: write={shown(write)} must be one of {list(WRITES)}")
    every = policy.every
    if write == "every":
        every = check_int("every", 1 if every is None else every, at_least=1)
    elif every is not None:
        raise InvalidArgument(
            f"checkpoint: every={shown(every)} is allowed with write='every' only"
        )
    return replace(
        policy,
        every=every,
        keep_best=optional(check_int, "keep_best", policy.keep_best, at_least=0),
        max_bytes=optional(check_bytes, "max_bytes", policy.max_bytes, at_least=1),
        max_files=optional(check_int, "max_files", policy.max_files, at_least=1),
        durability=check_number("durability", policy.durability, above=0, at_most=math.inf),
        memory=optional(check_bytes, "memory", policy.memory),
        staging=optional(_check_staging, "staging", policy.staging),
    )


def _parse_policy(text: str) -> CheckpointPolicy:
    if text in WRITES and text != "every":
        return CheckpointPolicy(text)  # type: ignore[arg-type]
    name, _, number = text.partition(":")
    if name == "every" and number.isascii() and number.isdecimal():
        if int(number) == 0:
            raise InvalidArgument(f"checkpoint={shown(text)}: every=0 must be at least 1")
        return CheckpointPolicy("every", every=int(number))
    if name == "every":
        raise InvalidArgument(
            f"checkpoint={shown(text)} must say after how many units: 'every:N', such as 'every:5'"
        )
    names = ", ".join(repr(write) for write in WRITES if write != "every")
    raise InvalidArgument(
        f"checkpoint={shown(text)} must be one of {names} or 'every:N' (also after every N units)"
    )


def _check_staging(name: str, value: Any) -> str:
    """Return a folder on the worker's machine, on which its variables are expanded."""
    check_path(name, value)
    return str(os.fspath(value))


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


def eviction_candidate(
    living: Iterable[Trial], ended: Iterable[Trial], chances: Mapping[TrialId, float]
) -> CheckpointRef | None:
    """Return the checkpoint to delete first, or None if there is no checkpoint.

    The order is: previous checkpoints of trials that have not ended, their newest checkpoints,
    checkpoints of ended trials. Among the first two, the least trained trial comes first, and of
    equally trained ones the worst. Among ended trials, the worst comes first.

    Parameters
    ----------
    chances : of trials that a model may resume, the chance that it does; 1 for all others. The
        training in a newest checkpoint counts so much.
    """
    living = [trial for trial in living if trial.checkpoint is not None]
    if spare := [trial for trial in living if trial.previous is not None]:
        return min(spare, key=_progress).previous
    if living:
        return min(
            living,
            key=lambda trial: (chances.get(trial.id, 1.0) * trial.resource, *_progress(trial)),
        ).checkpoint
    if kept := [trial for trial in ended if trial.checkpoint is not None]:
        return max(kept, key=lambda trial: (trial.best_loss, trial.id)).checkpoint
    return None


def _progress(trial: Trial) -> tuple[int, float, int]:
    return trial.resource, -trial.best_loss, -trial.id
