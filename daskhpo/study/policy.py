"""Which checkpoints are written."""

from __future__ import annotations

from typing import Literal, get_args

from daskhpo.core.types import Continue, Decision, Pause, Stop

Policy = Literal["auto", "rung", "end", "never"]


def check_policy(policy: str) -> Policy:
    """Refuse a policy that does not exist.

    ``"auto"``: paused trials, trials that hand over, and the best trial at its end.
    ``"end"``: every trial at its end, too. ``"rung"``: every segment's end, too.
    ``"never"``: none; what is resumed trains again from its start.

    Raises
    ------
    ValueError : any other name.
    """
    for known in get_args(Policy):
        if policy == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(
        f"checkpoint={policy!r} must be one of {', '.join(map(repr, get_args(Policy)))}"
    )


def writes(policy: Policy, decision: Decision | None, is_best: bool) -> bool:
    """Whether a trial's state is written after a decision; None: it hands over in mid-segment."""
    match decision:
        case _ if policy == "never":
            return False
        case None:
            return True
        case Pause(keep):
            return keep
        case Continue():
            return policy == "rung"
        case Stop():
            return is_best or policy in ("end", "rung")
