"""The leaderboard: a pure function of the logged runs. Select, score, rank, write.

A *cell* is one setting (everything but attack, defense and seed) under one attack and one defense,
over its seeds. A *row* is one defense over all its attacked cells. For a cell, with FedAvg's cell
of the same setting, attack and seeds:

    asr_reduction = ASR(fedavg) - ASR(defense),  accuracy_cost = accuracy(fedavg) -
    accuracy(defense)
    DER = (max(0, asr_reduction) - max(0, accuracy_cost) + 1) / 2

so that FedAvg has 0.5 everywhere and a defense that removes the backdoor at no cost has more.

Source: DER is equation 7 of M. Zhu, S. Wei, L. Shen, Y. Fan and B. Wu, "Enhancing Fine-Tuning Based
Backdoor Defense with Sharpness-Aware Minimization", ICCV 2023.
Sums are exact or of a fixed order and no generator of a library is used: the same runs give the
same bytes anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from backstop.platform import plugins
from backstop.platform.params import BadInput
from backstop.platform.results.document import SCHEMA, Document
from backstop.platform.results.figures import (
    Figure,
    average,
    figure_over_seeds,
    finite_metrics,
    interval_of,
    mean_of,
    number_or_none,
)
from backstop.platform.results.names import chain_label, part_label, stages_of
from backstop.platform.results.wording import percent
from backstop.platform.rounds import finals
from backstop.platform.specs.part import NOTHING
from backstop.platform.specs.spec import spec_from_json

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
# of a diverged run that lacks the figure
WORST = {"clean_accuracy": 0.0, "attack_success_rate": 1.0, "robust_accuracy": 0.0}
VARIED_FIELDS = ("attack", "defense", "seed", "dormant")  # what a setting leaves open


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


class Cell(NamedTuple):
    """Setting × attack × defense: metric → seed → value, and the figures made of them."""

    setting: str
    attack: str
    defense: str
    spec: Mapping[str, Any]
    values: Mapping[str, Mapping[int, float]]
    seeds: tuple[int, ...]  # those whose figures count
    diverged: int
    # seeds in which no malicious client took part in an attacked round
    unattacked: tuple[int, ...] = ()
    success: Mapping[int, Sequence[tuple[int, float]]] = {}  # seed → (round, attack success)


class Twins(NamedTuple):
    """What triggered inputs achieve against models that nobody attacked, by seed: the dormant runs
    of a cell's trigger.
    """

    final: Mapping[int, float]
    by_round: Mapping[int, Mapping[int, float]]  # seed → round → attack success


def _gains(cell: Cell, baseline: Cell | None) -> dict[str, Figure | None]:
    """What the defense costs and brings against the baseline, over the seeds that both have."""

    def less(metric: str) -> Figure | None:
        if baseline is None:
            return None
        own, other = cell.values[metric], baseline.values[metric]
        return figure_over_seeds(
            {seed: other[seed] - own[seed] for seed in own.keys() & other.keys()}
        )

    cost, reduction = less("clean_accuracy"), less("attack_success_rate")
    score = None
    if cost is not None and reduction is not None:
        score = Figure(
            float(finals.defense_effectiveness(reduction.mean, cost.mean)),
            finals.defense_effectiveness(reduction.draws, cost.draws),
        )
    return {"accuracy_cost": cost, "asr_reduction": reduction, "der": score}


def _dump(value: object) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _setting(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sorted(spec.items()) if key not in VARIED_FIELDS}


def setting(spec: Mapping[str, Any]) -> str:
    """The name of a spec's setting: the first digits of its content's sha256."""
    return hashlib.sha256(_dump(_setting(spec)).encode()).hexdigest()[:12]


def run_order(run: Logged) -> tuple[str, str, str, int, str, str]:
    """The order of runs: by what they are, never by when or where they ran."""
    spec = run.spec
    return (
        _dump(_setting(spec)),
        chain_label(spec["attack"], "attack"),
        chain_label(spec["defense"], "defense"),
        int(spec["seed"]),
        run.id,
        _dump(finite_metrics(run.metrics)),
    )


def _cells(runs: Sequence[Logged]) -> list[Cell]:
    """The runs, in order, gathered by setting, attack and defense."""
    groups: dict[tuple[str, str, str], list[Logged]] = {}
    # setting and attack of which any run has an attack success rate
    succeeds: set[tuple[str, str]] = set()
    for run in runs:
        key = (
            setting(run.spec),
            chain_label(run.spec["attack"], "attack"),
            chain_label(run.spec["defense"], "defense"),
        )
        groups.setdefault(key, []).append(run)
        if "final/attack_success_rate" in run.metrics:
            succeeds.add(key[:2])
    cells = []
    for (where, attack, defense), logged in groups.items():
        values: dict[str, dict[int, float]] = {name: {} for name in (*FIGURES, UNTRIGGERED)}
        members = [run for run in logged if run.metrics.get("final/attack_turns") != 0]
        for run in members:
            for name, by_seed in values.items():
                value = number_or_none(run.metrics.get(f"final/{name}"))
                applies = name == "clean_accuracy" or (where, attack) in succeeds
                if value is None and applies and run.metrics.get("final/diverged"):
                    value = WORST.get(name)
                if value is not None:
                    by_seed[int(run.spec["seed"])] = value
        seeds = tuple(sorted({int(run.spec["seed"]) for run in members}))
        diverged = sum(bool(run.metrics.get("final/diverged")) for run in members)
        absent = {int(run.spec["seed"]) for run in logged} - set(seeds)
        success = {int(run.spec["seed"]): _success(run) for run in members}
        cells.append(
            Cell(
                where,
                attack,
                defense,
                logged[0].spec,
                values,
                seeds,
                diverged,
                tuple(sorted(absent)),
                success,
            )
        )
    return cells


def _success(run: Logged) -> Sequence[tuple[int, float]]:
    """(round, attack success) of a run, where it was read."""
    return run.curves.get(f"round/{SUCCESS}", ())


def _scores(figures: Mapping[str, Figure | None]) -> Document:
    """The fields that cells and rows share."""
    return {
        **{name: interval_of(figures[name]) for name in FIGURES},
        **{name: mean_of(figures[name]) for name in GAINS},
        "intervals": {name: interval_of(figures[name]) for name in GAINS},
    }


def build_document(
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
    ordered = sorted(runs, key=run_order)
    kept = latest_version(ordered)
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
    return ranking_document(kept, experiment, " | ".join(fingerprints), _code(kept), missing)


def _mixed_data(runs: Sequence[Logged]) -> str:
    """Datasets of which runs read more than one version, in words; empty without any."""
    read: dict[str, set[str]] = {}
    for run in runs:
        data, _, edge = run.data.partition("+")
        name = part_label(run.spec["dataset"])
        read.setdefault(name, set()).update({data} - {""})
        read.setdefault(f"the edge cases of {name}", set()).update({edge} - {""})
    return "; ".join(
        f"{name} ({', '.join(sorted(digests))})"
        for name, digests in sorted(read.items())
        if len(digests) > 1
    )


def _code(runs: Sequence[Logged]) -> dict[str, str]:
    """Plug-in → digest of its file, over all runs; several digests where it was changed in between."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for name, digest in run.code.items():
            seen.setdefault(name, set()).add(digest)
    return {name: " | ".join(sorted(digests)) for name, digests in sorted(seen.items())}


