"""The leaderboard: a pure function of the logged runs. Select, score, rank, write.

A *cell* is one setting (everything but attack, defense and seed) under one attack and one defense, over its seeds. A *row* is
one defense over all its attacked cells. For a cell, with FedAvg's cell of the same setting, attack and seeds:

    asr_reduction = ASR(fedavg) - ASR(defense),  accuracy_cost = accuracy(fedavg) - accuracy(defense)
    DER = (max(0, asr_reduction) - max(0, accuracy_cost) + 1) / 2

so that FedAvg has 0.5 everywhere and a defense that removes the backdoor at no cost has more.

Source: DER is equation 7 of M. Zhu, S. Wei, L. Shen, Y. Fan and B. Wu, "Enhancing Fine-Tuning Based Backdoor Defense with
Sharpness-Aware Minimization", ICCV 2023.
Sums are exact or of a fixed order and no generator of a library is used: the same runs give the same bytes anywhere.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from backstop.platform import finals, plugins
from backstop.platform.contract import Part
from backstop.platform.params import BadInput
from backstop.platform.seeds import stream
from backstop.platform.specs import NOTHING, from_json

SCHEMA = 1
NAMES = 20  # columns of a terminal for the names of defenses, at least, where there is room
DRAWS = 2000  # bootstrap resamples: the 2.5 % quantile rests on 50 of them
RULE = (
    "Final figures are the mean over the last 10 % of a run's evaluations (at least one). A row is the mean over the defense's attacked cells; "
    "accuracy_cost and asr_reduction are against undefended FedAvg under the same attack and the same seeds; "
    "DER = (max(0, asr_reduction) - max(0, accuracy_cost) + 1) / 2 for each cell. Rows are ordered by mean DER, then the lowest "
    "attack success under the worst attack, then the name. Intervals: 95 %, bootstrap over seeds, paired, 2000 seeded draws. "
    "natural_success is the attack success rate of the clean twin on the same triggered inputs; untriggered_target_rate is how often the attacked model gives the wanted label "
    "to the same inputs without the trigger. An attack is left out of the ranks where under undefended FedAvg its success is not 5 points above both, since then it "
    "did nothing that a defense could stop; a run in which no malicious client took part in an attacked round counts nowhere. "
    "A diverged run counts; a figure that it lacks counts as accuracy 0 and attack success 1."
)
SUCCESS, UNTRIGGERED = "attack_success_rate", "untriggered_target_rate"
LIFETIME = ("time_to_backdoor", "durability")
FIGURES = ("clean_accuracy", "attack_success_rate", "robust_accuracy")
GAINS = ("accuracy_cost", "asr_reduction", "der")
WORST = {"clean_accuracy": 0.0, "attack_success_rate": 1.0, "robust_accuracy": 0.0}  # of a diverged run that lacks the figure
FREE = ("attack", "defense", "seed", "dormant")  # what a setting leaves open

Document = dict[str, Any]
Draws = NDArray[np.float64]  # (DRAWS,) resampled means


class Logged(Protocol):
    """What the leaderboard needs of a run."""

    @property
    def id(self) -> str:
        """The spec's id."""

    @property
    def spec(self) -> Mapping[str, Any]:
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
    def curves(self) -> Mapping[str, Sequence[tuple[int, float]]]:
        """Metric → (round, value); of these ``round/attack_success_rate`` is read."""


class Entry(NamedTuple):
    """A run as the document holds it."""

    id: str
    spec: Mapping[str, Any]
    metrics: Mapping[str, float]
    fingerprint: str = ""
    curves: Mapping[str, Sequence[tuple[int, float]]] = {}
    data: str = ""
    code: Mapping[str, str] = {}


class Figure(NamedTuple):
    """A mean with the means of its bootstrap resamples."""

    mean: float
    draws: Draws

    @property
    def interval(self) -> dict[str, float]:
        """``{"mean", "low", "high"}`` with the 95 % percentile interval."""
        ranked = np.sort(self.draws)
        return {"mean": self.mean, "low": _quantile(ranked, 0.025), "high": _quantile(ranked, 0.975)}


class Cell(NamedTuple):
    """Setting × attack × defense: metric → seed → value, and the figures made of them."""

    setting: str
    attack: str
    defense: str
    spec: Mapping[str, Any]
    values: Mapping[str, Mapping[int, float]]
    seeds: tuple[int, ...]  # those whose figures count
    diverged: int
    unattacked: tuple[int, ...] = ()  # seeds in which no malicious client took part in an attacked round
    success: Mapping[int, Sequence[tuple[int, float]]] = {}  # seed → (round, attack success)


class Twins(NamedTuple):
    """What triggered inputs achieve against models that nobody attacked, by seed: the dormant runs of a cell's trigger."""

    final: Mapping[int, float]
    by_round: Mapping[int, Mapping[int, float]]  # seed → round → attack success


def _quantile(ranked: Draws, share: float) -> float:
    place = share * (len(ranked) - 1)
    low = math.floor(place)
    below, above = float(ranked[low]), float(ranked[min(low + 1, len(ranked) - 1)])
    return below if below == above else below + (place - low) * (above - below)


@lru_cache
def _weights(seeds: int) -> NDArray[np.float64]:
    """How often each of n seeds is drawn in each resample, (DRAWS, n). All cells with n seeds share it: that pairs them.

    Draws come from sha256, whose stream no library version changes.
    """
    counts = np.zeros((DRAWS, seeds))
    for draw in range(DRAWS):
        for place in range(seeds):
            counts[draw, stream(0, "bootstrap", seeds, draw, place) % seeds] += 1
    return counts


