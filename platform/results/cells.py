"""Runs gathered into cells: a setting under one attack and one defense, over its seeds.

A setting is everything that a spec says but attack, defense and seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from backstop.platform.results.figures import finite_metrics, number_or_none
from backstop.platform.results.names import Json, chain_label
from backstop.platform.specs.part import NOTHING

ACCURACY, SUCCESS = "clean_accuracy", "attack_success_rate"
UNTRIGGERED = "untriggered_target_rate"
FIGURES = (ACCURACY, SUCCESS, "robust_accuracy")
# of a diverged run that lacks the figure
WORST_VALUES = {
    ACCURACY: 0.0,
    SUCCESS: 1.0,
    "robust_accuracy": 0.0,
}
VARIED_FIELDS = ("attack", "defense", "seed", "dormant")  # what a setting leaves open

Curve = Sequence[tuple[int, float]]  # (round, value)


class Logged(Protocol):
    """What the leaderboard needs of a run."""

    @property
    def id(self) -> str:
        """The spec's id."""

    @property
    def spec(self) -> Json:
        """The spec as plain JSON."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Final metrics: ``final/…``."""

    @property
    def fingerprint(self) -> str:
        """Device kind and library versions."""

    @property
    def data(self) -> str:
        """Digest of the data that it has read; empty where it is not known."""

    @property
    def code(self) -> Mapping[str, str]:
        """Plug-in → digest of its file."""

    @property
    def curves(self) -> Mapping[str, Curve]:
        """Metric → (round, value); of these ``round/attack_success_rate`` is read."""


class Entry(NamedTuple):
    """A run as the document holds it."""

    id: str
    spec: Json
    metrics: Mapping[str, float]
    fingerprint: str = ""
    curves: Mapping[str, Curve] = {}
    data: str = ""
    code: Mapping[str, str] = {}


class CellKey(NamedTuple):
    """What the runs of a cell have in common, by name."""

    setting: str
    attack: str
    defense: str

    @property
    def scene(self) -> tuple[str, str]:
        """Setting and attack: what all defenses meet alike."""
        return self.setting, self.attack


class Cell(NamedTuple):
    """The runs of a setting under one attack and one defense."""

    key: CellKey
    spec: Json  # of one of its runs
    seeds: tuple[int, ...]  # those whose figures count
    unattacked: tuple[int, ...]  # those in which no malicious client took part in an attacked round
    values: Mapping[str, Mapping[int, float]]  # metric → seed → final figure
    success: Mapping[int, Curve]  # seed → attack success by round
    diverged: int

    @property
    def attacked(self) -> bool:
        """Whether there is an attack at all."""
        return self.key.attack != NOTHING["attack"]


class Twins(NamedTuple):
    """What triggered inputs achieve against models that nobody attacked, by seed: the dormant runs
    of a cell's trigger.
    """

    final: Mapping[int, float]
    by_round: Mapping[int, Mapping[int, float]]  # seed → round → attack success


def json_text(value: object) -> str:
    """The one text of a JSON value."""
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def setting_fields(spec: Json) -> dict[str, Any]:
    """What makes up a spec's setting."""
    return {key: value for key, value in sorted(spec.items()) if key not in VARIED_FIELDS}


def setting(spec: Json) -> str:
    """The name of a spec's setting: the first digits of its content's sha256."""
    content = json_text(setting_fields(spec)).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def cell_key(spec: Json) -> CellKey:
    """The cell that a spec's run belongs to."""
    return CellKey(
        setting(spec),
        chain_label(spec["attack"], "attack"),
        chain_label(spec["defense"], "defense"),
    )


def seed_of(run: Logged) -> int:
    """The seed of a run."""
    return int(run.spec["seed"])


def final_figure(run: Logged, name: str) -> float | None:
    """A final figure of a run; None where it has none or that is not finite."""
    return number_or_none(run.metrics.get(f"final/{name}"))


def success_curve(run: Logged) -> Curve:
    """Attack success by round, where it was read."""
    return run.curves.get(f"round/{SUCCESS}", ())


def run_order(run: Logged) -> tuple[str, str, str, int, str, str]:
    """The order of runs: by what they are, never by when or where they ran."""
    key = cell_key(run.spec)
    fields = json_text(setting_fields(run.spec))
    metrics = json_text(finite_metrics(run.metrics))
    return (
        fields,
        key.attack,
        key.defense,
        seed_of(run),
        run.id,
        metrics,
    )


