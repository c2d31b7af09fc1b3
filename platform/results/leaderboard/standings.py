"""Who is ranked: one variant of each defense that has a score and learns; the others stand in their
order without a rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform.params import BadInput
from backstop.platform.results.figures.cells import family_of
from backstop.platform.results.figures.comparisons import Standing, places
from backstop.platform.results.figures.comparisons import standings as standings_of
from backstop.platform.results.figures.means import Estimate, common_seeds
from backstop.platform.results.figures.names import Json, stages_of
from backstop.platform.specs.part import Part, complete_part

REFERENCE = "to compare with"
VARIANT = "another variant is ranked"
REFERENCES = ("", "frozen")  # families of defenses that are shown to compare with: FedAvg is ""


class Contender(NamedTuple):
    """A row that is not ranked yet."""

    fields: dict[str, Any]
    score: Estimate | None
    obstacle: str | None = None  # why it is not ranked whatever its score, in words
    tuned: bool = False  # whether a search has chosen this variant on other data

    @property
    def defense(self) -> str:
        """The chain's text."""
        return str(self.fields["defense"])

    @property
    def family(self) -> str:
        """The chain's stages without their parameters."""
        return family_of(self.fields["defense_stages"])


def placed_rows(contenders: Sequence[Contender]) -> list[dict[str, Any]]:
    """The rows by score, each with its rank or with the reason why it has none."""
    chosen = _chosen_variants(contenders)
    unranked = {item.defense: _reason(item, chosen[item.family]) for item in contenders}
    scores = {}
    for item in contenders:
        if item.score is not None and unranked[item.defense] is None:
            scores[item.defense] = item.score
    ranks = ranks_of(scores)
    rows = []
    for item in sorted(contenders, key=_by_score):
        rank = ranks.get(item.defense)
        placed = {
            "rank": rank and rank.rank,
            "rank_low": rank and rank.low,
            "rank_high": rank and rank.high,
            "unranked": unranked[item.defense],
            "variant": chosen[item.family] != item.defense,
        }
        rows.append({**placed, **item.fields})
    return rows


def ranks_of(scores: Mapping[str, Estimate]) -> dict[str, Standing]:
    """Each name's rank by its score, over the seeds that all have; by the means alone, with every
    rank left open, where no seed is common to all.
    """
    seeds = common_seeds(score.by_seed for score in scores.values())
    if seeds:
        columns = [[score.by_seed[seed] for seed in seeds] for score in scores.values()]
        return dict(zip(scores, standings_of(columns), strict=True))
    by_mean = places(score.mean for score in scores.values())
    return {
        name: Standing(place.rank, 1, len(scores))
        for name, place in zip(scores, by_mean, strict=True)
    }


def is_reference(stages: Sequence[Json]) -> bool:
    """Whether a defense is only there to be compared with."""
    return family_of(stages) in REFERENCES


def _reason(item: Contender, chosen: str) -> str | None:
    """Why a row is not ranked; None where it is."""
    if is_reference(item.fields["defense_stages"]):
        return REFERENCE
    if item.obstacle is not None:
        return item.obstacle
    if item.defense != chosen:
        return VARIANT
    return None


def _by_score(item: Contender) -> tuple[float, str]:
    return (math.inf if item.score is None else -item.score.mean, item.defense)


def _chosen_variants(contenders: Sequence[Contender]) -> Mapping[str, str]:
    """Family → the variant that is ranked: what a search has chosen, else the one at its files'
    defaults, else the first by its text.
    """
    families: dict[str, list[Contender]] = {}
    for item in contenders:
        families.setdefault(item.family, []).append(item)
    return {
        family: min(members, key=_variant_order).defense for family, members in families.items()
    }


def _variant_order(item: Contender) -> tuple[bool, bool, str]:
    return not item.tuned, not _at_defaults(item.fields["defense_stages"]), item.defense


def _at_defaults(stages: Sequence[Json]) -> bool:
    """Whether every parameter of a chain is its file's default; False where a file is not here."""
    try:
        defaults = [complete_part(Part(stage["name"]), "defenses") for stage in stages]
    except BadInput:
        return False
    return stages_of([_as_json(part) for part in defaults]) == stages_of(stages)


def _as_json(part: Part) -> Json:
    return {"name": part.name, "params": part.params}
