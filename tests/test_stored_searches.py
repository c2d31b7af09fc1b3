"""Searches on a back end: what they leave in the store, how they go on, and what people see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backstop.platform import cli
from backstop.platform.commands.searches import print_searches
from backstop.platform.contract import Part, Search
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.results.tracking.description import TAG_LIMIT
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.searched import Searched, read_searched, write_searched
from backstop.platform.results.tracking.store import locate_store, mlflow_client
from backstop.platform.results.tracking.sweeps import open_parent
from backstop.platform.sweeps import ray_tune
from backstop.platform.sweeps.conduct import Site, conduct
from backstop.platform.sweeps.plan import SweepPlan, plan_space
from backstop.platform.sweeps.queues import Queue
from backstop.platform.sweeps.reports import search_report
from tests.test_backend import BASE, OneByOne, Seen

TRIGGERED = BASE.replace(
    dataset=Part("digits"),
    attack=(Part("badnets"),),
    malicious=0.5,
    defense=(Part("trimmed_mean"),),
    rounds=2,
)
DEFENDER = Search(
    base=TRIGGERED,
    free=("defense.trimmed_mean.trim_fraction",),
    objective="score",
    trials=3,
    width=2,
    confirm=(7, 8),
    title="defender",
)
ATTACKER = Search(
    base=TRIGGERED.replace(attack=()),
    choices={"attack": ("badnets", "blended")},
    free=("attack.strength",),
    objective=("excess_success", "accuracy_lost", "server_seconds"),
    trials=2,
    width=2,
    confirm=(7,),
    title="attacker (both)",
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(locate_store(tmp_path), tmp_path, "tiny", tmp_path / "data", "cpu")


def searched(site: Site, *searches: Search) -> tuple[SweepPlan, list[str]]:
    """The searches as a sweep runs them, and what was said."""
    said: list[str] = []

    @contextmanager
    def watch(_: Queue) -> Iterator[Seen]:
        yield Seen()

    plan = plan_space("tiny", searches)
    conduct(plan, site, OneByOne(), watch=watch, say=said.append)
    return plan, said


def test_two_searches_leave_their_winners_in_the_store(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, _ = searched(site, DEFENDER, ATTACKER)
    defender, attacker = plan.searches
    stored = {run.id: run for run in read_runs(site.store, "tiny")}
    of_defender, of_attacker = read_searched(site.store, "tiny")
    (confirmed,) = defender.confirmed
    assert of_defender == Searched(
        side="defense",
        ids=tuple(spec.id for spec in confirmed.specs),
        trials=3,
        seeds=1,
        objective="score",
    )
    assert of_attacker.side == "attack"
    assert of_attacker.objective == "excess_success, accuracy_lost, server_seconds"
    for ids, seeds in ((of_defender.ids, {7, 8}), (of_attacker.ids, {7})):
        assert {stored[key].spec["seed"] for key in ids} == seeds
        assert all("evaluate_on" not in stored[key].spec for key in ids)
    assert {run.spec.get("evaluate_on") for run in stored.values()} == {None, "validation"}
    assert all(trial.scores["server_seconds"] > 0 for trial in attacker.trials)

    parent = mlflow_client(site.store.uri).search_runs(
        [open_experiment(site.store, "tiny")], "tags.`backstop.kind` = 'sweep'"
    )[0]
    best = defender.best()
    assert best is not None
    assert parent.data.metrics["validation/defender/score"] == best.scores["score"]
    assert "validation/attacker _both_/excess_success" in parent.data.metrics
    note = parent.data.tags["mlflow.note.content"]
    assert "| defender | defense.trimmed_mean.trim_fraction" in note

    print_searches(plan.searches)
    print_searches([attacker])
    shown = capsys.readouterr().out
    assert "Pareto front" in shown and ": mean (range of the seeds)" in shown
    assert "3 proposals × 1 seed on validation data (tpe), judged by score" in shown
    report = json.loads(json.dumps([search_report(search) for search in plan.searches]))
    assert report[0]["best"]["scores"] == best.scores
    assert report[0]["confirmed"][0]["scores"]["score"]["n"] == 2
    assert report[1]["front"] == [trial.position for trial in attacker.front()]


def test_an_interrupted_search_goes_on_to_the_same_end(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = searched(site._replace(experiment="whole"), DEFENDER)
    other = site._replace(folder=tmp_path / "other", store=locate_store(tmp_path / "other"))
    real, rounds = Experiment.round, 0

    def stopping(self: Experiment) -> object:
        nonlocal rounds
        rounds += 1
        if rounds == 9:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Experiment, "round", stopping)
    with pytest.raises(KeyboardInterrupt):
        searched(other, DEFENDER)
    monkeypatch.setattr(Experiment, "round", real)
    plan, said = searched(other, DEFENDER)
    assert "4 of" in said[-1]
    assert plan.searches[0].trials == whole.searches[0].trials
    assert plan.searches[0].confirmed == whole.searches[0].confirmed
    _, said = searched(other, DEFENDER)
    assert "runs are finished already" in said[-1]
    assert len(read_searched(other.store, "tiny")) == 1


def test_searches_of_one_space_have_titles_of_their_own() -> None:
    with pytest.raises(BadInput, match="2 searches are called 'defender'"):
        plan_space("tiny", [DEFENDER, DEFENDER])


def test_what_was_searched_may_be_longer_than_a_tag(tmp_path: Path) -> None:
    store = locate_store(tmp_path)
    parent = open_parent(store, open_experiment(store, "tiny"), "tiny")
    many = [
        Searched("attack", tuple(f"{index:064d}" for index in range(200)), 24, 1, "excess_success")
    ]
    assert len(json.dumps(many)) > TAG_LIMIT
    write_searched(store, parent, many)
    assert read_searched(store, "tiny") == many
    assert read_searched(store, "another") == []


def test_what_an_earlier_search_chose_stays_beside_what_a_longer_one_chooses(
    tmp_path: Path,
) -> None:
    store = locate_store(tmp_path)
    parent = open_parent(store, open_experiment(store, "tiny"), "tiny")
    short = [Searched("attack", (letter * 64,), 4, 1, "excess_success") for letter in "ab"]
    write_searched(store, parent, short)
    # of one defense the winner is the same, of the other another one
    longer = [Searched("attack", (letter * 64,), 24, 1, "excess_success") for letter in "ac"]
    write_searched(store, parent, longer)
    assert read_searched(store, "tiny") == [*longer, short[1]]


SPACE = """
from dataclasses import replace

