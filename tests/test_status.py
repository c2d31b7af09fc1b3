"""``backstop status``: how sweeps stand, read from another process while they run and after."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backstop.platform import cli
from backstop.platform.commands import run as run_command
from backstop.platform.contract import BrokenStage, Part, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.results.tracking import drivers
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.log import DRIVER, Log
from backstop.platform.results.tracking.progress import (
    Progress,
    Running,
    begin_progress,
    progress_text,
    read_progress,
    write_progress,
)
from backstop.platform.results.tracking.store import locate_store, mlflow_client
from backstop.platform.results.tracking.sweep_states import Place, SweepState, read_states
from backstop.platform.results.tracking.sweeps import close_parent, open_parent, write_plan
from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.spec import validate
from backstop.platform.storage import local_folder
from backstop.platform.sweeps import reporter
from backstop.platform.sweeps.backend import Observer, Task
from backstop.platform.sweeps.conduct import Site, conduct
from backstop.platform.sweeps.plan import SweepPlan, run_words
from backstop.platform.sweeps.queues import Fixed, Queue
from backstop.platform.sweeps.reporter import Reporter

SPECS = [
    Spec(
        dataset=Part("synthetic"),
        model=Part("logistic"),
        clients=4,
        per_round=4,
        rounds=3,
        batch=16,
        root_size=4,
        alpha=None,
        seed=seed,
    )
    for seed in range(4)
]
HERE = Origin("cpu", "0123456789abcdef", {})


def states(site: Site, now: float | None = None) -> list[SweepState]:
    return read_states(Place(site.store, site.folder, now or time.time()), site.experiment)


class Looking:
    """A back end that has one run done, one failed and one begun when it stops to look around."""

    name, elsewhere = "a loop", False

    def __init__(self, look: Callable[[], None]) -> None:
        self.look = look

    def check(self) -> None:
        pass

    def start(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, queue: Queue, task: Task, observer: Observer) -> None:
        for fails in (False, True):
            self.one(queue, task, observer, fails)
        under_way = queue.waiting[0]
        observer.started(under_way)
        observer.result(under_way, 2, {})
        self.look()
        while queue.waiting:
            self.one(queue, task, observer, False)

    def one(self, queue: Queue, task: Task, observer: Observer, fails: bool) -> None:
        spec = queue.waiting.pop(0)
        observer.started(spec)
        session = task.session(spec)
        if fails:
            with pytest.raises(BrokenStage):
                for _ in session.rounds():
                    pytest.fail("it breaks in its first round")
            queue.failed(spec, "defense median: round 1: ValueError: no luck")
            observer.ended(spec, None, False)
            return
        for record in session.rounds():
            observer.result(spec, record.round, record.metrics)
        outcome = session.finish()
        queue.ended(spec, outcome)
        observer.ended(spec, outcome.finals, outcome.stored)


class Looked(NamedTuple):
    """Where a sweep was, and what was seen of it in mid-run."""

    site: Site
    found: subprocess.CompletedProcess[str]  # from another process
    text: str


def site_in(folder: Path) -> Site:
    return Site(
        locate_store(folder / "s"),
        folder / "s",
        "tiny",
        folder / "data",
        "cpu",
        command="backstop sweep tiny.py --seeds 4",
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_in(tmp_path)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Looked:
    """A sweep that was looked at in its middle."""
    site = site_in(tmp_path_factory.mktemp("looked"))
    real = Experiment.round
    seen: list[Looked] = []

    def breaking(self: Experiment) -> object:
        if self.spec.seed == 1:
            broken = BrokenStage("defense median", "ValueError: no luck")
            broken.locate(0)
            raise broken
        return real(self)

    def look() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not states(site)[0].running:
            time.sleep(0.05)
        line = [sys.executable, "-m", "backstop.platform.cli", "status", "--json"]
        line += ["--store", str(site.folder)]
        found = subprocess.run(line, capture_output=True, text=True, check=False)
        seen.append(Looked(site, found, told(site, code=1)))

    plan = SweepPlan("tiny", Fixed(SPECS), SPECS)
    quiet = nullcontext(Silent())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "round", breaking)
        patch.setattr(reporter, "NOTE_INTERVAL", 0.1)
        patch.setattr(reporter, "COUNT_INTERVAL", 0.0)
        conduct(plan, site, Looking(look), watch=lambda _: quiet, say=lambda _: None)
    return seen[0]


def told(site: Site, code: int = 0) -> str:
    """What the command prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert cli.main(["status", "--store", str(site.folder)]) == code
    return printed.getvalue()


class Silent:
    """An observer that shows nothing."""

    def started(self, spec: Spec) -> None: ...

    def result(self, spec: Spec, rounds: int, last: Any) -> None: ...

    def ended(self, spec: Spec, finals: Any, stored: bool) -> None: ...


