"""The view in which MLflow opens an experiment: its form, what it shows, where it is kept."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from backstop.platform.contract import Spec
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.log import Log
from backstop.platform.results.tracking.store import Store, locate_store, mlflow_client
from backstop.platform.results.tracking.view import (
    KEY,
    TAG,
    envelope,
    parallel_axes,
    view_addresses,
    view_state,
    write_view,
)
from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.change import grid
from tests.boards import BASE

KNOBS = [
    f"invariant(mask_threshold={threshold}, trim_fraction={trim})"
    for threshold in (0.2, 0.6)
    for trim in (0.1, 0.3)
]
TAG_LIMIT = 20_000  # characters that MLflow takes
ATTACKS = [f"badnets+model_replacement(strength={strength})" for strength in (1, 3)]


def unpacked(text: str) -> Any:
    """The state in a tag, read as MLflow's page does."""
    state = json.loads(text)["state"]
    kind, _, packed = state.partition(";")
    assert kind == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def knobs() -> list[Spec]:
    return grid(BASE, seed=range(2), attack=ATTACKS, defense=["median", *KNOBS])


def test_the_columns_are_who_runs_against_whom_and_what_came_of_it() -> None:
    columns = view_state(knobs())["selectedColumns"]
    assert columns == [
        "params.`defense.name`",
        "params.`attack.strength`",
        "params.`seed`",
        "metrics.`final/attack_success_rate`",
        "metrics.`final/clean_accuracy`",
        "params.`attack.name`",
        "attributes.`Dataset`",
    ]


def test_what_else_varies_is_a_column() -> None:
    columns = view_state([BASE, BASE.replace(rounds=30)])["selectedColumns"]
    assert "params.`fl.rounds`" in columns


def test_charts_stand_in_an_open_section() -> None:
    state = view_state(knobs())
    opened = [section["uuid"] for section in state["compareRunSections"] if section["display"]]
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == set(opened)
    lines = [chart for chart in state["compareRunCharts"] if chart["type"] == "LINE"]
    metrics = [chart["metricKey"] for chart in lines]
    assert state["columnOrder"][1:] == state["selectedColumns"]
    assert state["columnWidths"].keys() == set(state["columnOrder"])
    assert metrics == ["round/attack_success_rate", "round/clean_accuracy"]


def test_parallel_coordinates_are_strength_and_knobs() -> None:
    (chart,) = (one for one in view_state(knobs())["compareRunCharts"] if one["type"] == "PARALLEL")
    assert chart["selectedParams"] == [
        "attack.strength",
        "defense.invariant.mask_threshold",
        "defense.invariant.trim_fraction",
    ]
    assert chart["selectedMetrics"] == ["final/attack_success_rate"]


def test_without_numbers_that_vary_they_are_names() -> None:
    specs = grid(BASE, attack=["badnets"], defense=["median", "krum(f=4)"])
    assert parallel_axes(specs) == ["defense.name", "attack.name"]


def test_only_attacked_runs_are_shown_where_there_are_any() -> None:
    assert "`attack.name` != 'none'" in view_state(knobs())["searchFilter"]
    assert "attack.name" not in view_state([BASE])["searchFilter"]


def test_the_state_comes_out_of_its_tag_as_it_went_in() -> None:
    state = view_state(knobs())
    text = envelope(state, 12)
    assert unpacked(text) == state
    assert json.loads(text)["createdAt"] == 12
    assert len(text) < TAG_LIMIT


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return locate_store(tmp_path_factory.mktemp("store"))


def test_the_view_is_kept_with_its_experiment(store: Store) -> None:
    experiment = open_experiment(store, "kept")
    assert view_addresses(store, "http://host") == {}
    write_view(store, experiment, knobs())
    tags = mlflow_client(store.uri).get_experiment(experiment).tags
    assert unpacked(tags[TAG]) == view_state(knobs())
    address = f"http://host/#/experiments/{experiment}/runs?viewStateShareKey={KEY}"
    assert view_addresses(store, "http://host") == {"kept": address}
    assert mlflow_client(store.uri).get_experiment(experiment).tags == tags


def test_an_experiment_of_an_earlier_version_gets_its_view(store: Store) -> None:
    experiment = open_experiment(store, "earlier")
    spec = grid(BASE, attack=["badnets"])[0]
    log = Log(store, experiment, spec, origin=Origin("cpu", "0123456789abcdef"))
    assert log.finish({"final/clean_accuracy": 0.5})
    assert "earlier" in view_addresses(store, "http://host")
    tags = mlflow_client(store.uri).get_experiment(experiment).tags
    assert unpacked(tags[TAG]) == view_state([spec])


def test_nothing_is_written_to_a_store_that_cannot_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = open_experiment(store, "bare")
    monkeypatch.setattr("backstop.platform.results.tracking.view.read_only", lambda _: True)
    assert "bare" not in view_addresses(store, "http://host")
    assert TAG not in mlflow_client(store.uri).get_experiment(experiment).tags
