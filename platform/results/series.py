"""What the pictures draw: figures by round, by strength of an attack, by two knobs of a defense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from backstop.platform import plugins
from backstop.platform.results.cells import SUCCESS, setting
from backstop.platform.results.marks import (
    UNATTACKED,
    UNDEFENDED,
    Mark,
    Stages,
    best_per_family,
    chains_of_runs,
)
from backstop.platform.results.names import chain_label, display_names
from backstop.platform.results.renderings import means

CURVES = ("round/clean_accuracy", "round/attack_success_rate")
KNOBS = ("mask_threshold", "trim_fraction")  # of ``invariant``
FEWEST_STRENGTHS = 3  # that make a line worth drawing


class Drawn(Protocol):
    """What the pictures need of a run besides the document."""

    @property
    def id(self) -> str:
        """The spec's id."""

    @property
    def curves(self) -> Mapping[str, Sequence[tuple[int, float]]]:
        """Metric → (round, value)."""


class Line(NamedTuple):
    """A defense's line in a picture."""

    mark: Mark
    points: Sequence[tuple[float, float]]


class Scene(NamedTuple):
    """Setting and attack whose rounds are drawn."""

    setting: str
    attack: str


def strongest_attack(document: Mapping[str, Any]) -> Scene | None:
    """The attack that succeeds most against undefended FedAvg, or against any defense where FedAvg
    is missing.
    """
    cells = [
        cell
        for cell in document["cells"]
        if cell[SUCCESS] is not None and cell["attack"] != UNATTACKED
    ]
    if not cells:
        return None
    strongest = min(cells, key=_strongest_first)
    return Scene(strongest["setting"], strongest["attack"])


def _strongest_first(cell: Mapping[str, Any]) -> tuple[bool, float, str, str]:
    defended = cell["defense"] != UNDEFENDED
    return defended, -cell[SUCCESS]["mean"], cell["attack"], cell["setting"]


def runs_of_scene(document: Mapping[str, Any]) -> list[tuple[Mark, list[str]]]:
    """The best row of each family, with the ids of its runs under the strongest attack."""
    scene = strongest_attack(document)
    ids: dict[str, list[str]] = {}
    for run in document["runs"]:
        if scene is not None and _belongs(run["spec"], scene):
            defense = chain_label(run["spec"]["defense"], "defense")
            ids.setdefault(defense, []).append(run["id"])
    return [(mark, ids.get(mark.row["defense"], [])) for mark in best_per_family(document)]


def _belongs(spec: Mapping[str, Any], scene: Scene) -> bool:
    if spec.get("dormant"):
        return False
    attack = chain_label(spec["attack"], "attack")
    return attack == scene.attack and setting(spec) == scene.setting


def curve_run_ids(document: Mapping[str, Any]) -> list[str]:
    """The ids of the runs whose metrics by round the page draws."""
    return [run_id for _, ids in runs_of_scene(document) for run_id in ids]


def lines_by_round(document: Mapping[str, Any], runs: Sequence[Drawn], metric: str) -> list[Line]:
    """The mean over seeds of a metric by round, under the strongest attack."""
    known = {run.id: run for run in runs}
    lines = []
    for mark, ids in runs_of_scene(document):
        points = mean_curve([known[run_id] for run_id in ids if run_id in known], metric)
        if points:
            lines.append(Line(mark, points))
    return lines


def mean_curve(runs: Sequence[Drawn], metric: str) -> list[tuple[int, float]]:
    """The mean over the runs at the rounds that all of them evaluated."""
    curves = [dict(run.curves[metric]) for run in runs if run.curves.get(metric)]
    if not curves:
        return []
    shared = sorted(set(curves[0]).intersection(*curves[1:]))
    return [(step, sum(curve[step] for curve in curves) / len(curves)) for step in shared]


def knob_map(document: Mapping[str, Any], metric: str) -> dict[tuple[float, float], float]:
    """The mean of a metric by (mask threshold τ, trim fraction): the best row of ``invariant`` at
    each. Empty unless at least 2 × 2 are there.
    """
    rows = _rows_by_knobs(document)
    taus = {tau for tau, _ in rows}
    trims = {trim for _, trim in rows}
    if len(taus) < 2 or len(trims) < 2:
        return {}
    return {knobs: row[metric]["mean"] for knobs, row in rows.items() if row[metric] is not None}


def _rows_by_knobs(document: Mapping[str, Any]) -> dict[tuple[float, float], Mapping[str, Any]]:
    chains = chains_of_runs(document, "defense")
    rows: dict[tuple[float, float], Mapping[str, Any]] = {}
    for row in document["rows"]:
        stages = chains[row["defense"]]
        if [stage["name"] for stage in stages] == ["invariant"]:
            tau, trim = (float(stages[0]["params"][knob]) for knob in KNOBS)
            rows.setdefault((tau, trim), row)
    return rows


def strengths(document: Mapping[str, Any]) -> dict[str, dict[float, str]]:
    """Attacks that differ in one stage's STRENGTH only, at least three of them: the name of the
    group → strength → attack.
    """
    groups: dict[str, dict[float, str]] = {}
    for attack, stages in chains_of_runs(document, "attack").items():
        for position, stage in enumerate(stages):
            knob = _strength_parameter(stage["name"])
            strength = stage["params"].get(knob)
            if knob is not None and isinstance(strength, (int, float)):
                group = _without_strength(stages, position, knob)
                groups.setdefault(group, {})[float(strength)] = attack
    return {
        group: dict(sorted(attacks.items()))
        for group, attacks in sorted(groups.items())
        if len(attacks) >= FEWEST_STRENGTHS
    }


def _strength_parameter(attack: str) -> str | None:
    """The parameter that says how strong the attack is; None of an attack without one, and of one
    that is not installed here.
    """
    if attack not in plugins.names("attacks"):
        return None
    return plugins.attack_facts(attack).strength


def _without_strength(stages: Stages, position: int, knob: str) -> str:
    """The chain's text with … in place of one stage's strength."""
    stage = stages[position]
    blank = {**stage, "params": {**stage["params"], knob: "…"}}
    text = chain_label([*stages[:position], blank, *stages[position + 1 :]], "attack")
    return text.replace("'…'", "…")


def lines_by_strength(document: Mapping[str, Any]) -> list[tuple[str, list[Line]]]:
    """For each group of attacks its name and a line for the best of each family of defenses; points
    are (strength, attack success in percent).
    """
    groups = strengths(document)
    attacks = [attack for members in groups.values() for attack in members.values()]
    names = display_names([*groups, *attacks])
    success = means(document["cells"], ("attack", "defense"), SUCCESS)
    drawn = []
    for group, members in groups.items():
        lines = []
        for mark in best_per_family(document):
            rates = {
                strength: success.get((attack, mark.row["defense"]))
                for strength, attack in members.items()
            }
            points = [
                (strength, 100 * rate) for strength, rate in rates.items() if rate is not None
            ]
            if len(points) >= 2:
                lines.append(Line(mark, points))
        if lines:
            drawn.append((names[group], lines))
    return drawn
