"""The board of attacks that only do damage: what they cost, not how often they succeed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backstop.platform.results.figures.cells import ACCURACY
from backstop.platform.results.figures.means import Estimate, SeedValues, share_of
from backstop.platform.results.figures.scored import (
    COST_UNDER_ATTACK,
    UNDISTURBED,
    ScoredCell,
    mean_over_board,
)
from backstop.platform.results.figures.worst import worst_attack
from backstop.platform.results.leaderboard.rows import defense_fields
from backstop.platform.results.leaderboard.standings import Contender, placed_rows


def untargeted_rows(scored: Sequence[ScoredCell]) -> list[dict[str, Any]]:
    """A row for each defense that met an attack that says of no success what it is, by the accuracy
    that the worst of them takes beside FedAvg without any attack.
    """
    harmed = [item for item in scored if item.cell.attacked and not item.cell.targeted]
    defenses = sorted({item.cell.key.defense for item in harmed})
    scenes = {item.cell.key.scene for item in harmed}
    contenders = []
    for defense in defenses:
        own = [item for item in harmed if item.cell.key.defense == defense]
        clean = [item for item in scored if _is_clean(item, defense)]
        contenders.append(_contender(own, clean, len(scenes)))
    return placed_rows(contenders)


def _is_clean(item: ScoredCell, defense: str) -> bool:
    return item.cell.key.defense == defense and not item.cell.attacked


def _lost(item: ScoredCell) -> SeedValues:
    return item.by_seed.get(COST_UNDER_ATTACK, {})


def _contender(
    harmed: Sequence[ScoredCell],
    clean: Sequence[ScoredCell],
    scene_count: int,
) -> Contender:
    worst = worst_attack(harmed, _lost)
    score = None if worst is None else _complement(worst.harm)
    fields = {
        **defense_fields(harmed[0].cell),
        "attacks": sorted({item.cell.key.attack for item in harmed}),
        "families": sorted({item.cell.attack_family for item in harmed}),
        "accuracy_lost": share_of(mean_over_board(harmed, COST_UNDER_ATTACK)),
        "worst_accuracy_lost": share_of(worst and worst.harm),
        "worst_attack": worst and worst.attack,
        ACCURACY: share_of(mean_over_board(harmed, ACCURACY)),
        UNDISTURBED: share_of(mean_over_board(clean, ACCURACY)),
        "missing": scene_count - len(harmed),
        "diverged": sum(len(item.cell.diverged) for item in (*harmed, *clean)),
    }
    obstacle = "FedAvg has not run without an attack" if score is None else None
    return Contender(fields, score, obstacle)


def _complement(lost: Estimate) -> Estimate:
    by_seed = {seed: 1 - value for seed, value in lost.by_seed.items()}
    return Estimate(1 - lost.mean, by_seed)
