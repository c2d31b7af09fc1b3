"""The leaderboard of an experiment's finished runs, with what else the store knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backstop.platform.params import BadInput
from backstop.platform.results.figures.cells import ACCURACY, ROUND_METRICS, SUCCESS
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.ranking import build_document
from backstop.platform.results.tracking.runs import Run, with_curves
from backstop.platform.results.tracking.searched import read_searched, searched_to_json
from backstop.platform.results.tracking.store import Store
from backstop.platform.results.tracking.sweeps import read_plan


class Ranked(NamedTuple):
    """A leaderboard, and the runs that it was made of with their curves."""

    document: Document
    runs: list[Run]


def rank_runs(
    store: Store,
    experiment: str,
    runs: Sequence[Run],
    *,
    mix: bool = False,
    planned: Mapping[str, str] | None = None,
) -> Ranked:
    """Rank the runs of an experiment as :func:`read_runs` gives them. ``planned``, spec id → the
    run in words, are runs that the caller knows of besides those that the store's sweeps planned.
    """
    if not runs:
        raise BadInput(f"experiment {experiment!r} has no finished run to rank")
    attacked = [run.id for run in runs if f"final/{SUCCESS}" in run.metrics]
    others = [run.id for run in runs if f"final/{SUCCESS}" not in run.metrics]
    curved = with_curves(store, runs, others, [f"round/{ACCURACY}"])
    curved = with_curves(store, curved, attacked, ROUND_METRICS)
    expected = {**read_plan(store, experiment), **(planned or {})}
    document = build_document(
        curved,
        experiment,
        mix=mix,
        planned=expected,
        searched=[searched_to_json(item) for item in read_searched(store, experiment)],
    )
    return Ranked(document, curved)