def _figure(values: Mapping[int, float]) -> Figure | None:
    """The mean over seeds, or None without any."""
    if not values:
        return None
    listed = [values[seed] for seed in sorted(values)]
    mean = math.fsum(listed) / len(listed)
    if min(listed) == max(listed):
        return Figure(listed[0], np.full(DRAWS, listed[0]))
    weights, total = _weights(len(listed)), np.zeros(DRAWS)
    for place, value in enumerate(listed):  # in a fixed order: a matrix product's order of sums depends on the processor
        total += weights[:, place] * value
    return Figure(mean, total / len(listed))


def _average(figures: Iterable[Figure | None]) -> Figure | None:
    """The mean of the figures that exist."""
    found = [figure for figure in figures if figure is not None]
    if not found:
        return None
    total = np.zeros(DRAWS)
    for figure in found:
        total += figure.draws
    return Figure(math.fsum(figure.mean for figure in found) / len(found), total / len(found))


def _gains(cell: Cell, baseline: Cell | None) -> dict[str, Figure | None]:
    """What the defense costs and brings against the baseline, over the seeds that both have."""

    def less(metric: str) -> Figure | None:
        if baseline is None:
            return None
        own, other = cell.values[metric], baseline.values[metric]
        return _figure({seed: other[seed] - own[seed] for seed in own.keys() & other.keys()})

    cost, reduction = less("clean_accuracy"), less("attack_success_rate")
    score = None
    if cost is not None and reduction is not None:
        score = Figure(
            (max(0.0, reduction.mean) - max(0.0, cost.mean) + 1) / 2,
            (np.maximum(0.0, reduction.draws) - np.maximum(0.0, cost.draws) + 1) / 2,
        )
    return {"accuracy_cost": cost, "asr_reduction": reduction, "der": score}


def label(stages: Sequence[Mapping[str, Any]], role: str) -> str:
    """The text form of a chain in JSON, as :func:`specs.text` writes it."""
    return "+".join(str(Part(stage["name"], stage["params"])) for stage in stages) or NOTHING[role]


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _setting(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sorted(spec.items()) if key not in FREE}


def setting(spec: Mapping[str, Any]) -> str:
    """The name of a spec's setting: the first digits of its content's sha256."""
    return hashlib.sha256(_dump(_setting(spec)).encode()).hexdigest()[:12]


def _place(run: Logged) -> tuple[str, str, str, int, str, str]:
    """The order of runs: by what they are, never by when or where they ran."""
    spec = run.spec
    return (
        _dump(_setting(spec)),
        label(spec["attack"], "attack"),
        label(spec["defense"], "defense"),
        int(spec["seed"]),
        run.id,
        _dump(_finite(run.metrics)),
    )


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in sorted(metrics.items()) if math.isfinite(value)}


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _cells(runs: Sequence[Logged]) -> list[Cell]:
    """The runs, in order, gathered by setting, attack and defense."""
    groups: dict[tuple[str, str, str], list[Logged]] = {}
    succeeds: set[tuple[str, str]] = set()  # setting and attack of which any run has an attack success rate
    for run in runs:
        key = (setting(run.spec), label(run.spec["attack"], "attack"), label(run.spec["defense"], "defense"))
        groups.setdefault(key, []).append(run)
        if "final/attack_success_rate" in run.metrics:
            succeeds.add(key[:2])
    cells = []
    for (where, attack, defense), logged in groups.items():
        values: dict[str, dict[int, float]] = {name: {} for name in (*FIGURES, UNTRIGGERED)}
        members = [run for run in logged if run.metrics.get("final/attack_turns") != 0]
        for run in members:
            for name, by_seed in values.items():
                value = _number(run.metrics.get(f"final/{name}"))
                applies = name == "clean_accuracy" or (where, attack) in succeeds
                if value is None and applies and run.metrics.get("final/diverged"):
                    value = WORST.get(name)
                if value is not None:
                    by_seed[int(run.spec["seed"])] = value
        seeds = tuple(sorted({int(run.spec["seed"]) for run in members}))
        diverged = sum(bool(run.metrics.get("final/diverged")) for run in members)
        absent = {int(run.spec["seed"]) for run in logged} - set(seeds)
        success = {int(run.spec["seed"]): _success(run) for run in members}
        cells.append(Cell(where, attack, defense, logged[0].spec, values, seeds, diverged, tuple(sorted(absent)), success))
    return cells


def _success(run: Logged) -> Sequence[tuple[int, float]]:
    """(round, attack success) of a run, where it was read."""
    return run.curves.get(f"round/{SUCCESS}", ())


def _interval(figure: Figure | None) -> dict[str, float] | None:
    return None if figure is None else figure.interval


def _mean(figure: Figure | None) -> float | None:
    return None if figure is None else figure.mean


def _scores(figures: Mapping[str, Figure | None]) -> Document:
    """The fields that cells and rows share."""
    return {
        **{name: _interval(figures[name]) for name in FIGURES},
        **{name: _mean(figures[name]) for name in GAINS},
        "intervals": {name: _interval(figures[name]) for name in GAINS},
    }


