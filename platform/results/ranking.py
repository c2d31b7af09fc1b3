"""The leaderboard: a pure function of the logged runs. Select, score, rank.

A *cell* is one setting (everything but attack, defense and seed) under one attack and one defense,
over its seeds. A *row* is one defense over all its attacked cells. For a cell, with FedAvg's cell
of the same setting, attack and seeds:

    asr_reduction = ASR(fedavg) - ASR(defense)
    accuracy_cost = accuracy(fedavg) - accuracy(defense)
    DER = (max(0, asr_reduction) - max(0, accuracy_cost) + 1) / 2

so that FedAvg has 0.5 everywhere and a defense that removes the backdoor at no cost has more.

Sums are exact or of a fixed order and no generator of a library is used: the same runs give the
same bytes anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from backstop.platform import plugins
from backstop.platform.params import BadInput
from backstop.platform.results.bite import Verdict, judge_attack
from backstop.platform.results.cells import (
    ACCURACY,
    FIGURES,
    SUCCESS,
    UNTRIGGERED,
    Cell,
    Logged,
    Twins,
    gather_cells,
    run_order,
    setting_fields,
    success_curve,
    twins_by_cell,
)
from backstop.platform.results.document import SCHEMA, Document
from backstop.platform.results.figures import (
    Figure,
    average,
    figure_over_seeds,
    finite_metrics,
    interval_of,
    mean_of,
)
from backstop.platform.results.names import Json, part_label, stages_of
from backstop.platform.results.selection import (
    check_comparable,
    code_digests,
    fingerprints,
    latest_version,
    missing_runs,
)
from backstop.platform.results.unattacked import without_dormant
from backstop.platform.rounds import finals
from backstop.platform.specs.part import NOTHING

RULE = (
    "Final figures are the mean over the last 10 % of a run's evaluations (at least one)."
    " A row is the mean over the defense's attacked cells; accuracy_cost and asr_reduction are"
    " against undefended FedAvg under the same attack and the same seeds;"
    " DER = (max(0, asr_reduction) - max(0, accuracy_cost) + 1) / 2 for each cell."
    " Rows are ordered by mean DER, then the lowest attack success under the worst attack, then the"
    " name. Intervals: 95 %, bootstrap over seeds, paired, 2000 seeded draws."
    " natural_success is the attack success rate of the clean twin on the same triggered inputs;"
    " untriggered_target_rate is how often the attacked model gives the wanted label to the same"
    " inputs without the trigger. An attack is left out of the ranks where under undefended FedAvg"
    " its success is not 5 points above both, since then it did nothing that a defense could stop;"
    " a run in which no malicious client took part in an attacked round counts nowhere."
    " A diverged run counts; a figure that it lacks counts as accuracy 0 and attack success 1."
)
GAINS = ("accuracy_cost", "asr_reduction", "der")
LIFETIME = ("time_to_backdoor", "durability")

Figures = Mapping[str, Figure | None]


class ScoredCell(NamedTuple):
    """A cell with the figures of :data:`FIGURES` and :data:`GAINS` and whether its attack bites."""

    cell: Cell
    figures: Figures
    verdict: Verdict


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
    if not ordered:
        raise BadInput(f"experiment {experiment!r} holds no finished run; nothing to rank")
    ranked = latest_version(ordered)
    if not mix:
        check_comparable(ranked, experiment)
    return ranking_document(
        ranked,
        experiment,
        fingerprint=" | ".join(fingerprints(ranked)),
        code=code_digests(ranked),
        missing=missing_runs(ordered, planned or {}),
    )


def ranking_document(
    runs: Sequence[Logged],
    experiment: str,
    fingerprint: str,
    code: Mapping[str, str],
    missing: Sequence[Mapping[str, str]],
) -> Document:
    """The leaderboard's document of ordered runs of one fingerprint."""
    cells = gather_cells(without_dormant(runs))
    twins_of = twins_by_cell(runs)
    scored = _score(cells, twins_of)
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "fingerprint": fingerprint,
        "code": dict(code),
        "rule": RULE,
        "missing_runs": [dict(item) for item in missing],
        "settings": {cell.key.setting: setting_fields(cell.spec) for cell in cells},
        "rows": _rows(scored),
        "cells": [_cell_entry(item, twins_of(item.cell)) for item in scored],
        "runs": [_run_entry(run) for run in runs],
    }