def test_another_process_sees_how_a_sweep_runs(looked: Looked) -> None:
    assert looked.found.returncode == 1, looked.found.stderr  # one has failed
    (sweep,) = json.loads(looked.found.stdout)["sweeps"]
    counts = {key: sweep[key] for key in ("planned", "done", "running_count", "left", "pruned")}
    assert counts == {"planned": 4, "done": 1, "running_count": 1, "left": 1, "pruned": 0}
    assert (sweep["experiment"], sweep["space"], sweep["state"]) == ("tiny", "tiny", "running")
    (under_way,) = sweep["running"]
    assert under_way["words"] == run_words(SPECS[2])
    assert (under_way["round"], under_way["rounds"]) == (2, 3)
    assert sweep["driver"]["alive"] is True
    assert sweep["driver"]["directory"] == str(Path.cwd())
    assert sweep["command"].endswith(" && backstop sweep tiny.py --seeds 4")
    (failure,) = sweep["failures"]
    assert failure["reason"] == "defense median: round 1: ValueError: no luck"
    assert "BrokenStage" in Path(failure["log"]).read_text()


def test_a_sweep_under_way_and_one_that_has_ended_in_words(looked: Looked) -> None:
    text = looked.text
    assert "\x1b" not in text
    assert text.startswith("tiny: running\n  1 of 4 done, 1 running, 1 failed, 1 to come\n")
    assert "driver alive" in text
    assert "why    defense median: round 1: ValueError: no luck" in text
    assert "again  backstop run " in text

    after = told(looked.site, code=1)
    assert after.startswith("tiny: failed\n  3 of 4 done, 1 failed\n")
    assert "driver ended" in after
    assert "running" not in after
    assert after.splitlines()[-1].endswith(" && backstop sweep tiny.py --seeds 4")


def test_the_command_of_a_failed_run_runs_it_again_and_then_all_is_there(looked: Looked) -> None:
    site = looked.site
    (state,) = states(site)
    (failure,) = state.failures
    arguments = shlex.split(failure.command)[1:]
    options = cli.parser().parse_args(arguments)
    assert run_command._requested_spec(options).id == validate(SPECS[1]).id
    assert (options.experiment, options.store) == ("tiny", str(site.folder))

    log = Log(site.store, open_experiment(site.store, "tiny"), SPECS[1], origin=HERE)
    assert log.finish({"final/clean_accuracy": 0.5})
    (state,) = states(site)
    assert (state.state, state.failures, state.done) == ("done", [], 4)
    assert "4 of 4 done\n" in told(site)


def opened(site: Site, driver: str, specs: list[Spec]) -> tuple[str, str]:
    """An experiment with a sweep that has these plans: the MLflow ids of both."""
    number = open_experiment(site.store, site.experiment)
    parent = open_parent(site.store, number, "tiny", driver=driver)
    write_plan(site.store, parent, {spec.id: run_words(spec) for spec in specs})
    return number, parent


def test_a_killed_driver_is_told_from_a_live_one(site: Site) -> None:
    with drivers.at_work(local_folder(site.folder)) as driver:
        number, parent = opened(site, driver, SPECS)
        log = Log(site.store, number, SPECS[0], origin=HERE, parent=parent, driver=driver)
        assert log.flush()
        (state,) = states(site)
        assert (state.state, state.driver.alive, state.left) == ("running", True, 3)
        assert [run.words for run in state.running] == [run_words(SPECS[0])]
        assert state.sound
    (state,) = states(site)
    assert (state.state, state.driver.alive, state.left) == ("interrupted", False, 4)
    assert (state.running, state.sound) == ([], False)
    with drivers.at_work(local_folder(site.folder)) as driver:
        opened(site, driver, SPECS)
        (state,) = states(site)
        assert (state.state, state.left) == ("running", 4), "nobody works on the old run"


