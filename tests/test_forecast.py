"""What ``--plan`` measures, guesses and prints."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

import pytest

from backstop.platform import cli
from backstop.platform.commands.forecast import forecast_lines
from backstop.platform.contract import BrokenStage, Part, Record, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.store import locate_store
from backstop.platform.specs.change import grid
from backstop.platform.sweeps import calibration, guesses
from backstop.platform.sweeps.calibration import (
    Measured,
    measure,
    representatives,
    run_kind,
    worst_load,
)
from backstop.platform.sweeps.conduct import Site
from backstop.platform.sweeps.other_work import Clocks, OtherWork, between, read_clocks
from backstop.platform.sweeps.outlook import STORE_S, RunRates, makespan, outlook, scaled
from backstop.platform.sweeps.plan import make_plan
from backstop.platform.workers.actors import ActorShare
from backstop.platform.workers.sharing import Load, TrialWorkers
from tests.test_backend import OneByOne, conducted

BASE = Spec(
    dataset=Part("synthetic"),
    model=Part("logistic"),
    clients=4,
    per_round=4,
    rounds=3,
    batch=16,
    root_size=4,
    alpha=None,
)
LOAD = Load(train_s=2.0, blocks=4, sent_mib=0.0, mib=500.0)
ONE = TrialWorkers(0, 1, ActorShare())
SPACE = '''
"""Runs of two defenses."""
from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

def mine():
    small = Spec(dataset=Part("synthetic"), model=Part("logistic"), clients=4, per_round=4,
                 rounds=3, batch=16, root_size=4, alpha=None, malicious=0.0)
    return grid(small, seed=range(3), defense=["fedavg", "median"])
'''


def measured(spec: Spec, train_s: float = 2.0, aggregate_s: float = 0.5) -> Measured:
    """What a run of the spec might have taken."""
    return Measured(
        run_kind(spec),
        setup_s=1.0,
        train_s=train_s,
        aggregate_s=aggregate_s,
        evaluate_s=0.25,
        rounds=4,
        points=10,
        model_mib=2.0,
        load=LOAD._replace(train_s=train_s),
    )


def test_every_attack_and_defense_of_every_setting_is_measured_and_not_every_pair() -> None:
    space = grid(
        BASE,
        seed=range(3),
        clients=[4, 5],
        attack=["none", "sign_flip", "gaussian"],
        defense=["fedavg", "median"],
    )
    chosen = representatives(space)
    assert len(chosen) == 6  # of 36
    for index, pick in ((1, "attack"), (2, "defense")):
        everything = {(run_kind(spec).setting, run_kind(spec)[index]) for spec in space}
        assert {(run_kind(spec).setting, run_kind(spec)[index]) for spec in chosen} == everything, (
            pick
        )
    assert [spec.clients for spec in chosen] == [4, 5] * 3  # in turns


def test_the_clean_twin_of_an_attack_is_a_kind_of_its_own() -> None:
    attacked = BASE.replace(attack=(Part("badnets"),), dataset=Part("digits"))
    assert run_kind(attacked) != run_kind(attacked.replace(dormant=True))
    assert run_kind(attacked) == run_kind(attacked.replace(seed=3, rounds=9, eval_every=2))


def test_a_few_rounds_say_what_a_run_takes(tmp_path: Path) -> None:
    specs = [BASE, BASE.replace(defense=(Part("median"),))]
    first, second = measure(specs, tmp_path, "cpu", seconds=600.0)
    assert first.kind == run_kind(BASE)
    assert (first.rounds, second.rounds) == (3, 3)
    assert min(first.train_s, first.aggregate_s, first.evaluate_s, first.setup_s) > 0
    assert first.model_mib > 0 and first.points > 5 and first.load.mib > 50
    assert first.load.blocks >= 1
    assert len(measure(specs, tmp_path, "cpu", seconds=0.0)) == 1  # at least one, and no more


def test_a_run_that_breaks_is_left_to_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = BASE, BASE.replace(defense=(Part("median"),))
    real = Experiment.round

    def breaking(experiment: Experiment) -> Record | None:
        if experiment.spec.defense:
            raise BrokenStage("defense median", "no luck")
        return real(experiment)

    monkeypatch.setattr(Experiment, "round", breaking)
    assert [item.kind for item in measure([broken, whole], tmp_path, "cpu", 600.0)] == [
        run_kind(whole)
    ]


def test_a_run_that_was_not_measured_is_put_together_from_those_that_were() -> None:
    attacked, defended = (
        BASE.replace(attack=(Part("sign_flip"),)),
        BASE.replace(defense=(Part("median"),)),
    )
    rates = RunRates([measured(attacked, train_s=3.0), measured(defended, aggregate_s=1.5)])
    both = attacked.replace(defense=(Part("median"),), rounds=10, eval_every=4)
    costs = rates.costs(both)
    assert (costs.train_s, costs.aggregate_s, costs.evaluate_s) == (30.0, 15.0, 0.75)
    assert costs.measured
    assert costs.seconds == 1.0 + 30.0 + 15.0 + 0.75 + STORE_S
    other = rates.costs(both.replace(clients=9))
    assert not other.measured
    assert other.train_s == 25.0  # the mean of both


def test_threads_and_actors_shorten_the_training_alone() -> None:
    rates = RunRates([measured(BASE)])
    alone = outlook([BASE], rates, ONE, 1)
    spread = outlook([BASE], rates, ONE._replace(threads=4), 1)
    assert alone.seconds - spread.seconds == pytest.approx(6.0 - 6.0 / 4)
    assert alone.processor_s == spread.processor_s
    assert outlook([], rates, ONE, 1).seconds == 0.0


def test_a_warm_up_that_runs_share_is_counted_once() -> None:
    rates = RunRates([measured(BASE)])
    warm = [BASE.replace(warmup=5, defense=(Part(name),)) for name in ("median", "krum")]
    assert rates.warm_ups(warm) == [10.0]
    cold = outlook([BASE, BASE], rates, ONE, 1).processor_s
    assert outlook(warm, rates, ONE, 1).processor_s == pytest.approx(cold + 10.0)


def test_trials_wait_for_the_first_that_ends() -> None:
    assert makespan([], 4) == 0.0
    assert makespan([5.0, 1.0, 1.0, 1.0], 2) == 5.0
    assert makespan([1.0] * 10, 3) == 4.0


def test_a_search_is_scaled_from_what_stands_for_it() -> None:
    few = outlook([BASE, BASE.replace(seed=1)], RunRates([measured(BASE)]), ONE, 1)
    many = scaled(few, 20)
    assert (many.runs, many.store_mib) == (20, few.store_mib * 10)
    assert many.longest_s == few.longest_s


def test_of_all_loads_the_most_memory_and_the_shortest_round_count() -> None:
    small, large = measured(BASE, train_s=0.1), measured(BASE)
    large = large._replace(load=LOAD._replace(mib=900.0, gpu_mib=7.0))
    assert worst_load([large, small]) == LOAD._replace(train_s=0.1, mib=900.0, gpu_mib=7.0)
    assert worst_load([]) is None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space, a cache of its own, and a calibration in this process."""
    (tmp_path / "mine.py").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "cache"))

    def calibrated(specs: list[Spec], folder: Path, device: str) -> list[Measured]:
        return measure(representatives(specs), folder, device, 600.0)

    monkeypatch.setattr(calibration, "calibrate", calibrated)
    return tmp_path


