"""An optimiser in a process of its own: real children that run small scripts."""

from __future__ import annotations

import copy
import json
import logging
import sys
import textwrap

import psutil
import pytest

from daskhpo.core.errors import OptimiserLost
from daskhpo.core.types import Status
from daskhpo.searchers import OutOfProcess
from daskhpo.space import Real, Space
from daskhpo.testing.searcher import a_space, search
from tests.searchers.external.shared import EVERY_KIND, ExternalContract, report, start, typed

SCRIPT = """
import json, math, os, random, subprocess, sys, time

told = []
for line in sys.stdin:
    message = json.loads(line)
    if message["do"] == "setup":
        space, options = message["space"], message["options"]
        draw, n_asked = random.Random(message["seed"]), 0
        answer = {"error": "no such space"} if options.get("refuse") else {}
        if "helper" in options:
            with open(options["helper"], "w") as file:
                print(subprocess.Popen(["sleep", "3600"]).pid, file=file)
    elif message["do"] == "ask":
        n_asked += 1
        values = {}
        for one in space:
            if one["kind"] in ("real", "integer"):
                low, high = one["low"], one["high"]
                if one["log"]:
                    value = math.exp(draw.uniform(math.log(low), math.log(high)))
                else:
                    value = draw.uniform(low, high)
                value = value if one["kind"] == "real" else round(value)
                values[one["name"]] = min(max(value, low), high)
            elif one["kind"] == "ordinal":
                values[one["name"]] = draw.choice(one["values"])
            else:
                values[one["name"]] = draw.randrange(one["n"])
        answer = {"handle": n_asked, "values": values}
        if n_asked == options.get("at", 3):
            if options.get("do") == "crash":
                print("it was all too much", file=sys.stderr, flush=True)
                os._exit(7)
            if options.get("do") == "hang":
                time.sleep(3600)
            if options.get("do") == "garble":
                answer = "no object"
            if options.get("do") == "nothing":
                answer = {}
            if options.get("do") == "half":
                del answer["values"][space[0]["name"]]
            if options.get("do") == "no handle":
                del answer["handle"]
            if options.get("do") == "no such place":
                answer["values"]["optimizer"] = -1
            if options.get("do") == "outside":
                answer["values"]["lr"] = 7.0
    else:
        told.append(message)
        answer = {"handle": message["handle"] or "foreign"}
        if "log" in options:
            with open(options["log"], "a") as log:
                log.write(line)
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "optimiser.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


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
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
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
        ("no such place", "it answered -1 as a place among 2 values"),
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
    assert repr(both[0]) == repr(both[1]) == "OutOfProcess(script='optimiser.py', options={})"


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


def test_a_copy_has_a_process_of_its_own_that_knows_the_same(script):
    searcher = ready(script)
    search(searcher, 3)
    twin = copy.deepcopy(searcher)
    assert search(twin, 4, first=3) == search(searcher, 4, first=3)
