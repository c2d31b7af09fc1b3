"""Variants of a defense that never meet in one setting, as one defense: one that is told the number
of attackers, say, has another f wherever there are others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from backstop.platform.results.figures.cells import Cell, CellKey, family_of
from backstop.platform.results.figures.names import Json, Stages, chain_label
from backstop.platform.results.figures.scored import ScoredCell
from backstop.platform.specs import notation

VARIES = "varies"  # stands for a parameter that has one value in each setting


def joined_variants(cells: Iterable[Cell], apart: Collection[str] = ()) -> dict[str, Stages]:
    """Defense → the stages under which it stands with the other variants of its family, of families
    with at least two and nowhere two in one setting. Variants named in ``apart`` keep theirs apart.
    """
    families: dict[str, dict[str, Stages]] = {}
    present: dict[tuple[str, str], str] = {}  # (family, setting) → variant
    side_by_side = set()
    for cell in cells:
        stages, defense = cell.spec["defense"], cell.key.defense
        family = family_of(stages)
        families.setdefault(family, {})[defense] = stages
        if present.setdefault((family, cell.key.setting), defense) != defense:
            side_by_side.add(family)
    joined: dict[str, Stages] = {}
    for family, variants in families.items():
        if len(variants) > 1 and family not in side_by_side and not variants.keys() & apart:
            joined |= dict.fromkeys(variants, _common_stages([*variants.values()]))
    return joined


def _common_stages(variants: Sequence[Stages]) -> Stages:
    """Stage by stage the parameters, with :data:`VARIES` for those that differ."""
    return [
        {"name": stages[0]["name"], "params": _common_params([stage["params"] for stage in stages])}
        for stages in zip(*variants, strict=True)
    ]


def _common_params(variants: Sequence[Json]) -> Json:
    common = {}
    for key in dict.fromkeys(key for params in variants for key in params):
        values = {notation.write(params[key]) if key in params else None for params in variants}
        common[key] = variants[0][key] if len(values) == 1 else VARIES
    return common


def joined_key(key: CellKey, joined: Mapping[str, Stages]) -> CellKey:
    """The key of a cell among the joined ones."""
    if key.defense not in joined:
        return key
    return key._replace(defense=chain_label(joined[key.defense], "defense"))


def join_cell(scored: ScoredCell, joined: Mapping[str, Stages]) -> ScoredCell:
    """A cell under the name and the stages of the defense that its variant belongs to."""
    cell = scored.cell
    if cell.key.defense not in joined:
        return scored
    spec = {**cell.spec, "defense": joined[cell.key.defense]}
    return scored._replace(cell=cell._replace(key=joined_key(cell.key, joined), spec=spec))