def test_a_plan_says_what_it_would_take_and_starts_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", "mine.py", "--plan", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines())) <= 80
    assert said.out.startswith("runs      6 in all, 0 stored already, 6 left\n")
    for about in ("where", "at once", "because", "setting", "time", "memory", "store", "measured"):
        assert f"\n{about} " in said.out
    assert "nothing was started" in said.err
    assert not (here / "backstop-store").exists()


def test_a_plan_as_json_has_the_figures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--plan", "--json", "--device", "cpu", "--max-concurrent", "1"]
    assert cli.main(["sweep", "mine.py", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["runs"], document["left"], document["trials_at_once"]) == (6, 6, 1)
    assert document["seconds"] > 0 and document["memory_mib"] == document["trial_mib"]
    assert (document["measured_runs"], document["guessed_runs"]) == (2, 0)


def test_the_guess_stands_beside_what_a_sweep_took(here: Path) -> None:
    specs = [BASE, BASE.replace(seed=1)]
    assert guesses.find_guess("mine", specs) is None
    guesses.keep_guess("mine", specs, guesses.Guess(2, 40.0))
    assert guesses.find_guess("other", specs) is None
    found = guesses.find_guess("mine", specs[::-1])
    assert guesses.outcome(found, 2, 44.0) == "2 runs took 44 s; --plan guessed 40 s"
    assert guesses.outcome(found, 1, 44.0) == ""  # others than those that were guessed
    (file,) = (here / "cache" / "plans").iterdir()
    file.write_text("{}")
    assert guesses.find_guess("mine", specs) is None


def clocks(monkeypatch: pytest.MonkeyPatch, own: float, every: float | None) -> None:
    """Each reading is a second after the last, of which the process has ``own`` of a core and all
    processes together ``every``.
    """
    seconds = itertools.count()

    def read() -> Clocks:
        now = float(next(seconds))
        return Clocks(now, now * own, None if every is None else now * every)

    monkeypatch.setattr(calibration, "read_clocks", read)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


PLAN = ["sweep", "mine.py", "--plan", "--device", "cpu"]
BUSY = "it had 50 % of a core, and other work kept 1.5 of 2 cores busy"


def test_a_guess_under_load_says_so_in_the_plan_and_beside_what_the_sweep_took(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks(monkeypatch, own=0.5, every=2.0)
    assert cli.main(PLAN) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    _, _, last = said.rpartition("\nbusy ")
    assert " ".join(last.split()) == (
        f"the machine did other work meanwhile: {BUSY}; the time may be far off, so plan again when"
        " it is idle"
    )
    guess = guesses.find_guess("mine", make_plan("mine.py").specs)
    assert guess is not None and guess.beside == BUSY
    beside = guesses.outcome(guess, 6, 4.0)
    assert beside.startswith("6 runs took 4 s; --plan guessed ")
    assert beside.endswith(f" on a machine that did other work: {BUSY}")


def test_a_guess_on_an_idle_machine_says_nothing_of_it(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks(monkeypatch, own=0.97, every=1.1)
    assert cli.main([*PLAN, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["measured_beside"] == ""
    assert document["core_share"] == pytest.approx(0.97)
    assert document["other_cores"] == pytest.approx(0.13)
    assert not any(line.startswith("busy") for line in forecast_lines(document))
    guess = guesses.find_guess("mine", make_plan("mine.py").specs)
    assert guess is not None and "other work" not in guesses.outcome(guess, 6, 4.0)


def test_a_guess_from_before_its_load_was_kept_is_read(here: Path) -> None:
    guesses.keep_guess("mine", [BASE], guesses.Guess(1, 40.0, BUSY))
    (file,) = (here / "cache" / "plans").iterdir()
    file.write_text(json.dumps({"runs": 1, "seconds": 40.0}))
    assert guesses.find_guess("mine", [BASE]) == guesses.Guess(1, 40.0)


@pytest.mark.parametrize(
    ("own", "others", "words"),
    [
        (9.5, 0.2, ""),
        (8.9, 0.2, "it had 89 % of a core, and other work kept 0.0 of 2 cores busy"),
        (8.9, None, "it had 89 % of a core"),
        (9.9, 3.1, "other work kept 0.3 of 2 cores busy"),
        (None, 3.1, "other work kept 0.3 of 2 cores busy"),
        (None, None, ""),
    ],
)
def test_what_else_the_machine_did_is_said_where_it_counts(
    own: float | None, others: float | None, words: str
) -> None:
    assert OtherWork(10.0, own, others, 2).words == words


def test_a_process_that_waits_for_others_has_less_than_a_core() -> None:
    began = read_clocks()
    time.sleep(0.2)
    asleep = between(began, read_clocks())
    assert asleep.own_share is not None and asleep.own_share < 0.5
    assert between(began, read_clocks(), on_gpu=True).own_share is None
    began = read_clocks()
    while time.process_time() - began.own < 0.1:
        pass
    worked = between(began, read_clocks())
    assert worked.own_s == pytest.approx(0.1, abs=0.05)
    assert OtherWork(0.4, 0.4, 0.4, 2).other_cores is None  # too short to tell


def test_what_is_not_known_is_not_printed() -> None:
    document = {
        "runs": 2,
        "stored": 2,
        "left": 0,
        "nodes": ["this machine: 2 CPUs"],
        "trials_at_once": 1,
        "client_actors": 0,
        "threads": 2,
        "gpus_per_process": 0.0,
        "reason": "one process can use the 2 cores that a trial has",
        "memory_holds": None,
    }
    lines = forecast_lines(document)
    assert [line.split()[0] for line in lines] == ["runs", "where", "at", "because"]


def test_what_is_stored_already_is_not_left(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = here / "backstop-store"
    specs = make_plan("mine.py").specs
    site = Site(locate_store(store), store, "mine", here, "cpu")
    conducted(site, OneByOne(), specs[:2])
    for name, stored in (("mine", 2), ("other", 0)):
        arguments = ["--plan", "--json", "--device", "cpu", "--experiment", name]
        assert cli.main(["sweep", "mine.py", *arguments]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["stored"], document["left"]) == (stored, 6 - stored)
    assert len(read_runs(site.store, "mine")) == 2
