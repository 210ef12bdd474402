"""Drive a coordinator: events in, records to the journal, commands out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from daskhpo.core.events import Erred, StopRequested
from daskhpo.core.printable import printable
from daskhpo.core.tracebacks import headline
from daskhpo.engine.coordinator import Coordinator
from daskhpo.engine.protocols import Executor, Journal

logger = logging.getLogger("daskhpo")


def drive(
    coordinator: Coordinator,
    executor: Executor,
    journal: Journal,
    after_turn: Callable[[Coordinator], None] = lambda coordinator: None,
) -> None:
    """Run a session to its end; record events before carrying out their commands.

    Parameters
    ----------
    after_turn : called after each turn, in this thread; no other thread may read the coordinator.
    """
    budget = coordinator.limits.time_budget
    deadline = None if budget is None else executor.now() + budget
    while not coordinator.is_drained:
        due = [] if coordinator.is_over else [deadline, coordinator.ledger.times.next_end]
        until = min((each for each in due if each is not None), default=None)
        events = [*executor.poll(until)]
        if not events:
            assert until is not None, "the executor returned no events, and had no deadline"
            if until == deadline:
                events = [StopRequested("the time budget is spent", until)]
                deadline = None
        events += coordinator.overdue(executor.now())
        commands = [command for event in events for command in coordinator.handle(event)]
        journal.flush()
        for event in events:
            if isinstance(event, Erred):
                logger.info("trial %s failed: %s", event.trial, printable(headline(event.error)))
        executor.perform(commands)
        after_turn(coordinator)
