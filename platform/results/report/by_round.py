"""Attack success and accuracy by round, under the strongest attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from backstop.platform.results.figures.cells import SUCCESS, setting
from backstop.platform.results.figures.names import Json, chain_label, row_of
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report.marks import (
    UNATTACKED,
    UNDEFENDED,
    Line,
    Mark,
    best_per_family,
)

CURVES = ("round/clean_accuracy", "round/attack_success_rate")


class Drawn(Protocol):
    """What the pictures need of a run besides the document."""

    @property
    def id(self) -> str:
        """The spec's id."""

    @property
    def curves(self) -> Mapping[str, Sequence[tuple[int, float]]]:
        """Metric → (round, value)."""


class Scene(NamedTuple):
    """Setting and attack whose rounds are drawn."""

    setting: str
    attack: str


def strongest_attack(document: Document) -> Scene | None:
    """The attack that succeeds most against undefended FedAvg, or against any defense where FedAvg
    is missing.
    """
    cells = [cell for cell in document["cells"] if _has_success(cell)]
    if not cells:
        return None
    strongest = min(cells, key=_strongest_first)
    return Scene(strongest["setting"], strongest["attack"])


def _has_success(cell: Json) -> bool:
    return cell["attack"] != UNATTACKED and cell[SUCCESS] is not None and not cell["searched"]


def _strongest_first(cell: Json) -> tuple[bool, float, str, str]:
    return (
        cell["defense"] != UNDEFENDED,
        -cell[SUCCESS]["mean"],
        cell["attack"],
        cell["setting"],
    )


def runs_of_scene(document: Document) -> list[tuple[Mark, list[str]]]:
    """The best row of each family, with the ids of its runs under the strongest attack."""
    ids = _ids_by_defense(document, strongest_attack(document))
    runs = []
    for mark in best_per_family(document):
        defense = mark.row["defense"]
        runs.append((mark, ids.get(defense, [])))
    return runs


def _ids_by_defense(document: Document, scene: Scene | None) -> dict[str, list[str]]:
    """The ids of the scene's runs, by the defenses that met it."""
    ids: dict[str, list[str]] = {}
    for run in document["runs"]:
        spec = run["spec"]
        if scene is not None and _belongs(spec, scene):
            defense = row_of(document, chain_label(spec["defense"], "defense"))
            ids.setdefault(defense, []).append(run["id"])
    return ids


def _belongs(spec: Json, scene: Scene) -> bool:
    if spec.get("dormant"):
        return False
    attack = chain_label(spec["attack"], "attack")
    return attack == scene.attack and setting(spec) == scene.setting


def curve_run_ids(document: Document) -> list[str]:
    """The ids of the runs whose metrics by round the page draws."""
    drawn: list[str] = []
    for _, ids in runs_of_scene(document):
        drawn += ids
    return drawn


def lines_by_round(
    document: Document,
    runs: Sequence[Drawn],
    metric: str,
) -> list[Line]:
    """The mean over seeds of a metric by round, under the strongest attack."""
    known = {run.id: run for run in runs}
    lines = []
    for mark, ids in runs_of_scene(document):
        logged = [known[run_id] for run_id in ids if run_id in known]
        points = mean_curve(logged, metric)
        if points:
            lines.append(Line(mark, points))
    return lines


def mean_curve(runs: Sequence[Drawn], metric: str) -> list[tuple[int, float]]:
    """The mean over the runs that have the metric, at the rounds that all of them evaluated."""
    return mean_by_round([dict(run.curves[metric]) for run in runs if run.curves.get(metric)])


def mean_by_round(curves: Sequence[Mapping[int, float]]) -> list[tuple[int, float]]:
    """The mean over curves, round → value, at the rounds that all of them have."""
    if not curves:
        return []
    points = []
    for step in _common_rounds(curves):
        total = sum(curve[step] for curve in curves)
        points.append((step, total / len(curves)))
    return points


def _common_rounds(curves: Sequence[Mapping[int, float]]) -> list[int]:
    first, *others = curves
    common = set(first).intersection(*others)
    return sorted(common)
