"""The rows of a board: one for each defense, over the cells of the settings that the board has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform import plugins
from backstop.platform.results.figures.cells import ACCURACY, FIGURES, Cell, CellKey
from backstop.platform.results.figures.means import (
    Estimate,
    SeedValues,
    common_seeds,
    estimate,
    figure_of,
    share_of,
)
from backstop.platform.results.figures.names import stages_of
from backstop.platform.results.figures.scored import (
    COST_UNDER_ATTACK,
    COST_WITHOUT_ATTACK,
    EXCESS,
    GAINS,
    RETAINED,
    UNDISTURBED,
    ScoredCell,
    mean_over_board,
    starts_warm,
)
from backstop.platform.results.figures.worst import Worst, worst_attack
from backstop.platform.results.leaderboard.entries import ABSENT_FIELD
from backstop.platform.results.leaderboard.standings import Contender, placed_rows
from backstop.platform.rounds import scores
from backstop.platform.specs.part import NOTHING

ROW_FIGURES = (
    "score",
    EXCESS,
    "worst_excess",
    "worst_attack_success_rate",
    COST_UNDER_ATTACK,
    COST_WITHOUT_ATTACK,
    RETAINED,
    *FIGURES,
    UNDISTURBED,
    *GAINS,
    "worst_case_success",
)
SCORES = (-math.inf, 1.0)  # their bounds
RETAINED_AT_LEAST = 0.5  # of FedAvg's learning, or a row that starts warm is not ranked
RowFields = dict[str, Any]
SceneKey = tuple[str, str]  # setting and attack


class Board(NamedTuple):
    """The cells of a leaderboard, of one of its settings or of one of its defenses."""

    cells: Sequence[ScoredCell]
    searched: Sequence[ScoredCell] = ()  # under the attacks that a search has chosen
    trials: Mapping[CellKey, int] = {}  # of the searches, by the searched cells
    tuned: frozenset[str] = frozenset()  # defenses whose parameters a search has chosen
    joined: Mapping[str, str] = {}  # variant → the defense as which it stands with others

    def defenses(self) -> list[str]:
        """Those that met an attack that says what a success is."""
        scenes = self.scenes()
        met = [item for item in self.cells if item.cell.key.scene in scenes]
        return sorted({item.cell.key.defense for item in (*met, *self.searched)})

    def settings(self) -> list[str]:
        """Those in which somebody attacks, as they come; a search may have schedules of its own."""
        scenes = self.scenes()
        attacked = [item.cell for item in self.cells if item.cell.attacked]
        shown = [cell for cell in attacked if cell.key.scene in scenes or not cell.targeted]
        return list(dict.fromkeys(cell.key.setting for cell in shown))

    def scenes(self) -> set[SceneKey]:
        """Those in which a success can be measured, but for those in which FedAvg stands alone
        because a search has attacked somebody else so.
        """
        defended: set[SceneKey] = set()
        alone: set[SceneKey] = set()
        for item in self.cells:
            if item.cell.targeted:
                undefended = item.cell.key.defense == NOTHING["defense"]
                (alone if undefended else defended).add(item.cell.key.scene)
        searched = {item.cell.key.scene for item in self.searched}
        return defended | (alone - searched)

    def by_defense(self) -> dict[str, Board]:
        """Defense → what the board holds of it."""
        return self._parted(lambda key: key.defense)

    def by_setting(self) -> dict[str, Board]:
        """Setting → what the board holds of it."""
        return self._parted(lambda key: key.setting)

    def _parted(self, part_of: Callable[[CellKey], str]) -> dict[str, Board]:
        cells: dict[str, list[ScoredCell]] = {}
        searched: dict[str, list[ScoredCell]] = {}
        for item in self.cells:
            cells.setdefault(part_of(item.cell.key), []).append(item)
        for item in self.searched:
            searched.setdefault(part_of(item.cell.key), []).append(item)
        return {
            part: self._replace(cells=cells.get(part, []), searched=searched.get(part, []))
            for part in {**cells, **searched}
        }


class _Parts(NamedTuple):
    """A defense's cells by what they say of it."""

    clean: Sequence[ScoredCell]  # in the settings of the attacked ones
    quiet: Sequence[ScoredCell]  # without an attack too, in the settings of the searched ones
    attacked: Sequence[ScoredCell]
    counted: Sequence[ScoredCell]  # of the attacked ones those whose attack may do something
    searched: Sequence[ScoredCell]
    worst: Worst | None  # of the counted ones
    sought: Worst | None  # of the searched ones


