"""Replay: rebuild a coordinator from its journal, and check that it decides alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from daskhpo.core.errors import JournalDiffers
from daskhpo.core.events import (
    Deleted,
    Ended,
    Judged,
    Launched,
    Record,
    Reported,
    SessionStarted,
    SetAside,
    Suggested,
    event_of,
)
from daskhpo.core.garbage import collector_paused
from daskhpo.core.out_of_memory import Shortage
from daskhpo.core.types import Choose, Config, Suggestion, Trial, TrialId
from daskhpo.engine.advice import Advisor
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.foresight import Foresight
from daskhpo.engine.journal import encode_record
from daskhpo.engine.protocols import Journal


def replay(problem: Problem, records: Iterable[Record], journal: Journal) -> Coordinator:
    """Return the coordinator as it was after the last record.

    Recorded events are handled again, and all that follows from them is compared with the records.
    A scheduler that now decides otherwise is thus detected. Suggestions are taken from the records:
    no searcher's model runs. If a crash cut off consequences of the last event, they are derived
    again and written. The coordinator keeps the trials that were fully trained, for an extension,
    until :meth:`Coordinator.forget_trained` is called.

    Parameters
    ----------
    records : the study's records so far.
    journal : receives all further records, also later ones of the returned coordinator.

    Raises
    ------
    JournalDiffers : the records do not follow from the study's definition.
    """
    script = _VerifyingJournal(records, journal)
    coordinator = Coordinator(problem, script)
    own = coordinator.advisor
    coordinator.advisor = _RecordedAdvice(script, own)
    coordinator.keeps_trained = True  # a later session may extend the study
    coordinator.foresight = _RecordedForesight(script, coordinator.memory)
    with collector_paused():
        _run(coordinator, script)
    journal.flush()
    coordinator.advisor, coordinator.foresight = own, coordinator.memory
    coordinator.journal = journal
    return coordinator


def _run(coordinator: Coordinator, script: _VerifyingJournal) -> None:
    """Handle the recorded events again."""
    while not script.is_over:
        record, n_before = script.head, script.n_read
        if (event := event_of(record)) is None:
            raise script.differs("it does not follow from the records before it")
        try:
            coordinator.handle(event)
        except JournalDiffers:
            raise
        except (LookupError, RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise script.differs(f"the study cannot continue there: {error!r}") from error
        if script.n_read == n_before:
            raise script.differs("it comes from an attempt that is not running")


class _RecordedAdvice:
    """The advice that led to the records; after their end, the searcher's."""

    def __init__(self, script: _VerifyingJournal, own: Advisor) -> None:
        self._script, self._own = script, own

    def suggest(self, trial: TrialId, explore: bool) -> Suggestion | None:
        if self._script.is_over:
            self._own.judge(False)  # it was judged before the records were cut off
            return self._own.suggest(trial, explore)
        return self._suggested(trial)

    def choose(self, trial: TrialId, choice: Choose) -> Suggestion | TrialId | None:
        if self._script.is_over:
            self._own.judge(False)
            return self._own.choose(trial, choice)
        match self._script.head:
            case Launched(number) if number in choice.paused:
                return number
        return self._suggested(trial)

    def chances(self, trials: Sequence[Trial], choice: Choose) -> Sequence[float]:
        """Return 0 for the trial whose checkpoint was deleted, 1 for all others."""
        if self._script.is_over:
            self._own.judge(False)
            return self._own.chances(trials, choice)
        match self._script.head:
            case Deleted(number):
                newest = (trial.checkpoint for trial in trials)
                return [float(ref is None or ref.id != number) for ref in newest]
        return [1.0] * len(trials)

    def judge(self, trusted: bool) -> bool:
        if self._script.is_over:
            return self._own.judge(trusted)
        match self._script.head:
            case Judged(verdict):
                return verdict
        return trusted

    def add(self, trial: TrialId) -> None:
        self._own.add(trial)

    def _suggested(self, trial: TrialId) -> Suggestion | None:
        match self._script.head:
            case Suggested(number, config) if number == trial:
                return Suggestion(config)
        return None


class _RecordedForesight:
    """The foresight that led to the records; after their end, the study's own."""

    def __init__(self, script: _VerifyingJournal, own: Foresight) -> None:
        self._script, self._own = script, own

    def shortage(self, trial: TrialId, config: Config) -> Shortage | None:
        if self._script.is_over:
            return self._own.shortage(trial, config)
        match self._script.head:
            case SetAside(number, of, needs, has) if number == trial:
                return Shortage(of, needs, has)
        return None


class _VerifyingJournal:
    """A journal that compares appended records with those of an earlier session."""

    def __init__(self, records: Iterable[Record], tail: Journal) -> None:
        self._records = iter(records)
        self._tail = tail
        self.n_read = -1
        self.head: Record = None  # type: ignore[assignment]
        self.is_over = False
        self._advance()

    def differs(self, follows: str) -> JournalDiffers:
        recorded = "nothing" if self.is_over else encode_record(self.head)
        return JournalDiffers(self.n_read + 1, recorded, follows)

    def append(self, record: Record) -> None:
        if self.is_over:
            self._tail.append(record)
            return
        if not _same(record, self.head):
            raise self.differs(f"from the study's definition follows {encode_record(record)}")
        self._advance()

    def flush(self) -> None:
        self._tail.flush()

    def _advance(self) -> None:
        self.n_read += 1
        try:
            self.head = next(self._records)
        except StopIteration:
            self.is_over = True


def _same(derived: Record, recorded: Record) -> bool:
    match derived, recorded:
        case (Reported(), Reported()):  # the steps are the recorded ones; only these are derived
            return derived.decision == recorded.decision and derived.trial == recorded.trial
        case (SessionStarted(), SessionStarted()):
            return True
    if derived == recorded:
        return True
    match derived, recorded:
        case (Suggested(), Suggested()):  # waits and fallbacks are measured, not derived
            derived = replace(derived, waited=recorded.waited, fallback=recorded.fallback)
        case (Ended(), Ended()):  # reasons are for people: another version may word them otherwise
            derived = replace(derived, reason=recorded.reason)
    return derived == recorded
