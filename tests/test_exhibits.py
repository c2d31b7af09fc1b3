"""What MLflow's pages hold besides the figures: the dataset of a run, and the leaderboard in the
run of its sweep.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backstop.platform.contract import Part, Spec
from backstop.platform.results.leaderboard.ranking import build_document
from backstop.platform.results.tables.digest import ROWS, best_row, board_note, counts
from backstop.platform.results.tracking.dataset_inputs import CONTEXT, dataset_input
from backstop.platform.results.tracking.exhibits import BEST_TAG, Exhibit, exhibit_board
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.log import Log
from backstop.platform.results.tracking.searched import NOTE, SEARCHED
from backstop.platform.results.tracking.store import Store, locate_store, mlflow_client
from backstop.platform.results.tracking.sweeps import open_parent
from backstop.platform.rounds.origin import Origin
from tests.boards import BASE, runs

READ = Origin("cpu", "0123456789abcdef", reading='{"rows":12,"train":9,"test":3,"form":"pixels"}')


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return locate_store(tmp_path_factory.mktemp("store"))


def log(store: Store, experiment: str, spec: Spec) -> Log:
    return Log(store, experiment, spec, origin=READ)


def test_a_run_names_its_dataset_once(store: Store) -> None:
    experiment = open_experiment(store, "named")
    first = log(store, experiment, BASE)
    assert first.flush()
    assert first.flush()
    again = log(store, experiment, BASE)  # another process goes on
    assert again.finish({"final/clean_accuracy": 0.5})
    assert again.run_id == first.run_id
    inputs = mlflow_client(store.uri).get_run(str(again.run_id)).inputs
    assert inputs is not None
    (read,) = inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("digits", READ.data)
    assert json.loads(read.dataset.profile or "") == {"rows": 12, "train": 9, "test": 3}
    assert {tag.key: tag.value for tag in read.tags} == {CONTEXT: "train"}


def test_the_source_of_a_dataset_names_no_folder() -> None:
    table = Part("table", {"path": "/home/me/mine.csv", "label": "class"})
    read = dataset_input(BASE.replace(dataset=table), READ)
    assert read is not None
    assert "mine.csv" in read.dataset.source
    assert "/home/me" not in read.dataset.source


def test_a_run_whose_data_are_not_known_has_no_dataset() -> None:
    assert dataset_input(BASE, Origin("cpu")) is None


def test_the_note_has_the_first_rows_and_the_commands() -> None:
    document = build_document(runs(), "my demo")
    note = board_note(document, "quickstart")
    table = [line for line in note.splitlines() if line.startswith("| ")]
    assert len(table) == ROWS + 2
    assert any(line.split(" | ")[1] == best_row(document)["defense"] for line in table)
    assert "backstop sweep quickstart --experiment 'my demo'" in note
    assert "backstop verify" in note
    assert f"{len(document['rows']) - ROWS} rows more" in note
    assert note.startswith(f"**{len(document['runs'])} runs: {counts(document)['defenses']} def")


def test_a_sweeps_run_shows_the_leaderboard(store: Store, tmp_path: Path) -> None:
    experiment = open_experiment(store, "shown")
    ours, theirs = (open_parent(store, experiment, name) for name in ("smoke", "elsewhere"))
    client = mlflow_client(store.uri)
    client.set_tag(theirs, SEARCHED, "1")
    client.set_tag(theirs, NOTE, "what a search has chosen")
    file = tmp_path / "leaderboard.md"
    for text, score in (("first", 0.5), ("second", 0.25), ("second", 0.25)):
        file.write_text(text)
        figures = {"best/score": score, "sweep/runs": 6.0}
        exhibit_board(store, "shown", Exhibit([file], "again: {}".format, figures, "median"))
    shown = client.get_run(ours)
    assert shown.data.tags[NOTE] == "again: smoke"
    assert shown.data.tags[BEST_TAG] == "median"
    assert shown.data.metrics == {"best/score": 0.25, "sweep/runs": 6.0}
    assert len(client.get_metric_history(ours, "best/score")) == 2
    kept = client.download_artifacts(ours, "leaderboard/leaderboard.md", str(tmp_path))
    assert Path(kept).read_text() == "second"
    assert client.get_run(theirs).data.tags[NOTE] == "what a search has chosen"


def test_a_space_that_is_a_file_is_named_as_one(store: Store) -> None:
    parent = open_parent(store, open_experiment(store, "file"), "mine")
    exhibit_board(store, "file", Exhibit([], "again: {}".format, {}, ""))
    assert mlflow_client(store.uri).get_run(parent).data.tags[NOTE] == "again: mine.py"
