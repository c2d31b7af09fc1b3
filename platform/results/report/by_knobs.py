"""Figures by the two knobs of ``invariant``: mask threshold τ and trim fraction."""

from __future__ import annotations

from backstop.platform.results.figures.names import Chain, Json, document_chains
from backstop.platform.results.leaderboard.document import Document

Knobs = tuple[float, float]  # τ, trim fraction


def knob_map(document: Document, metric: str) -> dict[Knobs, float]:
    """The mean of a metric in the best row at each pair of knobs; empty unless at least 2 × 2 are
    there.
    """
    rows = _rows_by_knobs(document)
    taus = {tau for tau, _ in rows}
    trims = {trim for _, trim in rows}
    if len(taus) < 2 or len(trims) < 2:
        return {}
    means = {}
    for knobs, row in rows.items():
        if row[metric] is not None:
            means[knobs] = row[metric]["mean"]
    return means


def _rows_by_knobs(document: Document) -> dict[Knobs, Json]:
    chains = document_chains(document)
    rows: dict[Knobs, Json] = {}
    for row in document["rows"]:
        knobs = knobs_of(chains[row["defense"]])
        if knobs is not None:
            rows.setdefault(knobs, row)
    return rows


def knobs_of(chain: Chain) -> Knobs | None:
    """The knobs of ``invariant`` alone; None of any other defense."""
    if [stage.name for stage in chain] != ["invariant"]:
        return None
    params = chain[0].params
    knobs = params.get("mask_threshold"), params.get("trim_fraction")
    match knobs:
        case int() | float() as tau, int() | float() as trim:
            return float(tau), float(trim)
        case _:
            return None