def _score(cells: Sequence[Cell], twins_of: Callable[[Cell], Twins]) -> list[ScoredCell]:
    """Each cell beside undefended FedAvg's under the same attack."""
    by_key = {cell.key: cell for cell in cells}
    scored = []
    for cell in cells:
        undefended = by_key.get(cell.key._replace(defense=NOTHING["defense"]))
        verdict = judge_attack(cell, undefended, twins_of(undefended or cell))
        scored.append(ScoredCell(cell, _figures(cell, undefended), verdict))
    return scored


def _figures(cell: Cell, baseline: Cell | None) -> dict[str, Figure | None]:
    """The cell's own figures and its gains, which are None without a baseline."""
    figures = {name: figure_over_seeds(cell.values[name]) for name in FIGURES}
    if baseline is None:
        return figures | dict.fromkeys(GAINS)
    return figures | _gains(cell, baseline)


def _gains(cell: Cell, baseline: Cell) -> dict[str, Figure | None]:
    """What the defense costs and brings against the baseline over the seeds that both have."""
    cost = _less(cell, baseline, ACCURACY)
    reduction = _less(cell, baseline, SUCCESS)
    return {
        "accuracy_cost": cost,
        "asr_reduction": reduction,
        "der": _effectiveness(reduction, cost),
    }


def _effectiveness(reduction: Figure | None, cost: Figure | None) -> Figure | None:
    """DER, draw by draw; None where one of its two parts is missing."""
    if reduction is None or cost is None:
        return None
    mean = finals.defense_effectiveness(reduction.mean, cost.mean)
    draws = finals.defense_effectiveness(reduction.draws, cost.draws)
    return Figure(float(mean), draws)


def _less(
    cell: Cell,
    baseline: Cell,
    metric: str,
) -> Figure | None:
    """By how much the figure is below the baseline's."""
    own = cell.values[metric]
    other = baseline.values[metric]
    common = own.keys() & other.keys()
    return figure_over_seeds({seed: other[seed] - own[seed] for seed in common})


def _scores(figures: Figures) -> Document:
    """The fields that cells and rows share."""
    return {
        **{name: interval_of(figures[name]) for name in FIGURES},
        **{name: mean_of(figures[name]) for name in GAINS},
        "intervals": {name: interval_of(figures[name]) for name in GAINS},
    }


def _cell_entry(scored: ScoredCell, twins: Twins) -> Document:
    """A cell as the document holds it."""
    cell = scored.cell
    return {
        **_cell_spec(cell),
        "seeds": list(cell.seeds),
        "knows": plugins.knows(stage["name"] for stage in cell.spec["attack"]),
        **_scores(scored.figures),
        UNTRIGGERED: interval_of(figure_over_seeds(cell.values[UNTRIGGERED])),
        "natural_success": interval_of(figure_over_seeds(twins.final)),
        **_lifetime(cell, twins),
        "bites": scored.verdict.bites,
        "left_out": scored.verdict.reason,
        "unattacked_seeds": list(cell.unattacked),
        "diverged": cell.diverged,
    }


def _cell_spec(cell: Cell) -> Document:
    """What was run in a cell."""
    spec = cell.spec
    return {
        "dataset": part_label(spec["dataset"]),
        "model": part_label(spec["model"]),
        **cell.key._asdict(),
        "attack_stages": stages_of(spec["attack"]),
        "defense_stages": stages_of(spec["defense"]),
    }


def _lifetime(cell: Cell, twins: Twins) -> Document:
    """How long the backdoor takes and lasts in the mean over the seeds that say so, and in how many
    of them it was still active at the end.
    """
    spans = _spans(cell, twins)
    planted = [span for span in spans.values() if "time_to_backdoor" in span]
    active = [span["still_active"] for span in planted if "still_active" in span]
    return {
        **{name: interval_of(_mean_span(spans, name)) for name in LIFETIME},
        "planted_seeds": len(planted),
        "still_active": int(sum(active)) if active else None,
    }


def _spans(cell: Cell, twins: Twins) -> dict[int, dict[str, float]]:
    """Seed → how long its backdoor takes and lasts."""
    spec = cell.spec
    schedule = (spec["attack_start"], spec["attack_stop"], spec["attack_every"])
    spans = {}
    for seed, rates in cell.success.items():
        twin = twins.by_round.get(seed, {})
        spans[seed] = finals.lifetime(rates, twin, *schedule)
    return spans