def gather_cells(runs: Iterable[Logged]) -> list[Cell]:
    """The cells of ordered runs."""
    members: dict[CellKey, list[Logged]] = {}
    for run in runs:
        key = cell_key(run.spec)
        members.setdefault(key, []).append(run)
    measured = _measured_scenes(members)
    cells = []
    for key, listed in members.items():
        has_success = key.scene in measured
        cells.append(_cell(key, listed, has_success=has_success))
    return cells


def _measured_scenes(members: Mapping[CellKey, Sequence[Logged]]) -> set[tuple[str, str]]:
    """The scenes in which some run, whatever its defense, has measured an attack success."""
    scenes = set()
    for key, runs in members.items():
        if _measure_success(runs):
            scenes.add(key.scene)
    return scenes


def _measure_success(runs: Iterable[Logged]) -> bool:
    """Whether any of the runs has an attack success."""
    return any(f"final/{SUCCESS}" in run.metrics for run in runs)


def _has_diverged(run: Logged) -> bool:
    return bool(run.metrics.get("final/diverged"))


def _cell(
    key: CellKey,
    runs: Sequence[Logged],
    *,
    has_success: bool,
) -> Cell:
    """``has_success``: whether any run under the attack, whatever the defense, measured one."""
    attacked = list(filter(_was_attacked, runs))
    seeds = _seeds(attacked)
    unattacked = _seeds(runs) - seeds
    return Cell(
        key=key,
        spec=runs[0].spec,
        seeds=tuple(sorted(seeds)),
        unattacked=tuple(sorted(unattacked)),
        values=_final_figures(attacked, has_success=has_success),
        success={seed_of(run): success_curve(run) for run in attacked},
        diverged=sum(map(_has_diverged, attacked)),
    )


def _seeds(runs: Iterable[Logged]) -> set[int]:
    return set(map(seed_of, runs))


def _was_attacked(run: Logged) -> bool:
    """False where a malicious client never took part in an attacked round."""
    return run.metrics.get("final/attack_turns") != 0


def _final_figures(runs: Sequence[Logged], *, has_success: bool) -> dict[str, dict[int, float]]:
    """Metric → seed → final figure; the worst one of a diverged run that lacks it."""
    worst = WORST_VALUES if has_success else {ACCURACY: WORST_VALUES[ACCURACY]}
    figures = {}
    for name in (*FIGURES, UNTRIGGERED):
        figures[name] = _by_seed(runs, name, worst=worst.get(name))
    return figures


def _by_seed(
    runs: Sequence[Logged],
    name: str,
    *,
    worst: float | None,
) -> dict[int, float]:
    """A final figure of each run that has it; ``worst`` for a diverged run that lacks it."""
    values = {}
    for run in runs:
        value = final_figure(run, name)
        if value is None and _has_diverged(run):
            value = worst
        if value is not None:
            values[seed_of(run)] = value
    return values


def twins_by_cell(runs: Iterable[Logged]) -> Callable[[Cell], Twins]:
    """Cell → its clean twins: the undefended dormant runs of the same setting whose stages, the
    trigger's, are among the cell's, over the cell's seeds.
    """
    dormant: dict[str, list[Logged]] = {}
    for run in runs:
        if _may_be_twin(run):
            dormant.setdefault(setting(run.spec), []).append(run)

    def twins_of(cell: Cell) -> Twins:
        in_setting = dormant.get(cell.key.setting, ())
        return _twins(cell, in_setting)

    return twins_of


def _may_be_twin(run: Logged) -> bool:
    """Whether nobody attacked in the run, nor defended."""
    return bool(run.spec.get("dormant")) and not run.spec["defense"]


def _twins(cell: Cell, dormant: Iterable[Logged]) -> Twins:
    """The cell's twins among the dormant runs of its setting."""
    triggers = _possible_triggers(cell.spec["attack"])
    final: dict[int, float] = {}
    by_round: dict[int, Mapping[int, float]] = {}
    for run in dormant:
        seed = seed_of(run)
        rate = final_figure(run, SUCCESS)
        if seed not in cell.seeds or rate is None:
            continue
        if json_text(run.spec["attack"]) in triggers:
            final[seed] = rate
            by_round[seed] = dict(success_curve(run))
    return Twins(final, by_round)


def _possible_triggers(attack: Sequence[Json]) -> set[str]:
    """As JSON texts the chains that may be the trigger of an attack: each stage, and all of it."""
    single_stages = {json_text([stage]) for stage in attack}
    return {*single_stages, json_text(attack)}
