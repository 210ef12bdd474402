"""An optimiser in a process of its own: real children that run small scripts."""

from __future__ import annotations

import copy
import json
import logging
import sys
from pathlib import Path

import psutil
import pytest

from daskhpo.core.errors import OptimiserLost
from daskhpo.core.types import Status
from daskhpo.schedulers import FIFO
from daskhpo.searchers import OutOfProcess, Repeater
from daskhpo.simulation import Simulation
from daskhpo.space import Real, Space
from daskhpo.testing.searcher import a_space, search
from experiments.adsorption.profiles import PROFILES
from tests.searchers.external.shared import (
    EVERY_KIND,
    Curve,
    ExternalContract,
    report,
    start,
    typed,
)

SCRIPT = Path(__file__).with_name("toy_optimiser.py")


@pytest.fixture
def script():
    return SCRIPT


@pytest.mark.slow
class TestContract(ExternalContract):
    @pytest.fixture
    def make(self, script):
        return lambda **options: OutOfProcess(script, **options)


def ready(script, space=None, **options):
    searcher = OutOfProcess(script, options=options, timeout=20)
    searcher.setup(space or a_space(), 0)
    return searcher


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_every_kind_of_value_comes_back_as_it_is(script):
    searcher = ready(script, EVERY_KIND)
    for number in range(20):
        config = start(searcher, number)
        assert typed(EVERY_KIND.complete(config)) == typed(config)
    assert searcher.error is None


def test_it_is_told_of_its_own_and_of_foreign_trials(script, tmp_path):
    searcher = ready(script, Space({"x": Real(0, 1)}), log=str(tmp_path / "log"))
    own = start(searcher, 0)
    trial = report(searcher, 0, own, 0.5, resource=3)
    searcher.on_end(trial._replace(status=Status.COMPLETED))
    searcher.on_start(1, {"x": 0.25})
    searcher.on_end(report(searcher, 1, {"x": 0.25}, 0.7)._replace(status=Status.FAILED))
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["do"] for line in lines] == ["setup", "ask", *["tell"] * 4]
    told = lines[2:]
    assert [(t["handle"], t["values"], t["loss"], t["resource"], t["complete"]) for t in told] == [
        (1, own, 0.5, 3, False),
        (1, own, 0.5, 3, True),
        (None, {"x": 0.25}, 0.7, 1, False),
        ("foreign", {"x": 0.25}, None, 1, False),
    ]


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("crash", "the process has ended"),
        ("garble", "which is no JSON object"),
        ("half", "whose values are not ['lr', 'layers', 'optimizer', 'batch_size']"),
        ("no handle", "which has no handle"),
        ("no such place", "it answered -1 as a category; allowed are 0 to 1"),
        ("outside", "lr=7.0 is not in Real"),
    ],
)
def test_when_it_breaks_down_that_is_logged_once_and_the_search_goes_on(
    script, caplog, do, message
):
    searcher = ready(script, do=do)
    with caplog.at_level(logging.ERROR):
        configs = search(searcher, 8)
    assert all(a_space().complete(config) == config for config in configs)
    assert message in searcher.error
    assert len(caplog.records) == 1
    if do == "crash":
        assert "it was all too much" in searcher.error


@pytest.mark.slow
def test_one_that_does_not_answer_in_time_is_killed_with_all_that_it_started(script, tmp_path):
    searcher = ready(script, helper=str(tmp_path / "pid"), do="hang", at=2)
    searcher.suggest(0)
    helper = psutil.Process(int((tmp_path / "pid").read_text()))
    searcher._optimiser._timeout = 0.2  # only now: a slow machine may not even start it in time
    child = searcher._optimiser._process._child
    assert searcher.suggest(1) is not None
    assert "no answer within 0.2 seconds" in searcher.error
    assert child.poll() is not None
    psutil.wait_procs([helper], timeout=60)
    assert not is_alive(helper.pid)


def test_one_that_has_no_proposal_gets_a_random_one_in_its_place(script):
    searcher = ready(script, do="nothing", at=1)
    assert a_space().complete(searcher.suggest(0))
    assert searcher.error is None


def test_one_that_refuses_the_space_is_an_error(script):
    searcher = ready(script, refuse=True)
    with pytest.raises(OptimiserLost, match="it answered with an error: no such space"):
        searcher.suggest(0)


def test_one_that_cannot_be_started_is_an_error(script, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/no/such/thing")
    broken.chmod(0o755)
    searcher = OutOfProcess(script, python=broken)
    searcher.setup(a_space(), 0)
    with pytest.raises(OptimiserLost, match="could not be started"):
        searcher.suggest(0)


def test_an_interpreter_that_is_not_there_is_refused(script, tmp_path):
    with pytest.raises(ValueError, match=r"python='.*python' is not the path of a program"):
        OutOfProcess(script, python=tmp_path / "python")


def test_where_it_runs_is_no_part_of_the_study(script, tmp_path):
    elsewhere = tmp_path / "elsewhere" / script.name
    elsewhere.parent.mkdir()
    elsewhere.write_text(script.read_text())
    both = [OutOfProcess(script), OutOfProcess(elsewhere, python=sys.executable, timeout=7)]
    assert repr(both[0]) == repr(both[1]) == "OutOfProcess(script='toy_optimiser.py', options={})"


def test_a_script_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        OutOfProcess(tmp_path / "nothing.py")


def test_the_process_ends_with_its_searcher(script):
    searcher = ready(script)
    searcher.suggest(0)
    pids = [searcher._optimiser._process._child.pid]
    twin = copy.deepcopy(searcher)
    pids.append(twin._optimiser._process._child.pid)
    assert all(map(is_alive, pids))
    del searcher, twin
    assert not any(map(is_alive, pids))


def test_the_process_ends_with_a_simulation_though_its_result_stays(script, tmp_path):
    searcher = OutOfProcess(script, options={"log": str(tmp_path / "log")})
    simulation = Simulation(
        Curve, dict(PROFILES["gpu"].domains), "mae", "min", FIFO(1), searcher, 2
    )
    result = simulation.run(num_trials=4)
    assert len(result.trials()) == 4
    assert (tmp_path / "log").exists()
    assert not [child for child in psutil.Process().children() if str(script) in child.cmdline()]


def test_a_repeated_searcher_is_closed_with_the_one_that_repeats_it(script):
    searcher = Repeater(OutOfProcess(script), 2)
    searcher.setup(a_space(), 0)
    searcher.suggest(0)
    pid = searcher.searcher._optimiser._process._child.pid
    searcher.close()
    assert not is_alive(pid)


def test_a_copy_has_a_process_of_its_own_that_knows_the_same(script):
    searcher = ready(script)
    search(searcher, 3)
    twin = copy.deepcopy(searcher)
    assert search(twin, 4, first=3) == search(searcher, 4, first=3)
