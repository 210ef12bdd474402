"""Whole studies on real processes, disturbed by a seed: ``python -m tests.chaos.runner 100``.

Each study is run, disturbed and resumed until it has ended. Then must hold: every trial is
accounted for, each report has the value that its trial gave, each report of which a trial was told
is recorded, none counts twice, the journal replays to the same decisions, the store holds what the
journal says and nothing else, and no file, lock or process is left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from daskhpo import load_study
from daskhpo.checkpoints import open_store
from daskhpo.core.events import Reported
from daskhpo.engine.replay import replay
from daskhpo.engine.session import study_records
from daskhpo.testing.executor import check_journal
from daskhpo.testing.journal import MemoryJournal
from tests.chaos.session import MAX_T, N_TRIALS, loss_of, study_of

ROOT = Path(__file__).parent.parent.parent
SCHEDULERS = ("each report", "asha", "promotion")
TROUBLES = ("slow disk", "failing disk", "full disk", "clock jump")
FAULTS = (
    *("kill worker", "terminate worker", "freeze worker", "kill coordinator", "freeze coordinator"),
    *("interrupt", "kill nanny", "kill scheduler", "freeze scheduler"),
)
OF_SEPARATE = ("kill nanny", "kill scheduler", "freeze scheduler")  # else they are one process
MAX_WORKERS_LOST = 2  # a trial that loses more of them in a row fails, as it should
SESSION_SECONDS = 300.0  # then a session hangs
MAX_SESSIONS = 12
QUIET_SECONDS = 60.0  # for processes to end
KNOWN = {
    "study.json",
    "journal.jsonl",
    "checkpoints.zarr",
    "requests.jsonl",
    "dashboard.json",
    "logs",
}


@dataclass
class Outcome:
    """What happened to some studies."""

    n_studies: int = 0
    n_sessions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=dict)  # by kind

    def add(self, other: Outcome) -> None:
        self.n_studies += other.n_studies
        self.n_sessions += other.n_sessions
        self.faults += other.faults
        for kind, found in other.problems.items():
            self.problems.setdefault(kind, []).extend(found)

    def report(self, kind: str, text: str) -> None:
        self.problems.setdefault(kind, []).append(text)

    def table(self) -> str:
        lines = ["| | |", "|---|---:|", f"| studies | {self.n_studies:,} |"]
        lines += [f"| sessions | {self.n_sessions:,} |"]
        lines += [f"| {kind} | {n:,} |" for kind, n in sorted(self.faults.items())]
        lines += [
            f"| **{kind}** | {len(self.problems.get(kind, [])):,} |"
            for kind in ("reports lost", "reports doubled or changed", "hangs", "other problems")
        ]
        return "\n".join(lines)


class ChaoticStudy:
    """One study, its faults, and the checks after it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.dice = random.Random(seed)
        self.scheduler = self.dice.choice(SCHEDULERS)
        self.is_separate = self.dice.random() < 0.3
        self.checkpoint = self.dice.choice(("auto", "every:1", "rung"))
        self.outcome = Outcome(n_studies=1)
        self.told = folder / "told"
        self.workers_lost = 0
        self.environment = os.environ | {
            "CHAOS_MARK": f"chaos-{os.getpid()}-{seed}",
            "CHAOS_TOLD": str(self.told),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
        }

    # -- running -----------------------------------------------------------------------------------

    def run(self) -> Outcome:
        n_disturbed = self.dice.randint(1, 3)
        for number in range(MAX_SESSIONS):
            self.outcome.n_sessions += 1
            if self._session(number < n_disturbed) and self._is_done():
                break
            if self.outcome.problems:
                return self.outcome
        self._check()
        return self.outcome

    def _session(self, is_disturbed: bool) -> bool:
        """Run one session; return True if it ended by itself and well."""
        trouble = ""
        if is_disturbed and self.dice.random() < 0.4:
            trouble = self.dice.choice(TROUBLES)
            self.outcome.faults[trouble] += 1
        helpers, scheduler_file = self._cluster() if self.is_separate else ([], "")
        task = {
            "folder": str(self.folder),
            "scheduler": self.scheduler,
            "trouble": trouble,
            "scheduler_file": scheduler_file,
            "checkpoint": self.checkpoint,
        }
        log = (self.folder / "session.log").open("ab")
        main = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.session", json.dumps(task)],
            cwd=ROOT,
            env=self.environment,
            stdout=log,
            stderr=log,
        )
        log.close()
        try:
            self._disturb(main, helpers, is_disturbed)
            try:
                code = main.wait(SESSION_SECONDS)
            except subprocess.TimeoutExpired:
                if self.is_separate and helpers[0].poll() is not None:
                    code = 1  # a client that waits for its scheduler; checked elsewhere
                else:
                    self.outcome.report("hangs", self._named("a session does not end"))
                    code = 1
        finally:
            for process in (main, *helpers):
                if process.poll() is None:
                    process.kill()
                process.wait()
        self._await_quiet()
        if code and is_disturbed and self.dice.random() < 0.5:
            self._tear()
        return code == 0

    def _cluster(self) -> tuple[list[subprocess.Popen[bytes]], str]:
        """Start a scheduler and two workers as processes of their own."""
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        python = [sys.executable, "-m"]
        own = f"--scheduler-file={file}", "--no-dashboard", "--dashboard-address=127.0.0.1:0"
        worker = "--nthreads=1", f"--local-directory={self.folder}/scratch", "--death-timeout=20"
        commands = [
            [*python, "distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0", *own],
            *[[*python, "distributed.cli.dask_worker", *worker, *own] for _ in range(2)],
        ]
        helpers = []
        for command in commands:
            helpers.append(
                subprocess.Popen(command, cwd=ROOT, env=self.environment, **quiet)  # type: ignore[call-overload]
            )
            while not file.exists() and helpers[0].poll() is None:
                time.sleep(0.05)
        return helpers, str(file)

    def _disturb(
        self, main: subprocess.Popen[bytes], helpers: list[subprocess.Popen[bytes]], is_on: bool
    ) -> None:
        if not is_on:
            return
        journal = self.folder / "s" / "journal.jsonl"
        began, size = time.monotonic(), journal.stat().st_size if journal.exists() else 0
        while main.poll() is None and time.monotonic() - began < SESSION_SECONDS / 2:
            if journal.exists() and journal.stat().st_size > size + 400:
                break
            time.sleep(0.02)
        for _ in range(self.dice.randint(1, 3)):
            time.sleep(self.dice.uniform(0, 0.5))
            if main.poll() is not None:
                return
            self._fault(self.dice.choice(FAULTS), main, helpers)

    def _fault(
        self, kind: str, main: subprocess.Popen[bytes], helpers: list[subprocess.Popen[bytes]]
    ) -> None:
        if kind in OF_SEPARATE and not self.is_separate:
            return
        if "worker" in kind or kind == "kill nanny":
            if self.workers_lost >= MAX_WORKERS_LOST and "freeze" not in kind:
                return
            owners = [helper.pid for helper in helpers[1:]] or [main.pid]
            target = self._worker(owners) if "worker" in kind else self.dice.choice(owners)
            self.workers_lost += "freeze" not in kind
        elif "scheduler" in kind:
            target = helpers[0].pid
        else:
            target = main.pid
        if target is None:
            return
        self.outcome.faults[kind] += 1
        try:
            match kind.split()[0]:
                case "kill":
                    os.kill(target, signal.SIGKILL)
                case "terminate":
                    os.kill(target, signal.SIGTERM)
                case "interrupt":
                    os.kill(target, signal.SIGINT)
                case "freeze":
                    os.kill(target, signal.SIGSTOP)
                    time.sleep(self.dice.uniform(0.1, 2.0))
                    os.kill(target, signal.SIGCONT)
        except ProcessLookupError:
            return

    def _worker(self, owners: list[int]) -> int | None:
        """Return a worker process: a child that multiprocessing has spawned."""
        found = []
        for owner in owners:
            try:
                for child in psutil.Process(owner).children():
                    if "spawn_main" in " ".join(child.cmdline()):
                        found.append(child.pid)
            except psutil.Error:
                continue
        return self.dice.choice(found) if found else None

    def _tear(self) -> None:
        """Cut the journal's last line, as a power cut may, or begin another one."""
        journal = self.folder / "s" / "journal.jsonl"
        if not journal.exists():
            return
        self.outcome.faults["torn journal"] += 1
        with journal.open("ab") as file:
            file.write(b'{"record":"reported","seconds":1.5,"tri')

    # -- checks ------------------------------------------------------------------------------------

    def _is_done(self) -> bool:
        trials = load_study(self.folder / "s").trials()
        return len(trials) == N_TRIALS and not {"queued", "running", "paused"} & set(
            trials["status"]
        )

    def _check(self) -> None:
        directory, outcome = self.folder / "s", self.outcome
        if not (directory / "study.json").exists():
            log = (self.folder / "session.log").read_text()[-1000:]
            outcome.report("other problems", self._named(f"it never began: {log}"))
            return
        study = study_of(self.folder, self.scheduler)
        result = load_study(directory)
        if not self._is_done() and self.scheduler != "promotion":
            outcome.report(
                "other problems", self._named(f"trials: {result.trials()['status'].to_list()}")
            )
        recorded: set[tuple[int, int]] = set()
        for record in study_records(directory):
            if not isinstance(record, Reported):
                continue
            config = result.trial(record.trial).config
            for step in record.steps:
                recorded.add((record.trial, step.resource))
                if step.metrics["loss"] != loss_of(dict(config), step.resource):
                    outcome.report("reports doubled or changed", self._named(f"{record}"))
        history = result.history()
        pairs = list(zip(history["trial"], history["resource"], strict=True))
        if len(set(pairs)) != len(pairs) or not all(1 <= unit <= MAX_T for _, unit in pairs):
            outcome.report("reports doubled or changed", self._named("a unit counts twice"))
        if self.scheduler == "each report" and self.told.exists():
            for line in self.told.read_text().splitlines():
                trial, unit = map(int, line.split())
                if (trial, unit) not in recorded:
                    outcome.report("reports lost", self._named(f"trial {trial}, unit {unit}"))
        try:
            check_journal(study)
        except AssertionError as error:
            outcome.report("other problems", self._named(f"replay: {error}"))
        self._check_files(directory)

    def _check_files(self, directory: Path) -> None:
        store = open_store(directory)
        problem = study_of(self.folder, self.scheduler).problem
        ledger = replay(problem, study_records(directory), MemoryJournal()).ledger
        committed = {(ref.array, ref.id) for ref in ledger.refs.committed}
        rows = {(ref.array, ref.id) for ref in store.list()}
        for ref in ledger.refs.committed:
            store.read(ref)  # its checksum is compared
        litter = [path.name for path in directory.iterdir() if path.name not in KNOWN]
        litter += [str(path) for path in directory.rglob("*.partial")]
        if litter or rows != committed:
            text = f"litter: {litter}; rows {sorted(rows)}, committed {sorted(committed)}"
            self.outcome.report("other problems", self._named(text))

    def _await_quiet(self) -> None:
        """Wait until no process of this study is left."""
        mark = f"CHAOS_MARK={self.environment['CHAOS_MARK']}".encode()
        end = time.monotonic() + QUIET_SECONDS
        left: list[str] = []
        while time.monotonic() < end:
            left = []
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal():
                    try:
                        if mark in (entry / "environ").read_bytes().split(b"\0"):
                            left.append(entry.name)
                    except OSError:
                        continue
            if not left:
                return
            time.sleep(0.1)
        self.outcome.report("other problems", self._named(f"processes are left: {left}"))
        for number in left:
            os.kill(int(number), signal.SIGKILL)

    def _named(self, text: str) -> str:
        where = "separate" if self.is_separate else "embedded"
        return f"seed {self.seed} ({where}, {self.scheduler}, {dict(self.outcome.faults)}): {text}"


def disturbed(first: int, n: int, keep: bool = False, seconds: float = float("inf")) -> Outcome:
    """Run studies of the seeds ``first`` to ``first + n``; return what happened.

    No study begins after so many ``seconds``.
    """
    total, end = Outcome(), time.monotonic() + seconds
    for seed in range(first, first + n):
        if time.monotonic() > end:
            break
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
        outcome = ChaoticStudy(seed, folder).run()
        total.add(outcome)
        for kind, found in outcome.problems.items():
            print(f"{kind}: {found[0]} [{folder}]", file=sys.stderr, flush=True)
        if not (keep and outcome.problems):
            shutil.rmtree(folder, ignore_errors=True)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=100, help="number of studies")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none later")
    options = parser.parse_args()
    began = time.monotonic()
    total = disturbed(options.first, options.n, True, options.seconds)
    print(total.table())
    print(f"\n{time.monotonic() - began:.0f} s")
    return int(bool(total.problems))


if __name__ == "__main__":
    sys.exit(main())
