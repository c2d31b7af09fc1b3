"""The share of attackers from which on a defense is broken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backstop.platform.results.figures.cells import json_text, setting_fields
from backstop.platform.results.figures.scored import EXCESS, ScoredCell, mean_over_board

BROKEN = 0.5  # mean excess success from which on a defense counts as broken
ShareAndExcess = tuple[float, float]  # share of malicious clients, mean E


def break_even_shares(scored: Iterable[ScoredCell]) -> dict[str, float]:
    """Defense → the least share of malicious clients at which its mean E reaches one half, between
    two shares on a straight line; none where it never does or where no two settings differ in the
    share alone. Only attacks that it met at every share are compared.
    """
    groups: dict[tuple[str, str], list[ScoredCell]] = {}
    for item in scored:
        if item.cell.targeted and item.by_seed[EXCESS]:
            groups.setdefault((item.cell.key.defense, _task(item)), []).append(item)
    shares: dict[str, float] = {}
    for (defense, _), members in groups.items():
        share = _reached_at(_points(members))
        if share is not None:
            shares[defense] = min(share, shares.get(defense, share))
    return shares


def _task(item: ScoredCell) -> str:
    """A setting but for its share of malicious clients."""
    fields = setting_fields(item.cell.spec)
    return json_text({key: value for key, value in fields.items() if key != "malicious"})


def _points(members: Sequence[ScoredCell]) -> list[ShareAndExcess]:
    """Mean E by share, of the attacks that are there at every share."""
    by_share: dict[float, list[ScoredCell]] = {}
    for item in members:
        by_share.setdefault(float(item.cell.spec["malicious"]), []).append(item)
    attacks = [{item.cell.key.attack for item in cells} for cells in by_share.values()]
    common = set.intersection(*attacks)
    return sorted(_mean_by_share(by_share, common).items())


def _mean_by_share(
    by_share: Mapping[float, Sequence[ScoredCell]],
    attacks: set[str],
) -> dict[float, float]:
    means = {}
    for share, cells in by_share.items():
        mean = mean_over_board([item for item in cells if item.cell.key.attack in attacks], EXCESS)
        if mean is not None:
            means[share] = mean.mean
    return means


def _reached_at(points: Sequence[ShareAndExcess]) -> float | None:
    """Where a line through at least two points first reaches :data:`BROKEN`.

    >>> _reached_at([(0.1, 0.25), (0.2, 0.75)]), _reached_at([(0.1, 0.7), (0.2, 0.9)])
    (0.15000000000000002, 0.1)
    """
    if len(points) < 2:
        return None
    before: ShareAndExcess | None = None
    for share, excess in points:
        if excess >= BROKEN:
            return share if before is None else _between(before, (share, excess))
        before = (share, excess)
    return None


def _between(below: ShareAndExcess, above: ShareAndExcess) -> float:
    (low, low_excess), (high, high_excess) = below, above
    return low + (high - low) * (BROKEN - low_excess) / (high_excess - low_excess)
