"""Runs gathered into cells: a setting under one attack and one defense, over its seeds.

A setting is everything that a spec says but attack, defense and seed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from backstop.platform import plugins
from backstop.platform.results.figures.means import SeedValues, finite_metrics, number_or_none
from backstop.platform.results.figures.names import Json, chain_label
from backstop.platform.rounds.durability import Schedule
from backstop.platform.rounds.finals import absentees
from backstop.platform.specs.part import NOTHING

ACCURACY, SUCCESS = "clean_accuracy", "attack_success_rate"
UNTRIGGERED = "untriggered_target_rate"
START = "start_accuracy"  # of the model before the first round
SAMPLES = "success_samples"  # triggered inputs behind an attack success
FIGURES = (ACCURACY, SUCCESS, "robust_accuracy")
READ = (*FIGURES, UNTRIGGERED, START, SAMPLES)
# of a diverged run that lacks the figure
WORST_VALUES = {
    ACCURACY: 0.0,
    SUCCESS: 1.0,
    "robust_accuracy": 0.0,
}
VARIED_FIELDS = ("attack", "defense", "seed", "dormant")  # what a setting leaves open

ROUND_METRICS = (f"round/{ACCURACY}", f"round/{SUCCESS}")

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
        """Metric → (round, value); of these :data:`ROUND_METRICS` are read."""


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
    values: Mapping[str, SeedValues]  # metric → seed → final figure
    success: Mapping[int, Curve]  # seed → attack success by round
    accuracy: Mapping[int, Curve]  # seed → accuracy by round
    diverged: frozenset[int]  # seeds
    targeted: bool  # whether the attack says what a success is; False without an attack
    # adversary, from 1 → those of the seeds that count in which it never attacked and others did
    absent: Mapping[int, tuple[int, ...]]

    @property
    def attacked(self) -> bool:
        """Whether there is an attack at all."""
        return self.key.attack != NOTHING["attack"]

    @property
    def attack_family(self) -> str:
        """The attack's stages without their parameters: variants of one attack share it."""
        return family_of(self.spec["attack"])

    @property
    def schedule(self) -> Schedule:
        """When its attack attacks."""
        spec = self.spec
        return Schedule(spec["attack_start"], spec["attack_stop"], spec["attack_every"])


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
    return _setting_of(_Written(setting_fields(spec))).name


def cell_key(spec: Json) -> CellKey:
    """The cell that a spec's run belongs to."""
    return CellKey(setting(spec), _label(spec, "attack"), _label(spec, "defense"))


class _Written:
    """A JSON value that can be looked up; equal is what is written alike."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.text = repr(value)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Written) and self.text == other.text


class _Setting(NamedTuple):
    """A setting as JSON, and its name."""

    text: str
    name: str


@lru_cache(maxsize=256)  # few settings, and a spec for each run
def _setting_of(fields: _Written) -> _Setting:
    text = json_text(fields.value)
    return _Setting(text, hashlib.sha256(text.encode()).hexdigest()[:12])


def _label(spec: Json, role: str) -> str:
    return _label_of(_Written(spec[role]), role)


@lru_cache(maxsize=4096)
def _label_of(stages: _Written, role: str) -> str:
    return chain_label(stages.value, role)


def seed_of(run: Logged) -> int:
    """The seed of a run."""
    return int(run.spec["seed"])


def final_figure(run: Logged, name: str) -> float | None:
    """A final figure of a run; None where it has none or that is not finite."""
    return number_or_none(run.metrics.get(f"final/{name}"))


def curve_of(run: Logged, name: str) -> Curve:
    """A metric by round, where it was read and is a number."""
    points = run.curves.get(f"round/{name}", ())
    if math.isfinite(sum([value for _, value in points])):
        return points
    return [(at, value) for at, value in points if math.isfinite(value)]


def family_of(stages: Sequence[Json]) -> str:
    """The names of a chain's stages."""
    return "+".join(stage["name"] for stage in stages)


def run_order(run: Logged) -> tuple[str, str, str, int, str, list[tuple[str, float]]]:
    """The order of runs: by what they are, never by when or where they ran."""
    spec = run.spec
    return (
        _setting_of(_Written(setting_fields(spec))).text,
        _label(spec, "attack"),
        _label(spec, "defense"),
        seed_of(run),
        run.id,
        list(finite_metrics(run.metrics).items()),
    )


def gather_cells(runs: Iterable[Logged]) -> list[Cell]:
    """The cells, in the order of what they are; each one's runs are in order."""
    members: dict[CellKey, list[Logged]] = {}
    for run in runs:
        key = cell_key(run.spec)
        members.setdefault(key, []).append(run)
    measured = _measured_scenes(members)
    cells = []
    for key, listed in sorted(members.items(), key=_cell_order):
        has_success = key.scene in measured
        cells.append(_cell(key, listed, has_success=has_success))
    return cells


def _cell_order(item: tuple[CellKey, Sequence[Logged]]) -> tuple[str, str, str]:
    key, runs = item
    fields = setting_fields(runs[0].spec)
    return _setting_of(_Written(fields)).text, key.attack, key.defense


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
    spec = runs[0].spec
    return Cell(
        key=key,
        spec=spec,
        seeds=tuple(sorted(seeds)),
        unattacked=tuple(sorted(unattacked)),
        values=_final_figures(attacked, has_success=has_success),
        success={seed_of(run): curve_of(run, SUCCESS) for run in attacked},
        accuracy={seed_of(run): curve_of(run, ACCURACY) for run in attacked},
        diverged=frozenset(_seeds(filter(_has_diverged, attacked))),
        targeted=bool(spec["attack"]) and (has_success or _aims(spec["attack"])),
        absent=_absent_adversaries(attacked),
    )


def _aims(attack: Sequence[Json]) -> bool:
    """Whether a stage of the attack says what a success is."""
    return plugins.aims(stage["name"] for stage in attack)


def _seeds(runs: Iterable[Logged]) -> set[int]:
    return set(map(seed_of, runs))


def _was_attacked(run: Logged) -> bool:
    """False where a malicious client never took part in an attacked round."""
    return run.metrics.get("final/attack_turns") != 0


def _absent_adversaries(runs: Iterable[Logged]) -> dict[int, tuple[int, ...]]:
    """Adversary → the seeds in which it never attacked."""
    seeds: dict[int, list[int]] = {}
    for run in runs:
        for number in absentees(run.metrics):
            seeds.setdefault(number, []).append(seed_of(run))
    return {number: tuple(sorted(set(seeds[number]))) for number in sorted(seeds)}


def _final_figures(runs: Sequence[Logged], *, has_success: bool) -> dict[str, dict[int, float]]:
    """Metric → seed → final figure; the worst one of a diverged run that lacks it."""
    worst = WORST_VALUES if has_success else {ACCURACY: WORST_VALUES[ACCURACY]}
    figures = {}
    for name in READ:
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