def test_a_driver_elsewhere_is_known_by_its_last_note(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is with a tracking server, where the driver's lock is on another machine."""
    from backstop.platform.results.tracking import sweep_states

    _, parent = opened(site, "far", SPECS)
    assert write_progress(site.store, parent, begin_progress("far", "backstop sweep tiny"))
    monkeypatch.setattr(sweep_states, "database_file", lambda _: None)
    assert [state.state for state in states(site)] == ["running"]
    late = time.time() + 2 * sweep_states.SILENCE
    (state,) = states(site, now=late)
    assert (state.state, state.driver.alive, state.sound) == ("unknown", None, False)
    close_parent(site.store, parent, "FINISHED")
    assert [state.state for state in states(site)] == ["incomplete"]


def test_the_note_of_an_earlier_driver_does_not_count(site: Site) -> None:
    _, parent = opened(site, "first", SPECS)
    told = begin_progress("first", "")._replace(failures={SPECS[0].id: "no luck"})
    assert write_progress(site.store, parent, told)
    mlflow_client(site.store.uri).set_tag(parent, DRIVER, "second")
    (state,) = states(site)
    assert (state.failures, state.driver.host) == ([], "")


def test_the_time_left_follows_from_the_last_ends(site: Site) -> None:
    with drivers.at_work(local_folder(site.folder)) as driver:
        specs = [SPECS[0].replace(seed=seed) for seed in range(12)]
        number, parent = opened(site, driver, specs)
        client = mlflow_client(site.store.uri)
        for position, spec in enumerate(specs[:4]):
            log = Log(site.store, number, spec, origin=HERE, parent=parent, driver=driver)
            assert log.finish({"final/clean_accuracy": 0.5})
            client.set_terminated(str(log.run_id), "FINISHED", end_time=10_000 * (position + 1))
        (state,) = states(site)
    assert (state.seconds_per_run, state.seconds_left) == (10.0, 80.0)


def test_a_search_is_known_by_what_its_driver_noted(site: Site) -> None:
    with drivers.at_work(local_folder(site.folder)) as driver:
        number = open_experiment(site.store, site.experiment)
        parent = open_parent(site.store, number, "worst", driver=driver)
        words = "badnets(size=3) + model_replacement(strength=3.0) × " * 3 + "trimmed_mean"
        running = (Running("a" * 64, words, since=time.time(), round=7, rounds=50),)
        noted = begin_progress(driver, "")._replace(
            expected=30,
            done=11,
            pruned=3,
            running=running,
            running_count=14,
        )
        assert write_progress(site.store, parent, noted)
        (state,) = states(site)
        text = told(site)
    assert (state.planned, state.done, state.pruned, state.left) == (30, 11, 3, 5)
    assert "11 of 30 done, 14 running, 3 proposals pruned, 5 to come" in text
    assert re.search(r"^badnets.* 7/50  0:0\d$", text, re.MULTILINE), text
    assert "and 13 more" in text
    assert "trimmed_mean" in text, "a name is folded, not cut"
    assert max(map(len, text.splitlines())) <= 80


def test_a_note_fits_into_a_tag_however_much_runs() -> None:
    running = tuple(
        Running(f"{number:064x}", "badnets × „median“ " * 8, since=1.0, round=2, rounds=30)
        for number in range(500)
    )
    failures = {f"{number:064x}": 'ValueError: "no luck" ' * 30 for number in range(500)}
    noted = begin_progress("one", "backstop sweep tiny")._replace(
        running=running, running_count=500, failures=failures
    )
    text = progress_text(noted)
    assert len(text) <= 8000
    read = read_progress({"backstop.progress": text})
    assert isinstance(read, Progress)
    assert read.running and read.failures and read.running_count == 500
    assert read.running[0] == running[0]


def test_a_store_that_hangs_does_not_hold_a_sweep_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "LAST_NOTE_WAIT", 0.05)
    queue = Queue(Fixed(SPECS), {})
    assert queue.fill()
    began = time.monotonic()
    with Reporter(
        Silent(),
        queue,
        first=begin_progress("one", ""),
        send=lambda _: time.sleep(20),
        pruned=lambda: 0,
    ) as telling:
        telling.started(SPECS[0])
        telling.ended(SPECS[0], {}, True)
    assert time.monotonic() - began < 10


def test_nothing_there_is_said(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--store", str(site.folder)]) == 0
    assert f"no sweep in {site.store.uri} yet" in capsys.readouterr().out
    assert not local_folder(site.folder).exists(), "nothing is made"
    assert cli.main(["status", "--store", str(site.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sweeps"] == []
    assert cli.main(["status", "--store", str(site.folder), "--experiment", "tiny"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    open_experiment(site.store, "tiny")
    assert cli.main(["status", "--store", str(site.folder), "--experiment", "tin"]) == 2
    err = capsys.readouterr().err
    assert err == "backstop: unknown experiment 'tin'; did you mean 'tiny'?\n"
    assert cli.main(["status", "--store", str(site.folder), "--experiment", "tiny"]) == 0
    assert "no sweep in experiment 'tiny'" in capsys.readouterr().out


def test_the_table_of_several_sweeps_is_80_columns_wide(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    number = open_experiment(site.store, "a_rather_long_name_of_an_experiment")
    for space in ("attacks_on_cifar10", "paper_phishing_small"):
        parent = open_parent(site.store, number, space, driver="x")
        write_plan(site.store, parent, {spec.id: run_words(spec) for spec in SPECS})
        close_parent(site.store, parent, "KILLED")
    assert cli.main(["status", "--store", str(site.folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= 80
    assert sum("interrupted   0/4" in line for line in table) == 2