def build(
    runs: Iterable[Logged],
    experiment: str,
    *,
    mix: bool = False,
    planned: Mapping[str, str] | None = None,
) -> Document:
    """The leaderboard of the runs, in whatever order they come.

    ``planned``, spec id → the run in words, are the runs that were meant to be: those without a
    finished run stand in ``missing_runs``, so that what is not complete does not look so. Raises
    BadInput when the runs hold several fingerprints, or read several versions of one dataset,
    unless told to mix.
    """
    ordered = sorted(runs, key=_place)
    kept = _current(ordered)
    fingerprints = sorted({run.fingerprint for run in kept})
    if len(fingerprints) > 1 and not mix:
        raise BadInput(
            f"experiment {experiment!r} holds runs of {len(fingerprints)} kinds of device or library versions ({'; '.join(fingerprints)}), "
            "whose figures are not comparable digit by digit; rank them together only with --mix-fingerprints"
        )
    if not kept:
        raise BadInput(f"experiment {experiment!r} holds no finished run; nothing to rank")
    mixed = _mixed_data(kept)
    if mixed and not mix:
        raise BadInput(
            f"experiment {experiment!r} holds runs that read different data under one name: {mixed}; "
            "delete the runs of one of them, or rank them together with --mix-fingerprints"
        )
    there = {run.id for run in ordered}
    missing = [
        {"id": spec_id, "run": words}
        for spec_id, words in sorted((planned or {}).items(), key=lambda item: (item[1], item[0]))
        if spec_id not in there
    ]
    return _document(kept, experiment, " | ".join(fingerprints), _code(kept), missing)


def _mixed_data(runs: Sequence[Logged]) -> str:
    """Datasets of which runs read more than one version, in words; empty without any."""
    read: dict[str, set[str]] = {}
    for run in runs:
        data, _, edge = run.data.partition("+")
        name = _part(run.spec["dataset"])
        read.setdefault(name, set()).update({data} - {""})
        read.setdefault(f"the edge cases of {name}", set()).update({edge} - {""})
    return "; ".join(f"{name} ({', '.join(sorted(digests))})" for name, digests in sorted(read.items()) if len(digests) > 1)


def _code(runs: Sequence[Logged]) -> dict[str, str]:
    """Plug-in → digest of its file, over all runs; several digests where it was changed in between."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for name, digest in run.code.items():
            seen.setdefault(name, set()).add(digest)
    return {name: " | ".join(sorted(digests)) for name, digests in sorted(seen.items())}


def _current(ordered: Sequence[Logged]) -> list[Logged]:
    """One run per id, and of runs whose spec is the same under several ids (a plug-in's version was raised) today's."""
    groups: dict[str, dict[str, Logged]] = {}
    for run in ordered:
        groups.setdefault(_dump(run.spec), {}).setdefault(run.id, run)
    kept = []
    for versions in groups.values():
        current = next(iter(versions))
        if len(versions) > 1:
            current = max(versions, key=lambda found: found == from_json(versions[found].spec).id)
        kept.append(versions[current])
    return kept


def _twins(runs: Sequence[Logged]) -> Callable[[Cell], Twins]:
    """Cell → its clean twins: the undefended dormant runs of the same setting whose stages, the trigger's, are among the cell's, over
    the cell's seeds.
    """
    dormant = [run for run in runs if run.spec.get("dormant") and not run.spec["defense"]]
    listed: dict[str, list[Logged]] = {}
    for run in dormant:
        listed.setdefault(setting(run.spec), []).append(run)

    def of(cell: Cell) -> Twins:
        own = {_dump([stage]) for stage in cell.spec["attack"]} | {_dump(cell.spec["attack"])}
        final: dict[int, float] = {}
        by_round: dict[int, Mapping[int, float]] = {}
        for run in listed.get(cell.setting, ()):
            seed, rate = int(run.spec["seed"]), _number(run.metrics.get(f"final/{SUCCESS}"))
            if _dump(run.spec["attack"]) in own and seed in cell.seeds and rate is not None:
                final[seed], by_round[seed] = rate, dict(_success(run))
        return Twins(final, by_round)

    return of


def _lifetime(cell: Cell, twins: Twins) -> Document:
    """How long the backdoor takes and lasts in the mean over the seeds that say so, and in how many of them it was still active at the end."""
    schedule = (int(cell.spec["attack_start"]), cell.spec["attack_stop"], int(cell.spec["attack_every"]))
    spans = [(seed, finals.lifetime(rates, twins.by_round.get(seed, {}), *schedule)) for seed, rates in cell.success.items()]
    figures = {name: _figure({seed: span[name] for seed, span in spans if name in span}) for name in LIFETIME}
    active = [span["still_active"] for _, span in spans if "still_active" in span]
    return {
        **{name: _interval(figure) for name, figure in figures.items()},
        "planted_seeds": sum("time_to_backdoor" in span for _, span in spans),
        "still_active": int(sum(active)) if active else None,
    }


def _peak(cell: Cell, seeds: Sequence[int]) -> float | None:
    """The largest attack success of a run, in the mean over the seeds; None where a run's rounds are not known."""
    highest = [max((rate for _, rate in cell.success.get(seed, ())), default=None) for seed in seeds]
    known = [rate for rate in highest if rate is not None]
    return math.fsum(known) / len(known) if len(known) == len(seeds) else None


def _judged(cell: Cell, undefended: Cell | None, twins: Twins) -> tuple[bool | None, str | None]:
    """Whether the cell's attack bites, and if not, why: a sentence. (None, None) where the runs that tell are not there, or where the
    attack has no success to measure.
    """
    if cell.attack == NOTHING["attack"]:
        return None, None
    if not cell.seeds:
        return False, "no malicious client took part in an attacked round"
    if undefended is None or not undefended.values[SUCCESS]:
        return None, None
    reached = undefended.values[SUCCESS]
    for others, name in ((undefended.values[UNTRIGGERED], "the same inputs without the trigger"), (twins.final, "its clean twin")):
        both = sorted(reached.keys() & others.keys())
        if not both:
            continue
        ours, theirs = (math.fsum(rates[seed] for seed in both) / len(both) for rates in (reached, others))
        if ours - theirs < finals.BITE:
            peak = _peak(undefended, both)
            faded = cell.spec["attack_stop"] is not None and peak is not None and peak - theirs >= finals.BITE
            before = f" at the end, after {percent(peak)} % while it attacked" if faded else ""
            return False, f"under FedAvg it has {percent(ours)} %{before}, {name} {percent(theirs)} %"
    return (True, None) if twins.final else (None, None)


def _document(
    runs: Sequence[Logged],
    experiment: str,
    fingerprint: str,
    code: Mapping[str, str],
    missing: Sequence[Mapping[str, str]],
) -> Document:
    cells = _cells([run for run in runs if not run.spec.get("dormant")])
    twins = _twins(runs)
    by_place = {(cell.setting, cell.attack, cell.defense): cell for cell in cells}
    figures: dict[tuple[str, str, str], dict[str, Figure | None]] = {}
    verdicts: dict[tuple[str, str, str], tuple[bool | None, str | None]] = {}
    for place, cell in by_place.items():
        undefended = by_place.get((cell.setting, cell.attack, NOTHING["defense"]))
        own = {name: _figure(cell.values[name]) for name in FIGURES}
        figures[place] = own | _gains(cell, undefended)
        verdicts[place] = _judged(cell, undefended, twins(undefended or cell))
    ranked = [cell for place, cell in by_place.items() if verdicts[place][0] is not False]
    settings = {cell.setting: _setting(cell.spec) for cell in cells}
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "fingerprint": fingerprint,
        "code": dict(code),
        "rule": RULE,
        "missing_runs": [dict(item) for item in missing],
        "settings": settings,
        "rows": _rows(cells, ranked, figures),
        "cells": [
            {
                "dataset": _part(cell.spec["dataset"]),
                "model": _part(cell.spec["model"]),
                "setting": cell.setting,
                "attack": cell.attack,
                "defense": cell.defense,
                "seeds": list(cell.seeds),
                "knows": plugins.knows(stage["name"] for stage in cell.spec["attack"]),
                **_scores(figures[place]),
                UNTRIGGERED: _interval(_figure(cell.values[UNTRIGGERED])),
                "natural_success": _interval(_figure(twins(cell).final)),
                **_lifetime(cell, twins(cell)),
                "bites": verdicts[place][0],
                "left_out": verdicts[place][1],
                "unattacked_seeds": list(cell.unattacked),
                "diverged": cell.diverged,
            }
            for place, cell in by_place.items()
        ],
        "runs": [
            {
                "id": run.id,
                "spec": dict(sorted(run.spec.items())),
                "metrics": _finite(run.metrics),
                "data": run.data,
                "success_by_round": [list(point) for point in _success(run)],
            }
            for run in runs
        ],
    }


