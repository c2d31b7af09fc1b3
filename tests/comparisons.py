"""Runs beside those that a leaderboard compares them with: clean ones and clean twins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.tracking.runs import Run
from tests.boards import run

A, B = "badnets(size=3)", "label_flip(target=0)"


def figures(accuracy: float, success: float | None = None, **others: float) -> dict[str, float]:
    """Final figures of a run."""
    return {
        "clean_accuracy": accuracy,
        **({} if success is None else {"attack_success_rate": success}),
        **others,
    }


def clean(seeds: Iterable[int], defense: str = "fedavg", accuracy: float = 1.0) -> list[Run]:
    """Runs without an attack."""
    return [run("none", defense, seed, figures(accuracy)) for seed in seeds]


def twins(
    attack: str,
    seeds: Iterable[int],
    natural: float = 0.0,
    defense: str = "fedavg",
) -> list[Run]:
    """The clean twins of a trigger."""
    return [run(attack, defense, seed, figures(1.0, natural), dormant=True) for seed in seeds]


def attacked(
    attack: str,
    defense: str,
    successes: Sequence[float],
    accuracy: float = 1.0,
    **changes: Any,
) -> list[Run]:
    """A run for each seed from 0 on, with its attack success."""
    return [
        run(attack, defense, seed, figures(accuracy, success), **changes)
        for seed, success in enumerate(successes)
    ]


def duel(
    defenses: Mapping[str, Sequence[float]],
    attack: str = A,
    natural: float = 0.0,
) -> list[Run]:
    """Defense → its attack success by seed, under one attack that FedAvg lets through."""
    count = max(map(len, defenses.values()))
    seeds = range(count)
    listed = [
        *clean(seeds),
        *twins(attack, seeds, natural),
        *attacked(attack, "fedavg", [1.0] * count),
    ]
    for defense, successes in defenses.items():
        listed += attacked(attack, defense, successes)
    return listed


def board(runs: Iterable[Run], **given: Any) -> dict[str, Any]:
    """The document of the runs."""
    return ranking.build_document(runs, "x", **given)


def rows(document: Mapping[str, Any], block: str = "rows") -> dict[str, dict[str, Any]]:
    """Defense → row."""
    return {row["defense"]: row for row in document[block]}


def cell_of(
    document: Mapping[str, Any],
    attack: str,
    defense: str,
) -> dict[str, Any]:
    """A cell of the document."""
    (cell,) = (
        item for item in document["cells"] if (item["attack"], item["defense"]) == (attack, defense)
    )
    return dict(cell)
