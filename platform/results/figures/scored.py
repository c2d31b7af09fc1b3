"""A cell beside those that it is compared with, seed by seed.

With FedAvg's cells of the same setting and seed, under the same attack and without any:

    asr_reduction = ASR(fedavg, attack) - ASR(defense, attack)
    accuracy_cost = accuracy(fedavg, attack) - accuracy(defense, attack)
    DER = (max(0, asr_reduction) - max(0, accuracy_cost) + 1) / 2
    E = max(0, ASR(defense, attack) - natural) / (1 - natural)
    cost = max(0, accuracy(fedavg, none) - accuracy(defense, attack or none))

where natural is the attack success of the dormant twin behind the same defense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from backstop.platform.results.figures.bite import Verdict, judge_attack
from backstop.platform.results.figures.cells import (
    ACCURACY,
    FIGURES,
    START,
    SUCCESS,
    UNTRIGGERED,
    Cell,
    CellKey,
)
from backstop.platform.results.figures.means import (
    Estimate,
    SeedValues,
    average,
    common_seeds,
    estimate,
)
from backstop.platform.results.figures.twins import Twins
from backstop.platform.rounds import finals, scores
from backstop.platform.specs.part import NOTHING

EXCESS, NATURAL = "excess_success", "natural_success"
COST_UNDER_ATTACK, COST_WITHOUT_ATTACK = "cost_under_attack", "cost_without_attack"
RETAINED, UNDISTURBED = "learning_retained", "no_attack_accuracy"
GAINS = ("accuracy_cost", "asr_reduction", "der")
UNDER_ATTACK = (*FIGURES, *GAINS, EXCESS, COST_UNDER_ATTACK)
LEARNED = 0.01  # FedAvg must gain as much accuracy, or there is no learning to retain


class ScoredCell(NamedTuple):
    """A cell with its figures by seed and whether its attack bites."""

    cell: Cell
    twins: Twins
    by_seed: Mapping[str, SeedValues]  # figure → seed → value
    verdict: Verdict
    collapsed: tuple[int, ...]  # the seeds in which the attack leaves nothing of FedAvg

    def of(self, figure: str) -> Estimate | None:
        """A figure over the cell's seeds."""
        return estimate(self.by_seed.get(figure, {}))


class _Baselines(NamedTuple):
    """FedAvg's cells beside which a cell is scored, None where it has not run."""

    attacked: Cell | None
    undisturbed: Cell | None


def score_cells(
    cells: Iterable[Cell],
    by_key: Mapping[CellKey, Cell],
    twins_of: Callable[[Cell], Twins],
) -> list[ScoredCell]:
    """Each cell beside FedAvg's of its setting, which are among those by key."""
    return [_score(cell, _baselines(by_key, cell), twins_of) for cell in cells]


def _baselines(by_key: Mapping[CellKey, Cell], cell: Cell) -> _Baselines:
    attacked = cell.key._replace(defense=NOTHING["defense"])
    undisturbed = attacked._replace(attack=NOTHING["attack"])
    return _Baselines(by_key.get(attacked), by_key.get(undisturbed))


def _score(
    cell: Cell,
    baselines: _Baselines,
    twins_of: Callable[[Cell], Twins],
) -> ScoredCell:
    twins = twins_of(cell)
    bare = baselines.attacked
    judged_by = twins if bare is None else twins_of(bare)
    collapsed = _collapsed(baselines)
    by_seed = {
        **{name: cell.values[name] for name in (*FIGURES, UNTRIGGERED)},
        **_gains(cell, baselines, collapsed),
        **_costs(cell, baselines),
        EXCESS: _excess(cell, twins),
        NATURAL: twins.final,
    }
    return ScoredCell(
        cell,
        twins,
        by_seed,
        judge_attack(cell, bare, judged_by),
        tuple(sorted(collapsed.intersection(cell.seeds))),
    )


