"""What a row of the page opens: the cells behind it, what their runs recorded, and how to run them
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from backstop.platform.params import BadInput
from backstop.platform.results.figures.cells import (
    ACCURACY,
    FIGURES,
    SUCCESS,
    UNTRIGGERED,
    CellKey,
    cell_key,
)
from backstop.platform.results.figures.names import (
    ChainName,
    Json,
    attack_names,
    chain_label,
    row_of,
    variant_names,
)
from backstop.platform.results.figures.wording import percent, spread
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.entries import ABSENT_FIELD
from backstop.platform.results.leaderboard.sheets import DataSheet, data_sheets, newest_year
from backstop.platform.results.leaderboard.unattacked import of_the_trigger
from backstop.platform.results.report.by_round import mean_by_round
from backstop.platform.results.report.marks import UNATTACKED
from backstop.platform.results.tables.columns import RankedRow
from backstop.platform.results.tables.lifetimes import rounds_lasted, rounds_over_half
from backstop.platform.results.tracking.description import run_command
from backstop.platform.specs.spec import spec_from_json

MOST_RUNS = 12  # of a cell that are named; the files have all
SPARK = (100, 24)  # width and height of a curve by round, in its own units
IN_OTHER_COLUMNS = {*FIGURES, UNTRIGGERED, "diverged"}


class RunInStore(Protocol):
    """What the page needs of a run to lead to it."""

    @property
    def id(self) -> str:
        """The spec's id."""

    @property
    def run_id(self) -> str:
        """MLflow's id."""


class RunLink(NamedTuple):
    """A run of a cell, and where MLflow shows it."""

    seed: int
    id: str
    run_id: str  # empty where the page is not made from a store
    address: str  # empty where the store has none


class CellColumn(NamedTuple):
    """A column of the cells below a row. A new one is one entry of :data:`CELL_COLUMNS`."""

    heading: str
    kind: Literal["figure", "number", "words"]
    text: Callable[[Json], str]
    optional: bool = False  # left out where no cell has it


class CellLine(NamedTuple):
    """A cell as it stands below its row."""

    fields: Json
    attack: ChainName | None  # None without attack
    variant: ChainName | None  # the defense as it ran here, where the row's parameters vary
    sparks: Mapping[str, str]  # "success", "accuracy" → points by round in :data:`SPARK`
    telemetry: Mapping[str, float]  # metric → mean over the cell's runs
    command: str  # that runs its first seed again; empty where the spec cannot be read here
    runs: Sequence[RunLink]
    more_runs: int  # that are not named


class Detail(NamedTuple):
    """What stands behind a row."""

    row: RankedRow
    sheets: Sequence[DataSheet]
    cells: Sequence[CellLine]
    telemetry: Sequence[str]  # the metrics that any of the cells has

    @property
    def year(self) -> int | None:
        """The year of the newest method in its chain."""
        return newest_year(self.sheets)


def _figure(name: str) -> Callable[[Json], str]:
    def text(cell: Json) -> str:
        return spread(cell[name])

    return text


def _bites(cell: Json) -> str:
    if cell["attack"] == UNATTACKED:
        return ""
    if cell["searched"]:
        return "chosen by a search"
    if cell["left_out"]:
        return f"no: {cell['left_out']}"
    return {True: "yes", False: "no", None: "not known"}[cell["bites"]]


def _seeds(cell: Json) -> str:
    return ", ".join(map(str, cell["seeds"]))


def _absent(cell: Json) -> str:
    """Which of several adversaries never attacked, and in which seeds."""
    seeds = cell.get(ABSENT_FIELD, {})
    listed = [f"{number} (seed {', '.join(map(str, seeds[number]))})" for number in seeds]
    return "; ".join(listed) or "–"


def _samples(cell: Json) -> str:
    """How many inputs a rate is of, and between which rates they alone leave it."""
    binomial = cell["success_binomial"]
    if binomial is None:
        return "–"
    ends = f"{percent(binomial['low'])} to {percent(binomial['high'])}"
    return f"{cell['success_samples']} ({ends})"


CELL_COLUMNS = (
    CellColumn("attack success", "figure", _figure(SUCCESS)),
    CellColumn("natural success", "figure", _figure("natural_success")),
    CellColumn("excess", "figure", _figure("excess_success")),
    CellColumn("bites", "words", _bites),
    CellColumn("accuracy", "figure", _figure(ACCURACY)),
    CellColumn("accuracy cost", "figure", _figure("cost_under_attack")),
    CellColumn("DER", "figure", _figure("der")),
    CellColumn("untriggered", "figure", _figure(UNTRIGGERED)),
    CellColumn("peak success", "figure", _figure("peak_success")),
    CellColumn("mean over rounds", "figure", _figure("success_area")),
    CellColumn("95th percentile of excess", "figure", _figure("attacked_excess_p95")),
    CellColumn("rounds that it lasted", "number", rounds_lasted, optional=True),
    CellColumn("rounds over one half", "number", rounds_over_half, optional=True),
    CellColumn("excess after the attack", "figure", _figure("excess_after_stop"), optional=True),
    CellColumn("inputs, what they leave open", "figure", _samples),
    CellColumn("seeds", "number", _seeds),
    CellColumn("adversaries that never attacked", "words", _absent, optional=True),
)


