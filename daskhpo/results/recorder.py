"""Records of a study as columns for its plots."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.events import (
    AttemptLost,
    Ended,
    Exploited,
    Failed,
    Launched,
    Record,
    Reported,
    SessionStarted,
    SlotsChanged,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.parsing import parse_call
from daskhpo.core.printable import shell_word
from daskhpo.core.types import Config, Continue, Status, TrialId
from daskhpo.engine.extension import extensions
from daskhpo.engine.session import Manifest, read_manifest, study_records
from daskhpo.plots.tables import STATES, Piece, StudyTables
from daskhpo.results.pace import StudyPace
from daskhpo.results.progress import StudyProgress, TrialRecord

MAX_WAITING = 5_000  # configurations that wait to be added
_CODE = {status: code for code, status in enumerate(STATES)}
_DOMAINS = {kind.__name__: kind for kind in (Real, Integer, Ordinal, Categorical)}


class Recorder:
    """Fills the tables of a study, record by record.

    Parameters
    ----------
    progress : the same study, which has processed each record before :meth:`apply`.
    """

    def __init__(self, progress: StudyProgress) -> None:
        self._progress = progress
        self._tables = StudyTables(progress.objective)
        self._pace = StudyPace()
        self._run_of: dict[TrialId, int] = {}  # launches that still hold a slot
        self._free_lanes: list[int] = []
        self._n_lanes = 0
        self._touched: set[TrialId] = set()  # trials whose state is to be copied
        self._configs: dict[TrialId, Config] = {}  # to be added to the tables
        self._best, self._best_at = math.inf, -math.inf  # the study's best loss, and its time
        self._useful = self._lost = self._saving = 0.0
        self._scheduler = self._extended = ""

    @property
    def tables(self) -> StudyTables:
        """The study as it stands now."""
        self._catch_up()
        facts, progress = self._tables.facts, self._progress
        slots, stored = progress.slot_time, progress.checkpoints
        facts.scheduler = self._scheduler + self._extended
        facts.seconds, facts.session_began = progress.seconds, progress.session_began
        facts.n_slots, facts.slot_seconds = progress.n_slots, slots.total
        facts.idle_seconds, facts.search_seconds = slots.idle, progress.search_seconds
        held = [slots.holding[n] for n in self._run_of if n in slots.holding]
        facts.useful_seconds = self._useful + sum(time.useful for time in held)
        facts.lost_seconds = self._lost + sum(time.lost for time in held)
        facts.saving_seconds = self._saving + sum(time.saving for time in held)
        facts.stored_bytes, facts.stored_files = stored.n_bytes, len(stored.refs)
        facts.written_bytes, facts.written_files = stored.n_bytes_written, stored.n_written
        facts.stop_reason, facts.jobs = progress.stop_reason or "", progress.jobs
        runs = self._run_of and progress.stop_reason is None
        facts.seconds_left = self._pace.seconds_left(progress, facts.scheduler) if runs else None
        return self._tables

    def describe(self, name: str, manifest: Manifest | None, path: Path | None = None) -> None:
        """Add what the study's directory, whose path this is, says of it."""
        facts = self._tables.facts
        facts.name = name
        facts.path = "PATH" if path is None else shell_word(path)
        if manifest is not None:
            self._scheduler, facts.searcher = manifest.scheduler, manifest.searcher
            facts.seed = manifest.seed
            facts.space = _domains(manifest.space)

    def apply(self, record: Record) -> None:
        """Process the next record of the study."""
        tables, progress = self._tables, self._progress
        self._pace.apply(record, progress)
        match record:
            case Reported():
                self._reported(record)
            case Suggested(number, config, bracket, seconds):
                assert number == tables.n_trials, f"trial {number} after {tables.n_trials}"
                tables.add_trial(bracket, seconds)
                self._configs[number] = config
                if len(self._configs) > MAX_WAITING:
                    self._catch_up()
                if tables.pieces:
                    tables.add_piece(Piece(number, 0, seconds, number, 0, config))
            case Launched(number, _, resource, until):
                tables.resource[number] = resource
                tables.until[number] = max(tables.until[number], until)
                self._launch(number)
            case Exploited(number, source, config, resource, seconds):
                left = tables.resource[number]
                self._catch_up()
                if not tables.pieces:  # the first: this is a population, and these its members
                    for member, began in enumerate(tables.started):
                        before = self._config_of(member)
                        tables.add_piece(Piece(member, 0, began, member, 0, before))
                tables.add_piece(Piece(number, resource, seconds, source, left, config))
                tables.set_config(number, config)
            case SlotsChanged(n_slots, job=job):
                now, total = progress.seconds, progress.slot_time.total
                tables.add_slots(n_slots, now, total, job)
            case SessionStarted(limits, policy):
                tables.facts.limits = limits
                if record.max_t is not None:
                    self._extended = f", extended to max_t={record.max_t}"
                tables.facts.max_bytes, tables.facts.max_files = policy.max_bytes, policy.max_files
                tables.add_slots(0, progress.seconds, progress.slot_time.total)
                for number in [*self._run_of]:
                    self._release(number, lost=True)
                self._touched.update(progress.trials)  # those that failed may run again
        if (trial := getattr(record, "trial", None)) is None:
            return
        if isinstance(record, Ended):  # the progress may forget it
            self._see(trial)
            self._touched.discard(trial)
        else:
            self._touched.add(trial)
        if trial in self._run_of and trial not in progress.slot_time.holding:
            self._release(trial, lost=isinstance(record, AttemptLost | Failed))

    def _catch_up(self) -> None:
        """Copy what has changed: most readers of a journal never ask for it."""
        for number, config in self._configs.items():
            self._tables.set_config(number, config)
        self._configs.clear()
        for number in self._touched:
            self._see(number)
        self._touched.clear()

    def _config_of(self, number: TrialId) -> dict[str, object]:
        """Return a configuration as the tables hold it."""
        config: dict[str, object] = {}
        for name, column in self._tables.config.items():
            value = float(column.values[number]) if number < len(column) else math.nan
            if not math.isnan(value):
                config[name] = value if column.levels is None else column.levels[int(value)]
        return config

    def _see(self, number: TrialId) -> None:
        """Copy where a trial stands."""
        trial: TrialRecord | None = self._progress.trials.get(number)
        if trial is None:  # it ended before
            return
        tables = self._tables
        tables.status[number] = _CODE[trial.status]
        tables.resource[number] = trial.resource
        tables.in_slot[number] = trial.seconds
        if trial.ended is not None:
            tables.ended[number] = trial.ended
            tables.set_reason(number, trial.reason, trial.error)
        elif trial.status is Status.FAILED or trial.error:
            tables.set_reason(number, trial.reason, trial.error)

    def _reported(self, record: Reported) -> None:
        tables, progress, number = self._tables, self._progress, record.trial
        loss_of = progress.objective.loss
        for step in progress.new_steps:
            loss = loss_of(step.metrics)
            tables.add_unit(number, step.resource, loss, step.seconds)
            tables.last[number] = loss
            if loss < tables.best[number]:
                tables.best[number] = loss
                tables.at[number] = step.seconds
            if loss < self._best or step.seconds < self._best_at:
                tables.add_best(step.seconds, loss)
                self._best = min(self._best, loss)
                self._best_at = tables.best_seconds[-1]
        if record.steps:
            tables.resource[number] = record.steps[-1].resource
        if record.steps and (run := self._run_of.get(number)) is not None:
            tables.run_worked[run] = min(record.steps[-1].seconds, progress.seconds)
        if record.decision is not None and record.steps:
            tables.judged_trial.append(number)
            tables.judged_resource.append(record.steps[-1].resource)
            tables.judged_loss.append(loss_of(record.steps[-1].metrics))
            if isinstance(record.decision, Continue):
                tables.until[number] = max(tables.until[number], record.decision.until)

    def _launch(self, number: TrialId) -> None:
        tables, now = self._tables, self._progress.seconds
        if number in self._run_of:
            self._release(number, lost=True)
        if self._free_lanes:
            lane = heapq.heappop(self._free_lanes)
        else:
            lane, self._n_lanes = self._n_lanes, self._n_lanes + 1
        self._run_of[number] = len(tables.run_trial)
        tables.run_trial.append(number)
        tables.run_lane.append(lane)
        tables.run_lost.append(0)
        for column in (tables.run_start, tables.run_worked):
            column.append(now)
        tables.run_end.append(math.nan)
        self._count(number, -1)

    def _release(self, number: TrialId, *, lost: bool) -> None:
        tables, run = self._tables, self._run_of.pop(number)
        tables.run_end[run] = self._progress.seconds
        tables.run_lost[run] = lost
        heapq.heappush(self._free_lanes, tables.run_lane[run])
        self._count(number, +1)

    def _count(self, number: TrialId, sign: int) -> None:
        """Count the time of a trial that has no slot; that of others is read later."""
        if (trial := self._progress.trials.get(number)) is not None:
            self._useful += sign * trial.time.useful
            self._lost += sign * trial.time.lost
            self._saving += sign * trial.time.saving


def tables_of(
    records: Iterable[Record], objective: Objective, manifest: Manifest | None = None
) -> StudyTables:
    """Return the tables of a study that has no directory."""
    progress = StudyProgress(objective)
    recorder = Recorder(progress)
    if manifest is not None:
        recorder.describe("study", manifest)
    for record in records:
        progress.apply(record)
        recorder.apply(record)
    return recorder.tables


def read_tables(directory: Path, objective: Objective) -> StudyTables:
    """Return the tables of a study's directory."""
    progress = StudyProgress(objective, keep_ended=bool(extensions(directory)))
    recorder = Recorder(progress)
    if (directory / "study.json").exists():
        recorder.describe(directory.name, read_manifest(directory), directory)
    for record in study_records(directory):
        progress.apply(record)
        recorder.apply(record)
    return recorder.tables


def _domains(space: Mapping[str, str]) -> dict[str, Domain]:
    """Return the domains of a manifest, without constants and unknown ones."""
    found: dict[str, Domain] = {}
    for name, text in space.items():
        if text.split("(")[0] in _DOMAINS:
            domain = parse_call(text, _DOMAINS)
            assert isinstance(domain, Domain)
            found[name] = domain
    return found