def _mean_span(spans: Mapping[int, Mapping[str, float]], name: str) -> Figure | None:
    """The mean over the seeds that have such a span."""
    known = {seed: span[name] for seed, span in spans.items() if name in span}
    return figure_over_seeds(known)


def _run_entry(run: Logged) -> Document:
    """A run as the document holds it."""
    return {
        "id": run.id,
        "spec": dict(sorted(run.spec.items())),
        "metrics": finite_metrics(run.metrics),
        "data": run.data,
        "success_by_round": [list(point) for point in success_curve(run)],
    }


def _rows(scored: Sequence[ScoredCell]) -> list[Document]:
    """A row for each defense that met an attack, by rank."""
    attacked = _attacked(scored)
    scenes = {item.cell.key.scene for item in attacked}
    defenses = {item.cell.key.defense for item in attacked}
    rows = []
    for defense in defenses:
        own = [item for item in scored if item.cell.key.defense == defense]
        rows.append(_row(own, len(scenes)))
    rows.sort(key=rank_key)
    for rank, row in enumerate(rows, 1):
        row["rank"] = rank
    return rows


def _row(scored: Sequence[ScoredCell], scene_count: int) -> Document:
    """The row of a defense with these cells, of ``scene_count`` pairs of setting and attack that
    any defense met. Its figures are over the cells whose attack is not known to do nothing.
    """
    clean = [item for item in scored if not item.cell.attacked]
    attacked = _attacked(scored)
    ranked = [item for item in attacked if item.verdict.bites is not False]
    attacks = _attacks(ranked)
    return {
        "rank": 0,
        **_defense_fields(attacked[0].cell),
        "attacks": sorted(attacks),
        "left_out": sorted(_attacks(attacked) - attacks),
        "seeds": _all_seeds(ranked),
        **_scores(_mean_figures(ranked)),
        **_worst(ranked),
        "no_attack_accuracy": interval_of(_mean_figure(clean, ACCURACY)),
        "missing": scene_count - len(attacked),
        "diverged": sum(item.cell.diverged for item in (*ranked, *clean)),
    }


def _attacked(scored: Iterable[ScoredCell]) -> list[ScoredCell]:
    """The cells that have an attack at all."""
    return [item for item in scored if item.cell.attacked]


def _attacks(scored: Iterable[ScoredCell]) -> set[str]:
    return {item.cell.key.attack for item in scored}


def _all_seeds(scored: Iterable[ScoredCell]) -> list[int]:
    """The seeds of any of the cells."""
    seeds: set[int] = set()
    for item in scored:
        seeds.update(item.cell.seeds)
    return sorted(seeds)


def _mean_figures(scored: Sequence[ScoredCell]) -> Figures:
    """Each figure over the cells that have it."""
    return {name: _mean_figure(scored, name) for name in (*FIGURES, *GAINS)}


def _mean_figure(scored: Iterable[ScoredCell], name: str) -> Figure | None:
    return average(item.figures[name] for item in scored)


def _defense_fields(cell: Cell) -> Document:
    """What a row says of its defense."""
    stages = cell.spec["defense"]
    return {
        "defense": cell.key.defense,
        "defense_stages": stages_of(stages),
        "needs": plugins.needs(stage["name"] for stage in stages),
    }


def _worst(ranked: Sequence[ScoredCell]) -> Document:
    """The attack that succeeds most; of several the first by name."""
    successes = []
    for item in ranked:
        success = item.figures[SUCCESS]
        if success is not None:
            successes.append((-success.mean, item.cell.key.attack))
    if not successes:
        return _worst_fields(None, None)
    negated, attack = min(successes)
    return _worst_fields(attack, -negated)


def _worst_fields(attack: str | None, success: float | None) -> Document:
    return {
        "worst_attack": attack,
        "worst_attack_success_rate": success,
    }


def rank_key(row: Json) -> tuple[float, float, str]:
    """Mean DER from high to low, worst attack's success from low to high, name; a figure that is
    missing comes last.
    """
    score, success = row["der"], row["worst_attack_success_rate"]
    return (
        math.inf if score is None else -score,
        math.inf if success is None else success,
        row["defense"],
    )
