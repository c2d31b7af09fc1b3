"""A leaderboard, its cells and its runs as pandas DataFrames, and the csv files made of them.

Grouping is pandas'; a mean is :func:`exact_mean`, the same number in whatever order rows come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from backstop.platform.results.cells import FIGURES, UNTRIGGERED, Logged
from backstop.platform.results.columns import RankedRow, derived_columns, ranked_rows
from backstop.platform.results.names import ChainName, chain_label, part_label
from backstop.platform.results.ranking import LIFETIME

# the fields that hold a mean with its interval
INTERVALS = {*FIGURES, *LIFETIME, UNTRIGGERED, "natural_success", "no_attack_accuracy"}
NOT_NUMBERS = {"worst_attack", "left_out", "bites"}  # of the fields that may be None


class Timed(Logged, Protocol):
    """A run with what must not stand in the leaderboard itself."""

    @property
    def run_id(self) -> str:
        """MLflow's id."""

    @property
    def costs(self) -> Mapping[str, float]:
        """Seconds by phase and peak memory, as the run stored them."""


def leaderboard_frame(document: Mapping[str, Any]) -> pd.DataFrame:
    """The ranking, one row for each defense, the best first.

    A figure with an interval takes three columns, such as ``clean_accuracy_mean``,
    ``clean_accuracy_low`` and ``clean_accuracy_high``; shares are from 0 to 1.
    """
    return pd.DataFrame([_flat(row.fields) | _derived(row) for row in ranked_rows(document)])


def cells_frame(document: Mapping[str, Any]) -> pd.DataFrame:
    """The figures behind the ranking, one row for each setting, attack and defense."""
    return pd.DataFrame([_flat(cell) for cell in document["cells"]])


def runs_frame(runs: Iterable[Timed]) -> pd.DataFrame:
    """One row for each run: what it was, its seconds by phase and its final metrics."""
    return pd.DataFrame([_run_record(run) for run in runs])


def leaderboard_csv(document: Mapping[str, Any]) -> str:
    """The text of leaderboard.csv."""
    return _csv(leaderboard_frame(document))


def runs_csv(document: Mapping[str, Any], runs: Iterable[Timed]) -> str:
    """The text of runs.csv: the document's runs, in its order."""
    by_id = {run.id: run for run in runs}
    listed = [by_id[item["id"]] for item in document["runs"]]
    frame = runs_frame(listed)
    for cost in {_cost_name(name) for run in listed for name in run.costs}:
        frame[cost] = frame[cost].map("{:.3f}".format, na_action="ignore")
    return _csv(frame)


def exact_mean(values: pd.Series[float]) -> float:
    """The mean of the values that are there, of a sum without rounding; NaN where there is none."""
    known = values.dropna()
    return math.fsum(known) / len(known) if len(known) else math.nan


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row or a cell of the document without anything nested but lists."""
    columns: dict[str, Any] = {}
    for field, value in record.items():
        if field == "intervals":
            for name, interval in value.items():
                columns |= _ends(name, interval, ("low", "high"))
        elif field in INTERVALS:
            columns |= _ends(field, value, ("mean", "low", "high"))
        elif not field.endswith("_stages"):
            columns[field] = math.nan if value is None and field not in NOT_NUMBERS else value
    return columns


def _ends(name: str, interval: Mapping[str, float] | None, ends: Sequence[str]) -> dict[str, float]:
    return {f"{name}_{end}": math.nan if interval is None else interval[end] for end in ends}


def _derived(row: RankedRow) -> dict[str, Any]:
    """What is worked out of the document's fields."""
    columns: dict[str, Any] = {}
    for column in derived_columns(row):
        value = column.of(row)
        if column.kind == "figure":
            columns |= _ends(column.key, value, ("mean", "low", "high"))
        else:
            columns[column.key] = value.text if isinstance(value, ChainName) else value
    return columns


def _run_record(run: Timed) -> dict[str, Any]:
    spec = run.spec
    what: dict[str, Any] = {
        "id": run.id,
        "run_id": run.run_id,
        "dataset": part_label(spec["dataset"]),
        "model": part_label(spec["model"]),
        "attack": chain_label(spec["attack"], "attack"),
        "defense": chain_label(spec["defense"], "defense"),
        "seed": spec["seed"],
        "dormant": bool(spec.get("dormant")),  # an attack's clean twin
        "fingerprint": run.fingerprint,
    }
    costs = {_cost_name(name): value for name, value in sorted(run.costs.items())}
    metrics = {name.removeprefix("final/"): value for name, value in sorted(run.metrics.items())}
    return what | costs | metrics


def _cost_name(metric: str) -> str:
    return metric.partition("/")[2]


def _csv(frame: pd.DataFrame) -> str:
    """Lists become texts with semicolons, what is missing becomes an empty cell."""
    texts = frame.map(
        lambda value: "; ".join(map(str, value)) if isinstance(value, list) else value
    )
    return texts.to_csv(index=False, lineterminator="\n")