def _part(part: Mapping[str, Any]) -> str:
    return label([part], "defense")


def _rows(
    cells: Sequence[Cell],
    ranked: Sequence[Cell],
    figures: Mapping[tuple[str, str, str], Mapping[str, Figure | None]],
) -> list[Document]:
    """A row for each defense that met an attack; its figures are over the ``ranked`` among its cells."""
    attacked = [cell for cell in cells if cell.attack != NOTHING["attack"]]
    everything = {(cell.setting, cell.attack) for cell in attacked}
    rows = []
    for defense in sorted({cell.defense for cell in attacked}):
        met = [cell for cell in attacked if cell.defense == defense]
        own = [cell for cell in ranked if cell.defense == defense and cell.attack != NOTHING["attack"]]
        clean = [cell for cell in cells if cell.defense == defense and cell.attack == NOTHING["attack"]]
        scores = [figures[cell.setting, cell.attack, cell.defense] for cell in own]
        worst: list[tuple[float, str]] = []
        for cell, score in zip(own, scores, strict=True):
            success = score["attack_success_rate"]
            if success is not None:
                worst.append((-success.mean, cell.attack))
        unscathed = _average(figures[cell.setting, cell.attack, cell.defense]["clean_accuracy"] for cell in clean)
        rows.append(
            {
                "rank": 0,
                "defense": defense,
                "needs": plugins.needs(stage["name"] for stage in met[0].spec["defense"]),
                "attacks": sorted({cell.attack for cell in own}),
                "left_out": sorted({cell.attack for cell in met} - {cell.attack for cell in own}),
                "seeds": sorted({seed for cell in own for seed in cell.seeds}),
                **_scores({name: _average(score[name] for score in scores) for name in (*FIGURES, *GAINS)}),
                "worst_attack": min(worst)[1] if worst else None,
                "worst_attack_success_rate": -min(worst)[0] if worst else None,
                "no_attack_accuracy": _interval(unscathed),
                "missing": len(everything - {(cell.setting, cell.attack) for cell in met}),
                "diverged": sum(cell.diverged for cell in (*own, *clean)),
            }
        )
    rows.sort(key=_merit)
    return [row | {"rank": place} for place, row in enumerate(rows, 1)]


