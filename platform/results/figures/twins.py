"""Clean twins: what triggered inputs achieve where nobody attacks, behind the same defense."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from backstop.platform.results.figures.cells import (
    SUCCESS,
    Cell,
    CellKey,
    Logged,
    cell_key,
    curve_of,
    final_figure,
    json_text,
    seed_of,
)
from backstop.platform.results.figures.means import SeedValues
from backstop.platform.results.figures.names import Json
from backstop.platform.specs.part import NOTHING


class Twins(NamedTuple):
    """What triggered inputs achieve against models that nobody attacked: the dormant runs of a
    cell's trigger.
    """

    final: SeedValues
    by_round: Mapping[int, Mapping[int, float]]  # seed → round → attack success
    borrowed: tuple[int, ...]  # the seeds of a defended cell whose twin has no defense


class _Filed(NamedTuple):
    """A dormant run with what it says."""

    run: Logged
    success: float


# a cell without its attack's name: (setting, trigger, defense) → seed → dormant run
_Index = dict[tuple[str, str, str], dict[int, _Filed]]


def twins_by_cell(runs: Iterable[Logged]) -> Callable[[Cell], Twins]:
    """Cell → its clean twins: the dormant runs of the same setting, seed and defense whose stages,
    the trigger's, are among the cell's. Where a seed has none behind the same defense, the
    undefended one stands in.
    """
    index = _dormant_runs(runs)

    def twins_of(cell: Cell) -> Twins:
        own = _by_seed(index, cell, cell.key.defense)
        undefended = _by_seed(index, cell, NOTHING["defense"])
        both = {**undefended, **own}
        kept = {seed: both[seed] for seed in cell.seeds if seed in both}
        return Twins(
            final={seed: filed.success for seed, filed in kept.items()},
            by_round={seed: dict(curve_of(filed.run, SUCCESS)) for seed, filed in kept.items()},
            borrowed=tuple(seed for seed in kept if seed not in own),
        )

    return twins_of


def _dormant_runs(runs: Iterable[Logged]) -> _Index:
    index: _Index = {}
    for run in runs:
        success = final_figure(run, SUCCESS)
        if not run.spec.get("dormant") or success is None:
            continue
        key: CellKey = cell_key(run.spec)
        trigger = json_text(run.spec["attack"])
        by_seed = index.setdefault((key.setting, trigger, key.defense), {})
        by_seed[seed_of(run)] = _Filed(run, success)
    return index


def _by_seed(
    index: _Index,
    cell: Cell,
    defense: str,
) -> dict[int, _Filed]:
    """The dormant runs of the cell's trigger behind a defense."""
    filed: dict[int, _Filed] = {}
    for trigger in _possible_triggers(cell.spec["attack"]):
        filed |= index.get((cell.key.setting, trigger, defense), {})
    return filed


def _possible_triggers(attack: Sequence[Json]) -> list[str]:
    """As JSON texts the chains that may be the trigger of an attack: each stage, and all of it."""
    single_stages = [json_text([stage]) for stage in attack]
    return [*single_stages, json_text(attack)]