def board_rows(board: Board) -> list[RowFields]:
    """The rows of a board in their order. The worst cases that a search has chosen count where
    every ranked defense was searched.
    """
    return _placed(_all_parts(board), board)


def board_estimates(board: Board) -> dict[str, dict[str, Estimate | None]]:
    """Defense → the figures of its row, with their values by seed."""
    return {_defense(parts): _estimates(parts) for parts in _all_parts(board)}


def _estimates(parts: _Parts) -> dict[str, Estimate | None]:
    measures = ("der", *FIGURES)
    return {
        "score": _score(parts),
        **{name: mean_over_board(parts.counted, name) for name in measures},
    }


def _all_parts(board: Board) -> list[_Parts]:
    """Each defense's cells and what counts as its worst attack."""
    scenes = board.scenes()
    by_defense = board.by_defense()
    parts = [_parts(by_defense[defense], scenes) for defense in board.defenses()]
    searched = {_defense(item) for item in parts if item.searched}
    if not searched:
        return parts
    ranked = {row["defense"] for row in _placed(parts, board) if row["rank"] is not None}
    if not ranked <= searched:
        return parts
    return [item._replace(worst=_worse(item.worst, item.sought)) for item in parts]


def _placed(parts: Sequence[_Parts], board: Board) -> list[RowFields]:
    scene_count = len(board.scenes())
    return placed_rows([_contender(item, board, scene_count) for item in parts])


def _defense(parts: _Parts) -> str:
    return (*parts.attacked, *parts.searched)[0].cell.key.defense


def _parts(board: Board, scenes: Container[SceneKey]) -> _Parts:
    unattacked = [item for item in board.cells if not item.cell.attacked]
    attacked = [item for item in board.cells if item.cell.key.scene in scenes]
    counted = [item for item in attacked if item.verdict.bites is not False]
    return _Parts(
        _in_settings_of(attacked or board.searched, unattacked),
        _in_settings_of(board.searched, unattacked),
        attacked,
        counted,
        board.searched,
        worst_attack(counted, _excess),
        worst_attack(board.searched, _excess),
    )


def _in_settings_of(
    others: Sequence[ScoredCell],
    cells: Iterable[ScoredCell],
) -> list[ScoredCell]:
    settings = {item.cell.key.setting for item in others}
    return [item for item in cells if item.cell.key.setting in settings]


def _worse(one: Worst | None, other: Worst | None) -> Worst | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda worst: worst.harm.mean)


def _contender(
    parts: _Parts,
    board: Board,
    scene_count: int,
) -> Contender:
    """The row of a defense, of ``scene_count`` scenes that any defense met."""
    cell = (*parts.attacked, *parts.searched)[0].cell
    score = _score(parts)
    attacks = _attacks(parts.counted)
    fields = {
        **defense_fields(cell),
        "attacks": sorted(attacks),
        "families": sorted({item.cell.attack_family for item in parts.counted}),
        "left_out": sorted(_attacks(parts.attacked) - attacks),
        **_seeds(parts.counted or parts.searched),
        "score": None if score is None else score.figure(SCORES),
        **_mean_fields(parts),
        **_worst_fields(parts.worst),
        **_searched_fields(parts, board.trials),
        "borrowed_twins": any(item.twins.borrowed for item in (*parts.counted, *parts.searched)),
        "missing": scene_count - len(parts.attacked),
        "diverged": sum(len(item.cell.diverged) for item in (*parts.counted, *parts.clean)),
        **_absent_adversaries((*parts.counted, *parts.searched)),
    }
    tuned = cell.key.defense in board.tuned
    return Contender(fields, score, _obstacle(parts, score), tuned)


def _mean_fields(parts: _Parts) -> RowFields:
    """The means over the board; of the searched attacks only where there are no others."""
    attacked = parts.counted if parts.attacked else parts.searched
    under_attack = (EXCESS, COST_UNDER_ATTACK, *FIGURES)
    return {
        **{name: share_of(mean_over_board(attacked, name)) for name in under_attack},
        **{name: figure_of(mean_over_board(attacked, name)) for name in GAINS},
        COST_WITHOUT_ATTACK: share_of(mean_over_board(parts.clean, COST_WITHOUT_ATTACK)),
        RETAINED: figure_of(mean_over_board(parts.clean, RETAINED)),
        UNDISTURBED: share_of(mean_over_board(parts.clean, ACCURACY)),
    }