def _merit(row: Mapping[str, Any]) -> tuple[float, float, str]:
    """Mean DER from high to low, worst attack's success from low to high, name; a figure that is missing comes last."""
    score, success = row["der"], row["worst_attack_success_rate"]
    return (math.inf if score is None else -score, math.inf if success is None else success, row["defense"])


def recompute(document: Mapping[str, Any]) -> Document:
    """The document that the document's own runs give. Raises BadInput when it is no leaderboard of this schema."""
    if document.get("schema") != SCHEMA:
        raise BadInput(f"leaderboard: schema {document.get('schema')!r} is not known; this version reads schema {SCHEMA}")
    try:
        runs = [
            Entry(
                run["id"],
                run["spec"],
                run["metrics"],
                data=run.get("data", ""),
                curves={f"round/{SUCCESS}": [(int(at), float(rate)) for at, rate in run["success_by_round"]]},
            )
            for run in document["runs"]
        ]
        return _document(
            sorted(runs, key=_place),
            document["experiment"],
            document["fingerprint"],
            document.get("code", {}),
            document.get("missing_runs", []),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"leaderboard: its runs cannot be read ({type(error).__name__}: {error}); was the file changed by hand?") from None


def differences(document: Mapping[str, Any], recomputed: Mapping[str, Any]) -> list[str]:
    """Every field in which two documents differ, in words, in the order of the file."""

    def names(item: object) -> str:
        if not isinstance(item, Mapping):
            return ""
        if "attack" in item and "defense" in item and "rank" not in item and isinstance(item["attack"], str):
            return f" {item['attack']} × {item['defense']}"
        return f" {item['defense']}" if "rank" in item else f" {str(item['id'])[:12]}" if "id" in item else ""

    def walk(path: str, old: object, new: object) -> list[str]:
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys = [*old, *(key for key in new if key not in old)]
            gap = "" if not path else " " if path.endswith(("…", "×")) or " " in path.rpartition("]")[2] else "."
            return [
                line
                for key in keys
                for line in walk(f"{path}{gap}{key}" if path else str(key), old.get(key, "(missing)"), new.get(key, "(missing)"))
            ]
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            return [line for place, (a, b) in enumerate(zip(old, new, strict=True)) for line in walk(f"{path}[{place}]{names(a)}", a, b)]
        if old == new and type(old) is type(new):
            return []
        return [f"{path}: file {_brief(old)}, recomputed {_brief(new)}"]

    return walk("", document, recomputed)


def _brief(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries" if len(value) > 4 else json.dumps(value, ensure_ascii=False)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"


def sample(document: Mapping[str, Any], count: int, wrong: Sequence[str] = ()) -> list[Document]:
    """The runs to do again: those of the cells that differences name, then others in the order of their ids, ``count`` in all."""
    doubted = set()
    for line in wrong:
        found = re.match(r"cells\[(\d+)\]", line)
        if found and int(found[1]) < len(document["cells"]):
            cell = document["cells"][int(found[1])]
            doubted.add((cell["setting"], cell["attack"], cell["defense"]))

    def order(run: Document) -> tuple[bool, str]:
        spec = run["spec"]
        place = (setting(spec), label(spec["attack"], "attack"), label(spec["defense"], "defense"))
        return place not in doubted, str(run["id"])

    return sorted(document["runs"], key=order)[: max(0, count)]


def encode(document: Mapping[str, Any]) -> str:
    """The file's text: valid JSON, one line per row, cell and run, so that two files can be compared line by line."""
    blocks = []
    for key, value in document.items():
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(item, ensure_ascii=False, allow_nan=False) for item in value)
            blocks.append(f" {json.dumps(key)}: [\n  {lines}\n ]")
        else:
            blocks.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def load(path: Path) -> Document:
    """A leaderboard.json. Raises BadInput when it cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"leaderboard {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BadInput(f"leaderboard {path} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadInput(f"leaderboard {path}: is no leaderboard of schema {SCHEMA}")
    return document


def short(texts: Iterable[str]) -> dict[str, str]:
    """Names for people: each chain without the parameters that are the same wherever its plug-in occurs among the texts.

    >>> short(["clip(norm=1, p=2)", "clip(norm=3, p=2)+median"])
    {'clip(norm=1, p=2)': 'clip(norm=1)', 'clip(norm=3, p=2)+median': 'clip(norm=3)+median'}
    """
    split = {text: [_split(stage) for stage in _stages(text)] for text in texts}
    seen: dict[tuple[str, str], set[str]] = {}
    for chain in split.values():
        for name, params in chain:
            for key, value in params.items():
                seen.setdefault((name, key), set()).add(value)

    def one(name: str, params: Mapping[str, str]) -> str:
        kept = [f"{key}={value}" for key, value in params.items() if len(seen[name, key]) > 1]
        return f"{name}({', '.join(kept)})" if kept else name

    return {text: "+".join(one(*stage) for stage in chain) for text, chain in split.items()}


def _stages(text: str) -> list[str]:
    """The stages of a text form: split at plus signs outside of parentheses (a value such as 1e+16 holds one too)."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "+" and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found


def _split(stage: str) -> tuple[str, dict[str, str]]:
    name, _, inside = stage.removesuffix(")").partition("(")
    pairs = (item.partition("=") for item in inside.split(", ") if item)
    return name, {key: value for key, _, value in pairs}


