"""A leaderboard, its cells and its runs as pandas DataFrames, and the csv files made of them.

Grouping is pandas'; a mean is :func:`exact_mean`, the same number in whatever order rows come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from backstop.platform.results.figures.cells import Logged
from backstop.platform.results.figures.names import ChainName, Json, chain_label, part_label
from backstop.platform.results.figures.trajectories import BY_ROUND
from backstop.platform.results.leaderboard.entries import ABSENT_FIELD, CELL_FIGURES, LIFETIME
from backstop.platform.results.leaderboard.rows import ROW_FIGURES
from backstop.platform.results.tables.columns import RankedRow, derived_columns, ranked_rows

# the fields that hold a figure, and those that hold its ends alone
WITH_ENDS = {*CELL_FIGURES, *LIFETIME, *BY_ROUND, *ROW_FIGURES}
RANKS = ("rank", "rank_low", "rank_high")  # whole numbers, and none of a row without a rank
ENDS_ALONE = {"success_binomial"}
# of the fields that may be None
NOT_NUMBERS = {"worst_attack", "worst_case_attack", "unranked", "left_out", "bites"}


class Timed(Logged, Protocol):
    """A run with what must not stand in the leaderboard itself."""

    @property
    def run_id(self) -> str:
        """MLflow's id."""

    @property
    def costs(self) -> Mapping[str, float]:
        """Seconds by phase and peak memory, as the run stored them."""


def leaderboard_frame(document: Json) -> pd.DataFrame:
    """The ranking, one row for each defense, the best first.

    A figure with an interval takes three columns, such as ``clean_accuracy_mean``,
    ``clean_accuracy_low`` and ``clean_accuracy_high``; shares are from 0 to 1.
    """
    rows = ranked_rows(document)
    records = [_flat(row.fields) | _derived(row) for row in rows]
    frame = pd.DataFrame(records)
    whole = [name for name in frame if name in RANKS or str(name).startswith(f"{ABSENT_FIELD}/")]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def cells_frame(document: Json) -> pd.DataFrame:
    """The figures behind the ranking, one row for each setting, attack and defense."""
    return pd.DataFrame([_flat(cell) for cell in document["cells"]])


def runs_frame(runs: Iterable[Timed]) -> pd.DataFrame:
    """One row for each run: what it was, its seconds by phase and its final metrics."""
    return pd.DataFrame([_run_record(run) for run in runs])


def leaderboard_csv(document: Json) -> str:
    """The text of leaderboard.csv."""
    return _csv(leaderboard_frame(document))


def runs_csv(document: Json, runs: Iterable[Timed]) -> str:
    """The text of runs.csv: the document's runs, in its order."""
    listed = _in_order(document, runs)
    frame = runs_frame(listed)
    for cost in _cost_columns(listed):
        frame[cost] = frame[cost].map("{:.3f}".format, na_action="ignore")
    return _csv(frame)


def _in_order(document: Json, runs: Iterable[Timed]) -> list[Timed]:
    """The document's runs, in its order."""
    by_id = {run.id: run for run in runs}
    return [by_id[item["id"]] for item in document["runs"]]


def _cost_columns(runs: Iterable[Timed]) -> set[str]:
    """The columns of the runs' seconds and memory."""
    columns: set[str] = set()
    for run in runs:
        columns.update(map(_cost_name, run.costs))
    return columns


def exact_mean(values: pd.Series[float]) -> float:
    """The mean of the values that are there, of a sum without rounding; NaN where there is none."""
    known = values.dropna()
    if known.empty:
        return math.nan
    return math.fsum(known) / len(known)


def _flat(record: Json) -> dict[str, Any]:
    """A row or a cell of the document without anything nested but lists."""
    columns: dict[str, Any] = {}
    for field, value in record.items():
        if field.endswith("_stages"):
            continue
        if field in WITH_ENDS:
            columns |= _with_ends(field, value)
        elif field == ABSENT_FIELD:
            columns |= {f"{field}/{number}": runs for number, runs in value.items()}
        elif field in ENDS_ALONE:
            columns |= _ends(field, value, ("low", "high"))
        elif value is None and field not in NOT_NUMBERS:
            columns[field] = math.nan
        else:
            columns[field] = value
    return columns


def _with_ends(name: str, interval: Mapping[str, float] | None) -> dict[str, float]:
    """A mean and the ends of its interval."""
    return _ends(name, interval, ("mean", "low", "high"))


def _ends(
    name: str,
    interval: Mapping[str, float] | None,
    ends: Sequence[str],
) -> dict[str, float]:
    if interval is None:
        interval = dict.fromkeys(ends, math.nan)
    return {f"{name}_{end}": interval[end] for end in ends}


def _derived(row: RankedRow) -> dict[str, Any]:
    """What is worked out of the document's fields."""
    columns: dict[str, Any] = {}
    for column in derived_columns(row):
        value = column.of(row)
        if column.kind in ("figure", "score"):
            columns |= _with_ends(column.key, value)
        elif isinstance(value, ChainName):
            columns[column.key] = value.text
        else:
            columns[column.key] = value
    return columns


def _run_record(run: Timed) -> dict[str, Any]:
    record = {
        "id": run.id,
        "run_id": run.run_id,
        **_spec_columns(run.spec),
        "fingerprint": run.fingerprint,
    }
    for name, value in sorted(run.costs.items()):
        record[_cost_name(name)] = value
    for name, value in sorted(run.metrics.items()):
        record[name.removeprefix("final/")] = value
    return record


def _spec_columns(spec: Json) -> dict[str, Any]:
    """What a run was."""
    return {
        "dataset": part_label(spec["dataset"]),
        "model": part_label(spec["model"]),
        "attack": chain_label(spec["attack"], "attack"),
        "defense": chain_label(spec["defense"], "defense"),
        "seed": spec["seed"],
        "dormant": bool(spec.get("dormant")),  # an attack's clean twin
    }


def _cost_name(metric: str) -> str:
    return metric.partition("/")[2]


def _csv(frame: pd.DataFrame) -> str:
    """The frame's text; what is missing is an empty cell."""
    return frame.map(_csv_cell).to_csv(index=False, lineterminator="\n")


def _csv_cell(value: object) -> object:
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return value