def latest_version(ordered: Sequence[Logged]) -> list[Logged]:
    """One run per id, and of runs whose spec is the same under several ids (a plug-in's version was
    raised) today's.
    """
    groups: dict[str, dict[str, Logged]] = {}
    for run in ordered:
        groups.setdefault(_dump(run.spec), {}).setdefault(run.id, run)
    kept = []
    for versions in groups.values():
        current = next(iter(versions))
        if len(versions) > 1:
            current = max(
                versions, key=lambda found: found == spec_from_json(versions[found].spec).id
            )
        kept.append(versions[current])
    return kept


def _twins(runs: Sequence[Logged]) -> Callable[[Cell], Twins]:
    """Cell → its clean twins: the undefended dormant runs of the same setting whose stages, the
    trigger's, are among the cell's, over the cell's seeds.
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
            seed, rate = int(run.spec["seed"]), number_or_none(run.metrics.get(f"final/{SUCCESS}"))
            if _dump(run.spec["attack"]) in own and seed in cell.seeds and rate is not None:
                final[seed], by_round[seed] = rate, dict(_success(run))
        return Twins(final, by_round)

    return of


def _lifetime(cell: Cell, twins: Twins) -> Document:
    """How long the backdoor takes and lasts in the mean over the seeds that say so, and in how many
    of them it was still active at the end.
    """
    schedule = (
        int(cell.spec["attack_start"]),
        cell.spec["attack_stop"],
        int(cell.spec["attack_every"]),
    )
    spans = [
        (seed, finals.lifetime(rates, twins.by_round.get(seed, {}), *schedule))
        for seed, rates in cell.success.items()
    ]
    figures = {
        name: figure_over_seeds({seed: span[name] for seed, span in spans if name in span})
        for name in LIFETIME
    }
    active = [span["still_active"] for _, span in spans if "still_active" in span]
    return {
        **{name: interval_of(figure) for name, figure in figures.items()},
        "planted_seeds": sum("time_to_backdoor" in span for _, span in spans),
        "still_active": int(sum(active)) if active else None,
    }


def _peak(cell: Cell, seeds: Sequence[int]) -> float | None:
    """The largest attack success of a run, in the mean over the seeds; None where a run's rounds
    are not known.
    """
    highest = [
        max((rate for _, rate in cell.success.get(seed, ())), default=None) for seed in seeds
    ]
    known = [rate for rate in highest if rate is not None]
    return math.fsum(known) / len(known) if len(known) == len(seeds) else None


def _judged(cell: Cell, undefended: Cell | None, twins: Twins) -> tuple[bool | None, str | None]:
    """Whether the cell's attack bites, and if not, why: a sentence. (None, None) where the runs
    that tell are not there, or where the attack has no success to measure.
    """
    if cell.attack == NOTHING["attack"]:
        return None, None
    if not cell.seeds:
        return False, "no malicious client took part in an attacked round"
    if undefended is None or not undefended.values[SUCCESS]:
        return None, None
    reached = undefended.values[SUCCESS]
    for others, name in (
        (undefended.values[UNTRIGGERED], "the same inputs without the trigger"),
        (twins.final, "its clean twin"),
    ):
        both = sorted(reached.keys() & others.keys())
        if not both:
            continue
        ours, theirs = (
            math.fsum(rates[seed] for seed in both) / len(both) for rates in (reached, others)
        )
        if ours - theirs < finals.BITE:
            peak = _peak(undefended, both)
            faded = (
                cell.spec["attack_stop"] is not None
                and peak is not None
                and peak - theirs >= finals.BITE
            )
            before = f" at the end, after {percent(peak)} % while it attacked" if faded else ""
            return (
                False,
                f"under FedAvg it has {percent(ours)} %{before}, {name} {percent(theirs)} %",
            )
    return (True, None) if twins.final else (None, None)


def ranking_document(
    runs: Sequence[Logged],
    experiment: str,
    fingerprint: str,
    code: Mapping[str, str],
    missing: Sequence[Mapping[str, str]],
) -> Document:
    """The leaderboard's document of ordered runs of one fingerprint."""
    cells = _cells([run for run in runs if not run.spec.get("dormant")])
    twins = _twins(runs)
    by_place = {(cell.setting, cell.attack, cell.defense): cell for cell in cells}
    figures: dict[tuple[str, str, str], dict[str, Figure | None]] = {}
    verdicts: dict[tuple[str, str, str], tuple[bool | None, str | None]] = {}
    for place, cell in by_place.items():
        undefended = by_place.get((cell.setting, cell.attack, NOTHING["defense"]))
        own = {name: figure_over_seeds(cell.values[name]) for name in FIGURES}
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
                "dataset": part_label(cell.spec["dataset"]),
                "model": part_label(cell.spec["model"]),
                "setting": cell.setting,
                "attack": cell.attack,
                "defense": cell.defense,
                "attack_stages": stages_of(cell.spec["attack"]),
                "defense_stages": stages_of(cell.spec["defense"]),
                "seeds": list(cell.seeds),
                "knows": plugins.knows(stage["name"] for stage in cell.spec["attack"]),
                **_scores(figures[place]),
                UNTRIGGERED: interval_of(figure_over_seeds(cell.values[UNTRIGGERED])),
                "natural_success": interval_of(figure_over_seeds(twins(cell).final)),
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
                "metrics": finite_metrics(run.metrics),
                "data": run.data,
                "success_by_round": [list(point) for point in _success(run)],
            }
            for run in runs
        ],
    }


