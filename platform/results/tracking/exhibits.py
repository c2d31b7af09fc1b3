"""What the MLflow runs of an experiment's sweeps show: the leaderboard's files, a note and figures.

All of it may be written again: MLflow's parameters cannot be changed, so figures are metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backstop.platform import plugins
from backstop.platform.results.tracking.description import TAG_LIMIT
from backstop.platform.results.tracking.searched import NOTE, SEARCHED
from backstop.platform.results.tracking.store import Store, mlflow_client, refusing, search_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

BOARD_ARTIFACTS = "leaderboard"  # among a run's artifacts
BEST_TAG = "backstop.best"  # the tag that names the first defense


class Exhibit(NamedTuple):
    """A leaderboard as the run of a sweep shows it."""

    files: Sequence[Path]
    note: Callable[[str], str]  # the sweep's search space → Markdown
    figures: Mapping[str, float]
    best: str  # the first defense; empty where none is ranked


def exhibit_board(
    store: Store,
    experiment: str,
    exhibit: Exhibit,
) -> None:
    """Show a leaderboard in the runs of the sweeps that it was made from. Raises BadInput where the
    store does not take it.
    """
    with refusing(store):
        client = mlflow_client(store.uri)
        for sweep in _sweeps(store, experiment):
            run_id = str(sweep.info.run_id)
            for file in exhibit.files:
                client.log_artifact(run_id, str(file), BOARD_ARTIFACTS)
            _write_tags(client, sweep, exhibit)
            _write_figures(client, sweep, exhibit.figures)


def _sweeps(store: Store, experiment: str) -> Iterator[StoredRun]:
    known = mlflow_client(store.uri).get_experiment_by_name(experiment)
    if known is not None:
        yield from search_runs(store, known.experiment_id, "tags.`backstop.kind` = 'sweep'")


def _write_tags(
    client: MlflowClient,
    sweep: StoredRun,
    exhibit: Exhibit,
) -> None:
    """The note and the best defense; a search has written a note of its own."""
    run_id, tags = str(sweep.info.run_id), sweep.data.tags
    client.set_tag(run_id, BEST_TAG, exhibit.best[:TAG_LIMIT])
    if SEARCHED not in tags:
        note = exhibit.note(_space_argument(tags.get("backstop.space", "")))
        client.set_tag(run_id, NOTE, note[:TAG_LIMIT])


def _write_figures(
    client: MlflowClient,
    sweep: StoredRun,
    figures: Mapping[str, float],
) -> None:
    """Those that are not there yet, or were others."""
    for name, value in figures.items():
        if sweep.data.metrics.get(name) != value:
            client.log_metric(str(sweep.info.run_id), name, value)


def _space_argument(title: str) -> str:
    """How a search space is named on the command line: one that is not ours is a file."""
    return title if title in plugins.names("search_spaces") else f"{title}.py"
