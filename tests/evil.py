"""Runs whose every text is an attack on whatever shows them."""

from __future__ import annotations

from collections.abc import Sequence

from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.tracking.runs import Run

CODE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;"
MANY = 44  # runs


def evil(given: Sequence[Run]) -> tuple[Document, list[Run]]:
    """The leaderboard of spoilt runs, and they: the first of those that are attacked."""
    attacked = [item for item in given if item.spec["attack"] and not item.spec["dormant"]]
    spoilt_runs = [_spoilt(item) for item in attacked[:MANY]]
    return ranking.build_document(spoilt_runs, f"x{CODE}"), spoilt_runs


def _spoilt(item: Run) -> Run:
    spec = dict(item.spec)
    for role in ("attack", "defense"):
        spec[role] = [
            {"name": f"{stage['name']}{CODE}", "params": {f"a{CODE}": CODE, **stage["params"]}}
            for stage in spec[role]
        ]
    spec["dataset"] = {"name": CODE, "params": {CODE: CODE}}
    spec["model"] = {"name": CODE, "params": {}}
    metrics = {**item.metrics, f"final/{CODE.replace('/', '')}": 1.0}
    return item._replace(
        spec=spec,
        metrics=metrics,
        fingerprint=CODE,
        run_id=CODE,
    )