def _excess(item: ScoredCell) -> SeedValues:
    return item.by_seed[EXCESS]


def _attacks(scored: Iterable[ScoredCell]) -> set[str]:
    return {item.cell.key.attack for item in scored}


def defense_fields(cell: Cell) -> RowFields:
    """What a row says of its defense."""
    stages = cell.spec["defense"]
    return {
        "defense": cell.key.defense,
        "defense_stages": stages_of(stages),
        "needs": plugins.needs(stage["name"] for stage in stages),
    }


def _seeds(scored: Sequence[ScoredCell]) -> RowFields:
    """The seeds that all cells have, which count, and those that only some of them have."""
    common = common_seeds(item.by_seed[ACCURACY] for item in scored)
    every = {seed for item in scored for seed in item.cell.seeds}
    return {
        "seeds": common,
        "uncounted_seeds": sorted(every.difference(common)),
    }


def _absent_adversaries(scored: Iterable[ScoredCell]) -> RowFields:
    """In how many of the runs each of several adversaries never attacked; nothing where all did."""
    runs: Counter[int] = Counter()
    for item in scored:
        runs.update({number: len(seeds) for number, seeds in item.cell.absent.items()})
    return {ABSENT_FIELD: {str(number): runs[number] for number in sorted(runs)}} if runs else {}


def _worst_fields(worst: Worst | None) -> RowFields:
    return {
        "worst_excess": share_of(worst and worst.harm),
        "worst_attack": worst and worst.attack,
        "worst_attack_success_rate": share_of(worst and worst.success),
    }


def _searched_fields(parts: _Parts, trials: Mapping[CellKey, int]) -> RowFields:
    """The worst case that a search has chosen, on seeds that it has not seen."""
    searched = {item.cell.key.attack: item.cell for item in parts.searched}
    worst = parts.sought
    if worst is None:
        fields = ("success", "attack", "stages", "budget")
        return dict.fromkeys(f"worst_case_{field}" for field in fields)
    cell = searched[worst.attack]
    return {
        "worst_case_success": share_of(worst.success),
        "worst_case_attack": worst.attack,
        "worst_case_stages": stages_of(cell.spec["attack"]),
        "worst_case_budget": trials.get(cell.key),
    }


def _score(parts: _Parts) -> Estimate | None:
    """The score, seed by seed; None where no excess or no cost is known."""
    if parts.worst is None:
        return None
    excess = parts.worst.harm
    under = _filled(
        mean_over_board(parts.counted, COST_UNDER_ATTACK),
        mean_over_board(parts.searched, COST_UNDER_ATTACK),
    )
    without = _filled(
        mean_over_board(parts.clean, COST_WITHOUT_ATTACK),
        mean_over_board(parts.quiet, COST_WITHOUT_ATTACK),
    )
    costs = [cost for cost in (under, without) if cost is not None]
    if not costs:
        return None
    by_seed = {}
    for seed in common_seeds(part.by_seed for part in (excess, *costs)):
        cost = max(part.by_seed[seed] for part in costs)
        by_seed[seed] = scores.defense_score(excess.by_seed[seed], cost)
    mean = scores.defense_score(excess.mean, max(part.mean for part in costs))
    return estimate(by_seed) or Estimate(mean, {})


def _filled(first: Estimate | None, second: Estimate | None) -> Estimate | None:
    """The first, and the second for seeds that the first does not have."""
    if first is None or second is None:
        return first or second
    return Estimate(first.mean, {**second.by_seed, **first.by_seed})


def _obstacle(parts: _Parts, score: Estimate | None) -> str | None:
    """Why a row cannot be ranked; None where it can."""
    if not parts.counted and not parts.searched:
        return "no attack on it does anything"
    if parts.worst is None:
        return "what its attacks' inputs achieve without an attack is not known"
    if score is None:
        return "FedAvg has not run without an attack"
    warm = [item for item in parts.clean if starts_warm(item.cell)]
    retained = mean_over_board(warm, RETAINED)
    if retained is not None and retained.mean < RETAINED_AT_LEAST:
        return f"it retains {100 * retained.mean:.0f} % of what FedAvg learns from a warm start"
    return None
