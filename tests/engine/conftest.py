"""A desk for the coordinator's tests: a script's words for events, each of them checked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daskhpo.core.commands import Delete, Save
from daskhpo.core.domains import Categorical, Real
from daskhpo.core.events import (
    AttemptLost,
    Dropped,
    Ended,
    Erred,
    Held,
    Saved,
    SaveFailed,
    SessionStarted,
    SlotsChanged,
    Step,
    StopRequested,
    Trained,
)
from daskhpo.core.objective import Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import (
    Continue,
    Exploit,
    Limits,
    Pause,
    ReuseProbability,
    Start,
    Status,
    Stop,
    Wait,
)
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.replay import replay
from daskhpo.results.result import Result
from daskhpo.searchers import RandomSearch
from daskhpo.testing.journal import MemoryJournal


class Scripted(Scheduler):
    """Segments end at 1, 3 and 9; there it answers as it was told to, else goes on.

    Parameters
    ----------
    answers : those at (trial, resource), in the place of going on.
    wishes : what it wants to do with a trial once that is paused, or about to be.
    action : what it insists on once there is a trial.
    keeps_failed : a trial that fails is paused, as in a population.
    """

    max_t = 9

    def __init__(self, answers=None, wishes=(), action=None, keeps_failed=False):
        self.keeps_failed = keeps_failed
        self.answers, self.wishes, self.action = answers or {}, list(wishes), action
        self.asked = []  # (trial, resource) of the reports it was asked about
        self.reports = []
        self.ended = {}

    def next_action(self, trials, can_start):
        for wish in self.wishes:
            trial = trials.get(wish.trial)
            if trial and (trial.status is Status.PAUSED or isinstance(trial.decision, Pause)):
                if isinstance(wish, Exploit) and trial.config == wish.config:
                    continue  # done already
                return wish
        if trials and self.action:
            return self.action
        return Start(until=1) if can_start else Wait()

    def on_launch(self, trial):
        self.wishes = [wish for wish in self.wishes if wish.trial != trial.id or trial.until == 1]

    def on_report(self, trial, report):
        assert (trial.id, report.resource) not in self.asked, "asked twice"
        assert report.resource == trial.until
        assert report.losses, "a report of nothing"
        self.asked.append((trial.id, report.resource))
        self.reports.append(report)
        onward = Continue(report.resource * 3) if report.resource < 9 else Stop("fully trained")
        answer = self.answers.get((trial.id, report.resource), onward)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_failure(self, trial):
        return self.keeps_failed

    def on_end(self, trial):
        self.ended[trial.id] = trial.status


class Commands(list):
    """What the coordinator commands on one event."""

    @property
    def kinds(self):
        return [type(command) for command in self]

    def of(self, kind):
        return [command for command in self if isinstance(command, kind)]

    def only(self, kind):
        """The one command of a kind."""
        (found,) = self.of(kind)
        return found


class Desk:
    """A coordinator, and words for all that can happen to it.

    It keeps a store's books: a row is in it from ``saved`` until it is deleted, and no row is
    deleted that is not there.
    """

    def __init__(self, scheduler, *, policy="auto", searcher=None, mode="min", **limits):
        space = Space({"x": Real(0.0, 1.0), "kind": Categorical(["a", "b"])})
        searcher = RandomSearch() if searcher is None else searcher
        self.problem = Problem(space, Objective("loss", mode), scheduler, searcher, 0)
        self.journal = MemoryJournal()
        self.coordinator = Coordinator(self.problem, self.journal)
        self.seconds = 0.0
        self.store = {}  # references that are in the store, by row
        self.begin(policy, **limits)

    def begin(self, policy="auto", **limits):
        return self.say(SessionStarted, Limits(**limits), check_policy(policy))

    def say(self, event, *args, **options):
        self.seconds += 1.0
        made = event(*args, seconds=self.seconds, **options)
        if isinstance(made, Saved):
            self.store[made.ref.id] = made.ref
        commands = Commands(self.coordinator.handle(made))
        self.ledger.validate()
        for delete in commands.of(Delete):
            if delete.ref.array:
                assert self.store.pop(delete.ref.id) == delete.ref
        return commands

    @property
    def ledger(self):
        return self.coordinator.ledger

    @property
    def scheduler(self):
        return self.coordinator.scheduler

    def slots(self, n):
        return self.say(SlotsChanged, n)

    def report(self, trial, until, loss=1.0, since=None, attempt=None, **options):
        """Units since the trial's last report, all with one loss."""
        since = self.ledger.trials[trial].resource if since is None else since
        steps = tuple(Step(r, {"loss": loss}, self.seconds) for r in range(since + 1, until + 1))
        return self.say(Trained, trial, attempt or self.attempt(trial), steps, **options)

    def held(self, save, ok=True):
        """The answer to a command to save."""
        return self.say(Held, save.trial, save.attempt, save.ref if ok else None)

    def saved(self, save, n_bytes=100):
        """The state that was taken on this command comes to lie in the store."""
        ref = replace(save.ref, array="a", n_bytes=n_bytes, checksum=7)
        return self.say(Saved, save.trial, save.attempt, ref)

    def stored(self, save, n_bytes=100):
        """Held, and then saved; the commands of both."""
        return Commands(self.held(save) + self.saved(save, n_bytes))

    def unsaved(self, save, error="no space"):
        return self.say(SaveFailed, save.trial, save.attempt, save.ref.id, error)

    def dropped(self, save, reason="its worker died"):
        return self.say(Dropped, save.trial, save.attempt, save.ref.id, reason)

    def lost(self, trial, attempt=None, **options):
        return self.say(AttemptLost, trial, attempt or self.attempt(trial), "gone", **options)

    def failed(self, trial, error="ValueError: no", attempt=None, **options):
        return self.say(Erred, trial, attempt or self.attempt(trial), error, **options)

    def stop(self, reason="enough"):
        return self.say(StopRequested, reason)

    def attempt(self, trial):
        found = self.ledger.trials.get(trial)
        return found.attempt if found else 1

    def status(self, trial):
        return self.ledger.trials[trial].status

    def ends(self):
        """How trials ended, by the journal."""
        return {r.trial: r.status for r in self.recorded(Ended)}

    def recorded(self, kind):
        return [record for record in self.journal.records if isinstance(record, kind)]

    def check(self):
        """It replays to itself; ledger, store and result tell of the same checkpoints."""
        tail = MemoryJournal()
        again = replay(self.problem, list(self.journal.records), tail)
        assert tail.records == []
        again.ledger.validate()
        names = [
            "trials",
            "queue",
            "n_trials",
            "n_running",
            "n_ended",
            "retained",
            "n_retained",
            "best_loss",
            "best_trial",
        ]
        for name in names:
            assert getattr(again.ledger, name) == getattr(self.ledger, name), name
        for name in ["n_allocated", "n_bytes", "n_files", "n_unsaved", "ids", "committed"]:
            assert getattr(again.ledger.refs, name) == getattr(self.ledger.refs, name), name
        for name in ("stop_reason", "is_drained"):
            assert getattr(again, name) == getattr(self.coordinator, name), name
        in_store = sorted(self.store.values(), key=lambda ref: ref.id)
        assert sorted(self.ledger.refs.committed, key=lambda ref: ref.id) == in_store
        assert Result(self.journal.records, self.problem.objective).checkpoints() == in_store


@pytest.fixture
def desk():
    """Makes desks; at the end each is checked, unless it was made with ``checked=False``.

    Without a scheduler given it is :class:`Scripted`, with its ``answers``, ``wishes``, ``action``.
    """
    made = []

    def make(scheduler=None, *, checked=True, **options):
        if scheduler is None:
            names = ("answers", "wishes", "action", "keeps_failed")
            scheduler = Scripted(**{n: options.pop(n) for n in names if n in options})
        new = Desk(scheduler, **options)
        if checked:
            made.append(new)
        return new

    yield make
    for each in made:
        each.check()


@pytest.fixture
def a_save():
    """Makes commands to save that nobody gave: ``a_save(trial, attempt, ref)``."""
    return lambda trial, attempt, ref: Save(trial, attempt, ref, ReuseProbability.CERTAIN)