def percent(value: float | None, digits: int = 1) -> str:
    """A share for people, in percent without the sign; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def spread(figure: Mapping[str, float] | None) -> str:
    """A mean with its interval in percent: ``91.2 [90.1, 92.0]``; without one where there is a single value."""
    if figure is None:
        return "–"
    if figure["low"] == figure["high"]:
        return percent(figure["mean"])
    return f"{percent(figure['mean'])} [{percent(figure['low'])}, {percent(figure['high'])}]"


def margin(figure: Mapping[str, float] | None) -> str:
    """A mean with half its interval's width in percent: ``91.2 ±0.9``; without one where there is a single value."""
    if figure is None or figure["low"] == figure["high"]:
        return spread(figure)
    return f"{percent(figure['mean'])} ±{percent((figure['high'] - figure['low']) / 2)}"


def remarks(row: Mapping[str, Any]) -> str:
    """Marks for a row that is not like the others: † lacks attacks that others have, ‡ holds diverged runs."""
    return ("†" if row["missing"] else "") + ("‡" if row["diverged"] else "")


def incomplete(document: Mapping[str, Any], most: int = 5) -> str:
    """A sentence that says which planned runs are not in the document; empty where all are."""
    absent = [item["run"] for item in document["missing_runs"]]
    if not absent:
        return ""
    more = [f"and {len(absent) - most} more"] if len(absent) > most else []
    have = "is" if len(absent) == 1 else "are"
    listed = "; ".join([*absent[:most], *more])
    return f"INCOMPLETE: {plural(len(absent), 'planned run')} {have} missing: {listed}"


def footnotes(document: Mapping[str, Any]) -> list[str]:
    """What the marks mean, where there are any."""
    notes = []
    if any(row["missing"] for row in document["rows"]):
        notes.append("† lacks attacks or settings that other rows have; its means are not over the same cells")
    notes += unranked(document)
    if any(row["diverged"] for row in document["rows"]):
        notes.append("‡ holds diverged runs; a figure they lack counts as accuracy 0 and attack success 1")
    return notes


def unranked(document: Mapping[str, Any]) -> list[str]:
    """What counts in no rank and why, and what could not be judged: sentences."""
    attacked = [cell for cell in document["cells"] if cell["attack"] != NOTHING["attack"]]
    names = short(cell["attack"] for cell in attacked)
    reasons = {(cell["setting"], cell["attack"]): cell["left_out"] for cell in attacked if cell["left_out"]}
    several = len(document["settings"]) > 1
    notes = [
        f"not ranked: {names[attack]}{f' (setting {where})' if several else ''}: {reason}" for (where, attack), reason in reasons.items()
    ]
    absent = sorted({seed for cell in attacked if cell["seeds"] for seed in cell["unattacked_seeds"]})
    if absent:
        notes.append(
            f"in some runs of seed {', '.join(map(str, absent))} no malicious client took part in an attacked round; they count nowhere"
        )
    silent = sorted({names[cell["attack"]] for cell in attacked if cell["seeds"] and cell[SUCCESS] is None})
    if silent:
        notes.append(f"without an attack success, counted in the accuracy only: {', '.join(silent)}")
    unjudged = {cell["attack"] for cell in attacked if cell["bites"] is None and cell[SUCCESS] is not None}
    if unjudged:
        notes.append(
            f"whether {plural(len(unjudged), 'attack')} did anything is not known: undefended FedAvg or the clean twin has not run"
        )
    return notes