def _collapsed(baselines: _Baselines) -> set[int]:
    """The seeds in which FedAvg diverged or collapsed under the attack."""
    attacked, undisturbed = baselines
    if attacked is None or not attacked.attacked:
        return set()
    collapsed = set(attacked.diverged)
    if undisturbed is not None:
        starts = _fresh_starts(undisturbed)
        undisturbed_accuracy = undisturbed.values[ACCURACY]
        accuracy = attacked.values[ACCURACY]
        for seed in common_seeds([accuracy, undisturbed_accuracy]):
            start = starts.get(seed, 0.0)
            if scores.has_collapsed(accuracy[seed], undisturbed_accuracy[seed], start):
                collapsed.add(seed)
    return collapsed


def _fresh_starts(cell: Cell) -> SeedValues:
    """The accuracies of models that have learned nothing; a warm start is none of them."""
    return {} if starts_warm(cell) else cell.values[START]


def starts_warm(cell: Cell) -> bool:
    """Whether the model has been trained before the first round."""
    return bool(cell.spec["warmup"] or cell.spec["start"])


def _gains(
    cell: Cell,
    baselines: _Baselines,
    collapsed: AbstractSet[int],
) -> dict[str, SeedValues]:
    """What the defense costs and brings beside FedAvg under the same attack. DER is not told where
    FedAvg has collapsed: whoever stands still would be the better defense.
    """
    if baselines.attacked is None or not cell.attacked:
        return {}
    cost = _less(cell, baselines.attacked, ACCURACY)
    reduction = _less(cell, baselines.attacked, SUCCESS)
    der = {}
    for seed in common_seeds([cost, reduction]):
        if seed not in collapsed:
            der[seed] = float(finals.defense_effectiveness(reduction[seed], cost[seed]))
    return {
        "accuracy_cost": cost,
        "asr_reduction": reduction,
        "der": der,
    }


def _less(
    cell: Cell,
    baseline: Cell,
    metric: str,
) -> SeedValues:
    """By how much the figure is below the baseline's."""
    own = cell.values[metric]
    other = baseline.values[metric]
    return {seed: other[seed] - own[seed] for seed in common_seeds([own, other])}


def _excess(cell: Cell, twins: Twins) -> SeedValues:
    """E, of the seeds that have a clean twin."""
    if not cell.attacked:
        return {}
    success = cell.values[SUCCESS]
    seeds = common_seeds([success, twins.final])
    return {seed: scores.excess_success(success[seed], twins.final[seed]) for seed in seeds}


def _costs(cell: Cell, baselines: _Baselines) -> dict[str, SeedValues]:
    """The accuracy lost beside FedAvg without any attack, and without one also what is learned."""
    undisturbed = baselines.undisturbed
    if undisturbed is None:
        return {}
    lost = {}
    own, other = cell.values[ACCURACY], undisturbed.values[ACCURACY]
    for seed in common_seeds([own, other]):
        if seed not in undisturbed.diverged:  # nobody costs anything beside nothing
            lost[seed] = scores.missing_accuracy(other[seed], own[seed])
    if cell.attacked:
        return {COST_UNDER_ATTACK: lost}
    return {
        COST_WITHOUT_ATTACK: lost,
        RETAINED: _retained(cell, undisturbed),
    }


def _retained(cell: Cell, undisturbed: Cell) -> SeedValues:
    """The share of FedAvg's learning that the defense leaves, where FedAvg learns anything. Nothing
    where clients are measured: how the model starts is measured by the server, on other inputs.
    """
    if cell.spec.get("evaluate_by") == "clients":
        return {}
    own, other = cell.values[ACCURACY], undisturbed.values[ACCURACY]
    starts = undisturbed.values[START]
    retained = {}
    for seed in common_seeds([own, other, starts]):
        learned = other[seed] - starts[seed]
        if learned >= LEARNED:
            retained[seed] = (own[seed] - starts[seed]) / learned
    return retained


def mean_over_board(
    scored: Iterable[ScoredCell],
    figure: str,
) -> Estimate | None:
    """A figure in the mean over the attacks of a family, then over families, then over settings."""
    settings: dict[str, dict[str, list[Estimate | None]]] = {}
    for item in scored:
        families = settings.setdefault(item.cell.key.setting, {})
        families.setdefault(item.cell.attack_family, []).append(item.of(figure))
    return average(
        average(average(members) for members in families.values()) for families in settings.values()
    )
