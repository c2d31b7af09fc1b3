"""What searches have chosen, kept with their sweep's run, so that a board needs the store alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform.results.tracking.description import TAG_LIMIT
from backstop.platform.results.tracking.store import Store, mlflow_client, refusing, search_runs

SEARCHED = "backstop.searched"  # how many tags SEARCHED.0, SEARCHED.1 … hold what was searched
NOTE = "mlflow.note.content"
NO_METRIC_NAME = re.compile(r"[^\w.\- /]")  # what MLflow allows in no name


class Searched(NamedTuple):
    """What one search has chosen, and how hard it looked."""

    side: str  # whose parameters were searched: attack or defense
    ids: tuple[str, ...]  # of the runs that confirm it: test set, seeds that the search never saw
    trials: int
    seeds: int  # for each proposal
    objective: str


def write_searched(
    store: Store,
    run_id: str,
    searched: Sequence[Searched],
) -> None:
    """Write it into a sweep's run. What an earlier sweep of the space chose otherwise stays beside
    it, so that no board takes those runs for attacks and defenses of a list.
    """
    with refusing(store):
        client = mlflow_client(store.uri)
        earlier = _searched_in(client.get_run(run_id).data.tags)
        kept = [*searched, *_chosen_otherwise(earlier, searched)]
        text = json.dumps([searched_to_json(item) for item in kept], separators=(",", ":"))
        pieces = [text[start : start + TAG_LIMIT] for start in range(0, len(text), TAG_LIMIT)]
        for index, piece in enumerate(pieces):
            client.set_tag(run_id, f"{SEARCHED}.{index}", piece)
        client.set_tag(run_id, SEARCHED, str(len(pieces)))


def _chosen_otherwise(
    earlier: Sequence[Searched],
    searched: Sequence[Searched],
) -> list[Searched]:
    """What earlier searches chose and these have not chosen again."""
    chosen = {spec_id for item in searched for spec_id in item.ids}
    return [item for item in earlier if not chosen.issuperset(item.ids)]


def read_searched(store: Store, experiment: str) -> list[Searched]:
    """What all searches of an experiment have chosen; nothing where there was none."""
    searched: list[Searched] = []
    with refusing(store):
        known = mlflow_client(store.uri).get_experiment_by_name(experiment)
        if known is None:
            return []
        condition = "tags.`backstop.kind` = 'sweep'"
        for sweep in search_runs(store, known.experiment_id, condition):
            searched += _searched_in(sweep.data.tags)
    return searched


def _searched_in(tags: Mapping[str, str]) -> list[Searched]:
    count = int(tags.get(SEARCHED, "0"))
    text = "".join(tags.get(f"{SEARCHED}.{index}", "") for index in range(count))
    return [searched_from_json(item) for item in json.loads(text or "[]")]


def searched_to_json(item: Searched) -> dict[str, Any]:
    """As JSON holds it, and a leaderboard's document."""
    return {**item._asdict(), "ids": list(item.ids)}


def searched_from_json(item: Mapping[str, Any]) -> Searched:
    """What :func:`searched_to_json` made of it."""
    return Searched(**{**item, "ids": tuple(item["ids"])})


def write_best(
    store: Store,
    run_id: str,
    best: Mapping[str, float],
    note: str,
) -> None:
    """Write the best values of a sweep's searches as metrics, and a table of them as its note."""
    with refusing(store):
        client = mlflow_client(store.uri)
        for name, value in best.items():
            client.log_metric(run_id, NO_METRIC_NAME.sub("_", name), value)
        client.set_tag(run_id, NOTE, note[:TAG_LIMIT])