def table(document: Mapping[str, Any], width: int = 100) -> Table:
    """The ranking for a terminal so wide. Where it is narrow the names stay and the last columns go, which the caption says."""
    rows = document["rows"]
    names, attacks = short(row["defense"] for row in rows), short(row["worst_attack"] for row in rows if row["worst_attack"])
    cells = len({(cell["setting"], cell["attack"]) for cell in document["cells"]} - {(s, NOTHING["attack"]) for s in document["settings"]})
    seeds = len({seed for row in rows for seed in row["seeds"]})
    title = Text(f"{document['experiment']}: {plural(len(rows), 'defense')}, {plural(cells, 'attacked cell')}, {plural(seeds, 'seed')}")
    absent = incomplete(document)
    if absent:
        title.append(f"\n{absent}", style="bold red")
    figures = {
        "DER": [percent(row["der"]) for row in rows],
        "accuracy": [margin(row["clean_accuracy"]) for row in rows],
        "attack\nsuccess": [margin(row["attack_success_rate"]) for row in rows],
        "worst": [percent(row["worst_attack_success_rate"]) for row in rows],
        "under": [attacks[row["worst_attack"]].replace("+", "\n+") if row["worst_attack"] else "–" for row in rows],
    }
    ranks = max((len(str(row["rank"])) for row in rows), default=1)
    shown, labels, room = list(figures), [_lines(names[row["defense"]], remarks(row)) for row in rows], NAMES
    if _wide(ranks, room, figures) > width:
        labels = [_lines(names[row["defense"]], remarks(row), narrow=True) for row in rows]
        room = min(NAMES, max((len(line) for text in labels for line in text.plain.split("\n")), default=NAMES))
    while shown and _wide(ranks, room, {head: figures[head] for head in shown}) > width:
        shown.pop()
    notes = ["percent; means over the attacks, ± half the 95 % interval over seeds", *footnotes(document)]
    if gone := [" ".join(head.split()) for head in figures if head not in shown]:
        notes.append(f"too narrow for {', '.join(gone)}: the files have them")
    made = Table(
        title=title,
        caption="\n".join(notes),
        box=SIMPLE_HEAD,
        header_style="bold",
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    made.add_column("#", justify="right", no_wrap=True)
    made.add_column("defense", min_width=room, overflow="fold")
    for head in shown:
        if head == "under":
            made.add_column(head, overflow="fold")
        else:
            made.add_column(head, justify="right", no_wrap=True)
    best = rows[0]["der"] if rows else None
    for place, row in enumerate(rows):
        made.add_row(
            str(row["rank"]),
            labels[place],
            *(Text(figures[head][place]) for head in shown),
            style="bold green"
            if row["der"] is not None and row["der"] == best
            else "dim"
            if row["defense"] == NOTHING["defense"]
            else None,
        )
    return made


def _wide(ranks: int, room: int, figures: Mapping[str, Sequence[str]]) -> int:
    """Columns of a terminal that the table takes: one at either end, two between its own."""
    texts = [(head, *column) for head, column in figures.items()]
    own = [max(len(line) for text in column for line in text.split("\n")) for column in texts]
    return 2 + ranks + room + sum(own) + 2 * (1 + len(own))


def _lines(name: str, note: str, *, narrow: bool = False) -> Text:
    """A single stage's parameters stand below its name, each in a line of its own where it is narrow; a chain stays as it is, broken
    between its stages.
    """
    head, _, inside = name.partition("(")
    if not inside or len(_stages(name)) > 1:
        return Text(f"{name}{note}" if len(name) < 30 and not narrow else f"{name}{note}".replace("+", "\n+"))
    listed = inside.removesuffix(")")
    return Text.assemble(head + note, ("\n" + (listed.replace(", ", "\n") if narrow else listed), "not bold dim"))


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _flat(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's fields as the cells of a spreadsheet; the intervals' three numbers become three columns."""
    found: dict[str, str] = {}
    for key, value in row.items():
        if key == "intervals":
            for name, interval in value.items():
                found |= {f"{name}_{end}": "" if interval is None else repr(interval[end]) for end in ("low", "high")}
        elif key in FIGURES or key == "no_attack_accuracy":
            found |= {f"{key}_{end}": "" if value is None else repr(value[end]) for end in ("mean", "low", "high")}
        elif isinstance(value, list):
            found[key] = "; ".join(map(str, value))
        else:
            found[key] = "" if value is None else str(value)
    return found


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def means(cells: Sequence[Mapping[str, Any]], keys: Sequence[str], figure: str) -> dict[tuple[str, ...], float]:
    """The mean of a figure over the cells that have it, by the values of some of their fields."""
    found: dict[tuple[str, ...], list[float]] = {}
    for cell in cells:
        if cell[figure] is not None:
            found.setdefault(tuple(cell[key] for key in keys), []).append(cell[figure]["mean"])
    return {place: sum(values) / len(values) for place, values in found.items()}


def _by_attack(document: Mapping[str, Any]) -> list[str]:
    """Attack success of every attack against every defense as a Markdown table, attacks in the rows; nothing for fewer than two."""
    attacked = [cell for cell in document["cells"] if cell["attack"] != NOTHING["attack"] and cell["attack_success_rate"] is not None]
    attacks = sorted({cell["attack"] for cell in attacked})
    if len(attacks) < 2:
        return []
    defenses = [row["defense"] for row in document["rows"]]
    cells, natural = means(attacked, ("attack", "defense"), "attack_success_rate"), means(attacked, ("attack",), "natural_success")
    anyway = means(undefended(attacked), ("attack",), UNTRIGGERED)
    knows = {cell["attack"]: cell["knows"] for cell in attacked}
    ours, theirs = short(defenses), marked_attacks(document)
    lines = [
        "## Attack success, attack by attack",
        "",
        f"| attack | knows | clean twin | untriggered | {' | '.join(ours[defense] for defense in defenses)} |",
        f"| :--- | :--- | {' | '.join(['---:'] * (len(defenses) + 2))} |",
    ]
    for attack in attacks:
        values = [natural.get((attack,)), anyway.get((attack,)), *(cells.get((attack, defense)) for defense in defenses)]
        lines.append(f"| {' | '.join([theirs[attack], knows[attack], *map(percent, values)])} |")
    return ["", *lines, "", TWINS]


TWINS = (
    "Clean twin: the same triggered inputs, before a model that nobody attacked. Untriggered: the same inputs without the trigger, "
    "before the model that FedAvg gives under the attack. ° counts in no rank."
)


def undefended(cells: Sequence[Document]) -> list[Document]:
    """The cells of plain FedAvg."""
    return [cell for cell in cells if cell["defense"] == NOTHING["defense"]]


def marked_attacks(document: Mapping[str, Any]) -> dict[str, str]:
    """Attack → its name for people, with ° where it counts in no rank in any setting."""
    attacked = [cell for cell in document["cells"] if cell["attack"] != NOTHING["attack"]]
    counted = {cell["attack"] for cell in attacked if not cell["left_out"]}
    names = short(cell["attack"] for cell in attacked)
    return {attack: name if attack in counted else f"{name}°" for attack, name in names.items()}


def lifetimes(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(attack, defense, rounds to the backdoor, rounds that it lasted) for people, of the attacks that stop. + says that it was
    still active when the last round of some seed was over.
    """
    lasting = [
        cell
        for cell in document["cells"]
        if document["settings"][cell["setting"]]["attack_stop"] is not None and cell[SUCCESS] is not None and cell["seeds"]
    ]
    theirs, ours = short(cell["attack"] for cell in lasting), short(cell["defense"] for cell in lasting)

    def rounds(cell: Mapping[str, Any], name: str, *, more: bool = False) -> str:
        if cell[name] is None:
            return "never" if name == "time_to_backdoor" else "–"
        planted, seeds = cell["planted_seeds"], len(cell["seeds"])
        some = f" ({planted} of {plural(seeds, 'seed')})" if planted < seeds else ""
        return f"{cell[name]['mean']:.1f}{'+' * more}{some}"

    return [
        (
            theirs[cell["attack"]],
            ours[cell["defense"]],
            rounds(cell, "time_to_backdoor"),
            rounds(cell, "durability", more=bool(cell["still_active"])),
        )
        for cell in lasting
    ]


LIFETIME_HEADS = ("attack", "defense", "rounds to the backdoor", "rounds that it lasted")
LIFETIME_NOTE = (
    "Over the clean twin: rounds from the attack's first until success is half-way from the twin's to 100 %, and rounds after its last "
    "in which half of the excess was left; + where some seed's was still active at the end. Means are over the seeds in which it came so far."
)


def _lifetimes(document: Mapping[str, Any]) -> list[str]:
    """The lifetimes as a Markdown table; nothing where no attack stops."""
    rows = lifetimes(document)
    if not rows:
        return []
    lines = [f"| {' | '.join(row)} |" for row in (LIFETIME_HEADS, (":---", ":---", "---:", "---:"), *rows)]
    return ["", "## How long backdoors last", "", *lines, "", LIFETIME_NOTE]


def markdown(document: Mapping[str, Any]) -> str:
    """The ranking, and attack success attack by attack, as Markdown tables."""
    rows = document["rows"]
    names, attacks = short(row["defense"] for row in rows), short(row["worst_attack"] for row in rows if row["worst_attack"])

    def safe(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")

    absent = incomplete(document)
    lines = [
        f"# Leaderboard: {safe(document['experiment'])}",
        "",
        *([f"**{safe(absent)}.**", ""] if absent else []),
        "| # | defense | DER | accuracy | attack success | accuracy without attack | worst attack | needs |",
        "| ---: | :--- | ---: | ---: | ---: | ---: | :--- | :--- |",
    ]
    for row in rows:
        worst = f"{percent(row['worst_attack_success_rate'])} {attacks[row['worst_attack']]}" if row["worst_attack"] else "–"
        fields = (
            str(row["rank"]),
            safe(names[row["defense"]]) + remarks(row),
            percent(row["der"]),
            spread(row["clean_accuracy"]),
            spread(row["attack_success_rate"]),
            spread(row["no_attack_accuracy"]),
            safe(worst),
            ", ".join(row["needs"]) or "–",
        )
        lines.append(f"| {' | '.join(fields)} |")
    notes = [f"{note}." for note in footnotes(document)]
    about = f"In percent. {safe(document['rule'])}"
    return "\n".join(
        [
            *lines,
            *_by_attack(document),
            *_lifetimes(document),
            "",
            *[line for note in (about, *notes, f"Fingerprint: {safe(document['fingerprint'])}.") for line in (note, "")],
        ]
    )


class Timed(Logged, Protocol):
    """A run with what must not stand in the leaderboard itself."""

    @property
    def run_id(self) -> str:
        """MLflow's id."""

    @property
    def costs(self) -> Mapping[str, float]:
        """Seconds by phase and peak memory, as the run stored them."""


def costs(document: Mapping[str, Any], runs: Iterable[Timed]) -> str:
    """runs.csv: per run its MLflow run id, fingerprint, seconds and final metrics, in the order of the document."""
    known = {run.id: run for run in runs}
    listed = []
    for item in document["runs"]:
        spec, run = item["spec"], known.get(item["id"])
        row = {
            "id": item["id"],
            "run_id": run.run_id if run else "",
            "dataset": _part(spec["dataset"]),
            "model": _part(spec["model"]),
            "attack": label(spec["attack"], "attack"),
            "defense": label(spec["defense"], "defense"),
            "seed": str(spec["seed"]),
            "fingerprint": run.fingerprint if run else "",
        }
        if run:
            row |= {key.partition("/")[2]: f"{value:.3f}" for key, value in sorted(run.costs.items())}
        listed.append(row | {key.removeprefix("final/"): repr(value) for key, value in item["metrics"].items()})
    return _csv(listed)


def write(document: Mapping[str, Any], runs: Iterable[Timed], folder: Path) -> list[Path]:
    """Write leaderboard.json, .csv, .md and runs.csv. Raises BadInput when the folder cannot be written."""
    contents: dict[str, Callable[[], str]] = {
        "leaderboard.json": lambda: encode(document),
        "leaderboard.csv": lambda: _csv([_flat(row) for row in document["rows"]]),
        "leaderboard.md": lambda: markdown(document),
        "runs.csv": lambda: costs(document, runs),
    }
    return [put(folder / name, content()) for name, content in contents.items()]


def put(file: Path, content: str) -> Path:
    """Write a text file whole or not at all, with line feeds on every system. Raises BadInput when it cannot be written."""
    fresh = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content.encode())
        fresh.replace(file)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise BadInput(f"{file}: cannot be written: {error.strerror or error}") from None
    return file