def _rows(
    cells: Sequence[Cell],
    ranked: Sequence[Cell],
    figures: Mapping[tuple[str, str, str], Mapping[str, Figure | None]],
) -> list[Document]:
    """A row for each defense that met an attack; its figures are over the ``ranked`` among its
    cells.
    """
    attacked = [cell for cell in cells if cell.attack != NOTHING["attack"]]
    everything = {(cell.setting, cell.attack) for cell in attacked}
    rows = []
    for defense in sorted({cell.defense for cell in attacked}):
        met = [cell for cell in attacked if cell.defense == defense]
        own = [
            cell for cell in ranked if cell.defense == defense and cell.attack != NOTHING["attack"]
        ]
        clean = [
            cell for cell in cells if cell.defense == defense and cell.attack == NOTHING["attack"]
        ]
        scores = [figures[cell.setting, cell.attack, cell.defense] for cell in own]
        worst: list[tuple[float, str]] = []
        for cell, score in zip(own, scores, strict=True):
            success = score["attack_success_rate"]
            if success is not None:
                worst.append((-success.mean, cell.attack))
        unscathed = average(
            figures[cell.setting, cell.attack, cell.defense]["clean_accuracy"] for cell in clean
        )
        rows.append(
            {
                "rank": 0,
                "defense": defense,
                "defense_stages": stages_of(met[0].spec["defense"]),
                "needs": plugins.needs(stage["name"] for stage in met[0].spec["defense"]),
                "attacks": sorted({cell.attack for cell in own}),
                "left_out": sorted({cell.attack for cell in met} - {cell.attack for cell in own}),
                "seeds": sorted({seed for cell in own for seed in cell.seeds}),
                **_scores(
                    {name: average(score[name] for score in scores) for name in (*FIGURES, *GAINS)}
                ),
                "worst_attack": min(worst)[1] if worst else None,
                "worst_attack_success_rate": -min(worst)[0] if worst else None,
                "no_attack_accuracy": interval_of(unscathed),
                "missing": len(everything - {(cell.setting, cell.attack) for cell in met}),
                "diverged": sum(cell.diverged for cell in (*own, *clean)),
            }
        )
    rows.sort(key=rank_key)
    return [row | {"rank": place} for place, row in enumerate(rows, 1)]


def rank_key(row: Mapping[str, Any]) -> tuple[float, float, str]:
    """Mean DER from high to low, worst attack's success from low to high, name; a figure that is
    missing comes last.
    """
    score, success = row["der"], row["worst_attack_success_rate"]
    return (
        math.inf if score is None else -score,
        math.inf if success is None else success,
        row["defense"],
    )