def cell_columns(document: Document) -> list[CellColumn]:
    """The columns of the cells below a row, in order."""
    return [
        column
        for column in CELL_COLUMNS
        if not column.optional or any(column.text(cell) != "–" for cell in document["cells"])
    ]


def details(
    document: Document,
    rows: Sequence[RankedRow],
    stored: Iterable[RunInStore] = (),
    store_uri: str = "",
) -> list[Detail]:
    """What stands behind each of the rows. ``stored`` are the runs as the store at ``store_uri``
    holds them.
    """
    known = _Known(
        attacks=attack_names(document),
        variants=variant_names(document),
        runs=_runs_by_cell(document),
        run_ids={run.id: run.run_id for run in stored},
        server=server_address(store_uri),
    )
    cells: dict[str, list[CellLine]] = {}
    for cell in document["cells"]:
        cells.setdefault(cell["defense"], []).append(_line(cell, known))
    return [_detail(row, cells[row.fields["defense"]]) for row in rows]


class _Known(NamedTuple):
    """What the lines of all cells are made of."""

    attacks: Mapping[str, ChainName]
    variants: Mapping[str, ChainName]
    runs: Mapping[CellKey, Sequence[Json]]  # as the document holds them, by seed
    run_ids: Mapping[str, str]  # spec id → MLflow's
    server: str


def _runs_by_cell(document: Document) -> dict[CellKey, list[Json]]:
    """The runs of each cell by seed; where nobody ran a seed without attack, a dormant run is the
    same.
    """
    by_seed: dict[CellKey, dict[int, Json]] = {}
    for run in sorted(document["runs"], key=_is_dormant):
        key = cell_key(run["spec"])
        key = key._replace(defense=row_of(document, key.defense))
        if _is_dormant(run):
            key = key._replace(attack=UNATTACKED)
        by_seed.setdefault(key, {}).setdefault(run["spec"]["seed"], run)
    return {key: [runs[seed] for seed in sorted(runs)] for key, runs in by_seed.items()}


def _is_dormant(run: Json) -> bool:
    return bool(run["spec"].get("dormant"))


def server_address(store_uri: str) -> str:
    """Where MLflow's pages of a store are, without name and password; empty of a store that is no
    server.

    >>> server_address("http://me:secret@host:5000/"), server_address("sqlite:///runs.db")
    ('http://host:5000', '')
    """
    parts = urlsplit(store_uri)
    if parts.scheme not in ("http", "https"):
        return ""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def _detail(row: RankedRow, lines: Sequence[CellLine]) -> Detail:
    names = [stage["name"] for stage in row.fields["defense_stages"]] or [row.fields["defense"]]
    metrics = {name for line in lines for name in line.telemetry}
    return Detail(
        row=row,
        sheets=data_sheets("defenses", names),
        cells=lines,
        telemetry=sorted(metrics),
    )


def _line(cell: Json, known: _Known) -> CellLine:
    key = CellKey(cell["setting"], cell["attack"], cell["defense"])
    runs = known.runs.get(key, ())
    spec = runs[0]["spec"] if runs else None
    return CellLine(
        fields=cell,
        attack=known.attacks.get(cell["attack"]),
        variant=spec and known.variants.get(chain_label(spec["defense"], "defense")),
        sparks=_sparks(runs, attacked=cell["attack"] != UNATTACKED),
        telemetry=_telemetry(runs),
        command=_command(spec) if spec else "",
        runs=[_link(run, known) for run in runs[:MOST_RUNS]],
        more_runs=max(0, len(runs) - MOST_RUNS),
    )


def _sparks(runs: Sequence[Json], *, attacked: bool) -> dict[str, str]:
    """Lines by round in the mean over the runs; those that are not known are left out."""
    names = ("accuracy", "success") if attacked else ("accuracy",)
    lines = {name: _points([run[f"{name}_by_round"] for run in runs]) for name in names}
    return {name: points for name, points in lines.items() if points}


def _points(curves: Sequence[Sequence[tuple[int, float]]]) -> str:
    """The mean of curves as the points of a line in :data:`SPARK`; empty for less than two."""
    points = mean_by_round([dict(curve) for curve in curves])
    if len(points) < 2:
        return ""
    width, height = SPARK
    first, last = points[0][0], points[-1][0]
    placed = []
    for step, share in points:
        x = width * (step - first) / (last - first)
        placed.append(f"{x:.4g},{height * (1 - share):.3g}")
    return " ".join(placed)


def _telemetry(runs: Sequence[Json]) -> dict[str, float]:
    """Metric → mean over the runs that have it; those of single layers stand in the files only."""
    listed: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run["metrics"].items():
            metric = name.removeprefix("final/")
            if _is_dormant(run) and of_the_trigger(name):
                continue
            if "/" not in metric and metric not in IN_OTHER_COLUMNS:
                listed.setdefault(metric, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in listed.items()}


def _command(spec: Json) -> str:
    try:
        return run_command(spec_from_json(spec))
    except BadInput:  # a field that this version does not know
        return ""


def _link(run: Json, known: _Known) -> RunLink:
    run_id = known.run_ids.get(run["id"], "")
    address = f"{known.server}/#/runs/{run_id}" if known.server and run_id else ""
    return RunLink(run["spec"]["seed"], run["id"], run_id, address)
