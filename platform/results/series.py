"""What the pictures draw: figures by round, by strength of an attack, by two knobs of a defense."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from backstop.platform import plugins
from backstop.platform.results.by_attack import mean_success
from backstop.platform.results.cells import SUCCESS, setting
from backstop.platform.results.frames import cells_frame
from backstop.platform.results.marks import UNATTACKED, UNDEFENDED, Mark, best_per_family
from backstop.platform.results.names import (
    Chain,
    chain_label,
    chain_names,
    chain_of,
    document_chains,
)
from backstop.platform.specs import notation
from backstop.platform.specs.part import Part, chain_text

CURVES = ("round/clean_accuracy", "round/attack_success_rate")
KNOBS = ("mask_threshold", "trim_fraction")  # of ``invariant``
FEWEST_STRENGTHS = 3  # that make a line worth drawing
ANY = "…"  # stands for a strength that varies


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


class StrengthGroup(NamedTuple):
    """Attacks that differ in the strength of one stage only."""

    text: str
    chain: Chain  # with … in place of the strength
    attacks: Mapping[float, str]  # strength → attack, from weak to strong


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
    chains = document_chains(document)
    rows: dict[tuple[float, float], Mapping[str, Any]] = {}
    for row in document["rows"]:
        knobs = knobs_of(chains[row["defense"]])
        if knobs is not None:
            rows.setdefault(knobs, row)
    return rows


def knobs_of(chain: Chain) -> tuple[float, float] | None:
    """Mask threshold τ and trim fraction of ``invariant``; None of any other defense."""
    if [stage.name for stage in chain] != ["invariant"]:
        return None
    tau, trim = (chain[0].params.get(knob) for knob in KNOBS)
    if isinstance(tau, (int, float)) and isinstance(trim, (int, float)):
        return float(tau), float(trim)
    return None


def strength_groups(document: Mapping[str, Any]) -> list[StrengthGroup]:
    """Attacks that differ in one stage's STRENGTH only, at least three of them."""
    chains: dict[str, Chain] = {}
    attacks: dict[str, dict[float, str]] = {}
    for cell in document["cells"]:
        for strength, chain in _without_strength(chain_of(cell["attack_stages"])):
            text = _readable(chain_text(chain, "attack"))
            chains[text] = chain
            attacks.setdefault(text, {})[strength] = cell["attack"]
    return [
        StrengthGroup(text, chains[text], dict(sorted(attacks[text].items())))
        for text in sorted(chains)
        if len(attacks[text]) >= FEWEST_STRENGTHS
    ]


def _without_strength(chain: Chain) -> Iterator[tuple[float, Chain]]:
    """For each stage that has a strength: that, and the chain with … in its place."""
    for position, stage in enumerate(chain):
        knob = _strength_parameter(stage.name)
        strength = stage.params.get(knob) if knob else None
        if knob and isinstance(strength, (int, float)):
            blank = Part(stage.name, {**stage.params, knob: ANY})
            yield float(strength), (*chain[:position], blank, *chain[position + 1 :])


def _readable(text: str) -> str:
    """The text of a chain with … in it, which is no value that needs quotes."""
    return text.replace(notation.write(ANY), ANY)


def _strength_parameter(attack: str) -> str | None:
    """The parameter that says how strong the attack is; None of an attack without one, and of one
    that is not installed here.
    """
    if attack not in plugins.names("attacks"):
        return None
    return plugins.attack_facts(attack).strength


def lines_by_strength(document: Mapping[str, Any]) -> list[tuple[str, list[Line]]]:
    """For each group of attacks its name and a line for the best of each family of defenses; points
    are (strength, attack success in percent).
    """
    groups = strength_groups(document)
    chains = document_chains(document)
    attacks = {attack: chains[attack] for group in groups for attack in group.attacks.values()}
    names = chain_names({**attacks, **{group.text: group.chain for group in groups}})
    success = mean_success(cells_frame(document))
    drawn = []
    for group in groups:
        lines = []
        for mark in best_per_family(document):
            points = _points(group, mark.row["defense"], success)
            if len(points) >= 2:
                lines.append(Line(mark, points))
        if lines:
            drawn.append((_readable(str(names[group.text])), lines))
    return drawn


def _points(
    group: StrengthGroup, defense: str, success: Mapping[Hashable, float]
) -> list[tuple[float, float]]:
    """(strength, attack success in percent) of the attacks that the defense has met."""
    rates = {strength: success.get((attack, defense)) for strength, attack in group.attacks.items()}
    return [(strength, 100 * rate) for strength, rate in rates.items() if rate is not None]