from backstop.platform.contract import Part
from tests.test_stored_searches import ATTACKER


def tiny():
    return [
        replace(
            ATTACKER,
            base=ATTACKER.base.replace(defense=(Part(name),)),
            objective="excess_success",
            title=name,
        )
        for name in ("median", "trimmed_mean")
    ]
"""


def test_a_sweep_of_searches_ends_with_the_board_of_their_winners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_tune, "RayTune", lambda *_: OneByOne())
    (tmp_path / "tiny.py").write_text(SPACE)
    store = tmp_path / "store"
    command = ["sweep", str(tmp_path / "tiny.py"), "--store", str(store)]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "each search: 2 proposals × 1 seed on validation data" in shown
    board = json.loads((store / "leaderboards" / "tiny" / "leaderboard.json").read_text())
    ranked = {row["defense"].partition("(")[0]: row for row in board["rows"]}
    assert {"median", "trimmed_mean"} <= ranked.keys()
    searched = [item for item in board["searched"] if item["side"] == "attack"]
    assert len(searched) == 2 and {item["trials"] for item in searched} == {2}
    of_runs = {run["id"] for run in board["runs"]}
    assert all(set(item["ids"]) <= of_runs for item in searched)
    assert not [run for run in board["runs"] if run["spec"].get("evaluate_on") == "validation"]
    assert all(ranked[name]["worst_case_success"] for name in ("median", "trimmed_mean"))
    assert board["missing_runs"] == []

    assert cli.main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [item["title"] for item in printed["searches"]] == ["median", "trimmed_mean"]
