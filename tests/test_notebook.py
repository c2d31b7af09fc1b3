"""What a notebook gets: values that agree with the command line's, and one clear line for what
cannot be.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import backstop
from backstop.platform import experiment, notebook
from backstop.platform.results.leaderboard.document import encode_document
from backstop.platform.results.leaderboard.ranking import build_document
from backstop.platform.rounds.finals import final
from backstop.platform.sweeps import conduct
from backstop.platform.sweeps.conduct import Site
from backstop.platform.sweeps.plan import SweepPlan
from backstop.platform.sweeps.queues import Queue
from backstop.platform.workers import cluster
from backstop.platform.workers.clients import InProcess
from tests.boards import runs as made_up_runs

STORE = "backstop-store"
SPEC = backstop.Spec(
    model=backstop.Part("logistic"),
    attack=backstop.parse_chain("badnets(share=0.5)"),
    clients=10,
    per_round=5,
    rounds=2,
    root_size=20,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def board() -> backstop.Leaderboard:
    return backstop.Leaderboard(build_document(made_up_runs(), "made up"))


def test_a_run_is_that_of_its_spec_and_is_stored_nowhere() -> None:
    result = backstop.run(SPEC)
    records = list(experiment.run(SPEC))
    assert dict(result.final) == final(records)
    frame = result.frame()
    assert list(frame.index) == [0, 1] and frame.index.name == "round"
    assert frame.to_dict("records") == [
        {name: value for name, value in record.metrics.items() if not name.startswith("run/")}
        for record in records
    ]
    assert not list(Path().iterdir())


def test_a_run_uses_the_cores_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    open_clients = InProcess.open

    def noted(clients: InProcess, *given: Any) -> None:
        opened.append(clients.threads)
        open_clients(clients, *given)

    monkeypatch.setattr(InProcess, "open", noted)
    monkeypatch.setattr(cluster, "available", lambda: 3)
    on_three = backstop.run(SPEC)
    assert opened == [3]
    assert on_three.final == final(list(experiment.run(SPEC)))


def test_a_leaderboard_is_shown_as_a_table(board: backstop.Leaderboard) -> None:
    assert repr(board).startswith("made up: 20 defenses, 3 attacked cells, 2 seeds")
    assert all(len(line) <= notebook.TEXT_WIDTH for line in repr(board).splitlines())
    frame = board.frame()
    assert sorted(frame["rank"].dropna()) == list(range(1, 9))  # variants and FedAvg have none
    assert len(board.cells()) == len(board.document["cells"])
    assert board.latex().count(r"\\") == 21  # a heading and a line for each defense
    assert board.markdown().startswith("# Leaderboard: made up")


def test_a_leaderboard_is_read_from_its_file(board: backstop.Leaderboard, tmp_path: Path) -> None:
    file = tmp_path / "leaderboard.json"
    file.write_text(encode_document(board.document))
    assert backstop.load(file).frame().equals(board.frame())
    with pytest.raises(backstop.BadInput, match=r"nowhere\.json: No such file"):
        backstop.load("nowhere.json")


def test_the_store_of_the_command_line_is_that_of_a_notebook(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from backstop.platform import cli

    arguments = ["--rounds", "1", "--clients", "10", "--per-round", "5", "--root-size", "20"]
    assert cli.main(["run", *arguments]) == 0
    capsys.readouterr()
    assert cli.main(["leaderboard", "--experiment", "runs", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(encode_document(backstop.leaderboard(STORE, "runs").document)) == printed
    frame = backstop.runs(STORE, "runs")
    assert list(frame["id"]) == [run["id"] for run in printed["runs"]]
    with pytest.raises(backstop.BadInput, match="unknown experiment 'ruins'; did you mean 'runs'"):
        backstop.leaderboard(STORE, "ruins")


def test_a_store_that_there_is_not_is_not_made() -> None:
    with pytest.raises(backstop.BadInput, match="there is no database yet"):
        backstop.leaderboard("nowhere", "first")
    assert not list(Path("nowhere").glob("*.db"))


def test_a_search_and_a_list_of_specs_are_told_apart() -> None:
    with pytest.raises(backstop.BadInput, match=r"tune_invariant is a search.*backstop\.search"):
        backstop.sweep("tune_invariant")
    with pytest.raises(backstop.BadInput, match=r"smoke is a list of specs.*backstop\.sweep"):
        backstop.search("smoke")
    with pytest.raises(backstop.BadInput, match="experiment name '' is not allowed"):
        backstop.sweep([backstop.Spec(rounds=1)], experiment="")
    with pytest.raises(backstop.BadInput, match="the list of specs is empty"):
        backstop.sweep([])


def mask_threshold(spec: backstop.Spec) -> dict[str, float]:
    """Made-up figures: a run is as accurate as its mask threshold is high."""
    threshold = spec.defense[0].params["mask_threshold"] if spec.defense else 0.0
    assert isinstance(threshold, float)
    return {"final/clean_accuracy": threshold, "final/attack_success_rate": 0.0}


def test_a_search_gives_its_proposals_and_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    def conduct_without_ray(plan: SweepPlan, site: Site, *_: object, **__: object) -> Queue:
        queue = Queue(plan.source, {})
        while queue.fill():
            queue.results |= {spec.id: mask_threshold(spec) for spec in queue.waiting}
            queue.waiting = []
        return queue

    monkeypatch.setattr(conduct, "conduct", conduct_without_ray)
    key = "defense.invariant.mask_threshold"
    base = SPEC.replace(defense=backstop.parse_chain("invariant"))
    space = backstop.Search(base=base, free=[key], objective="clean_accuracy", trials=5)
    result = backstop.search(space, experiment="tuned")
    frame = result.frame()
    assert list(frame.columns) == [key, "clean_accuracy", "state", "winner", "front"]
    assert list(frame[key]) == list(frame["clean_accuracy"]) and len(frame) == 5
    best = result.best
    assert best is not None
    assert best.scores["clean_accuracy"] == frame["clean_accuracy"].max()
    assert list(frame.index[frame["winner"]]) == [result.proposals.index(best)]
    assert best.fresh["clean_accuracy"] == [best.changes[key]] * 3


def test_a_sweep_says_what_failed_and_ranks_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sites: list[Site] = []

    def conduct_without_ray(plan: SweepPlan, site: Site, *_: object, **__: object) -> Queue:
        sites.append(site)
        queue = Queue(plan.source, {})
        queue.fill()
        queue.failures[plan.specs[0].id] = "ValueError: no luck"
        return queue

    ranked: list[tuple[object, ...]] = []
    monkeypatch.setattr(conduct, "conduct", conduct_without_ray)
    monkeypatch.setattr(notebook, "_ranked", lambda *where: ranked.append(where))
    backstop.sweep([SPEC], experiment="first", store="here", data_dir="there", device="cpu")
    assert "backstop: 1 run failed: ValueError: no luck" in capsys.readouterr().err
    assert ranked == [("here", "first", ())]
    assert sites[0].experiment == "first" and sites[0].data == Path("there")
