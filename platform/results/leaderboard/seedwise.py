"""What a leaderboard's runs say seed by seed, so that rows are compared within each seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from backstop.platform.results.figures.cells import ACCURACY, SUCCESS
from backstop.platform.results.figures.means import SeedValues, common_seeds
from backstop.platform.results.figures.names import Json
from backstop.platform.results.figures.scored import COST_UNDER_ATTACK, EXCESS, ScoredCell
from backstop.platform.results.leaderboard.ranking import scored_board
from backstop.platform.results.leaderboard.rows import Board, SceneKey, board_estimates
from backstop.platform.results.leaderboard.verification import logged_runs
from backstop.platform.rounds import scores

BALANCE = "balance"  # of a cell: what the score would be of it alone
ROW_MEASURES = ("score", "der", SUCCESS, ACCURACY)  # of a row
CELL_MEASURES = (BALANCE, EXCESS, SUCCESS, ACCURACY)


class Paired(NamedTuple):
    """A measure of two rows or two cells over the seeds that both have."""

    seeds: list[int]
    first: list[float]
    second: list[float]


def board_of(document: Json) -> Board:
    """The scored cells of a document. Raises BadInput where its runs cannot be read."""
    board = scored_board(logged_runs(document), document.get("searched", ()))
    if _ranks_by_search(document):
        return board
    return board._replace(searched=())


def _ranks_by_search(document: Json) -> bool:
    """Whether the worst cases that a search has chosen count: every ranked row has one."""
    ranked = [row for row in document["rows"] if row["rank"] is not None]
    return bool(ranked) and all(row.get("worst_case_attack") for row in ranked)


def counted_cells(board: Board, defense: str) -> dict[SceneKey, ScoredCell]:
    """The cells that a row is the mean of: those whose attack is not known to do nothing."""
    scenes = board.scenes()
    counted = {}
    for item in board.cells:
        key = item.cell.key
        if key.defense == defense and key.scene in scenes and item.verdict.bites is not False:
            counted[key.scene] = item
    return counted


def row_values(
    board: Board,
    defense: str,
    scenes: Collection[SceneKey],
) -> dict[str, SeedValues]:
    """Measure → seed → value of a row that had met these scenes alone."""
    part = board.by_defense()[defense]
    kept = [item for item in part.cells if not item.cell.attacked or item.cell.key.scene in scenes]
    estimates = board_estimates(part._replace(cells=kept)).get(defense, {})
    values = {}
    for measure in ROW_MEASURES:
        estimate = estimates.get(measure)
        values[measure] = {} if estimate is None else estimate.by_seed
    return values


def cell_values(item: ScoredCell) -> dict[str, SeedValues]:
    """Measure → seed → value of a cell."""
    excess, cost = (item.by_seed.get(name, {}) for name in (EXCESS, COST_UNDER_ATTACK))
    seeds = common_seeds([excess, cost])
    balance = {seed: scores.defense_score(excess[seed], cost[seed]) for seed in seeds}
    return {BALANCE: balance, **{name: item.by_seed.get(name, {}) for name in CELL_MEASURES[1:]}}


def pair_values(first: SeedValues, second: SeedValues) -> Paired:
    """The values of the seeds that both have."""
    seeds = common_seeds([first, second])
    return Paired(seeds, [first[seed] for seed in seeds], [second[seed] for seed in seeds])


def scene_weights(cells: Mapping[SceneKey, ScoredCell]) -> dict[SceneKey, float]:
    """What share each cell has of a mean over attacks of a family, then families, then settings."""
    families = {scene: (scene[0], item.cell.attack_family) for scene, item in cells.items()}
    attacks = Counter(families.values())
    of_setting = Counter(setting for setting, _ in attacks)
    return {
        scene: 1 / (len(of_setting) * of_setting[scene[0]] * attacks[family])
        for scene, family in families.items()
    }
