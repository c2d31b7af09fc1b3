"""Runs read back from MLflow by the id of their spec."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backstop.platform.contract import Record
from backstop.platform.params import BadInput, nearest
from backstop.platform.results.figures.means import finite_metrics
from backstop.platform.results.figures.names import Json
from backstop.platform.results.tracking import database
from backstop.platform.results.tracking.database import Curves, Stored, is_database
from backstop.platform.results.tracking.log import MODEL, TOTALS
from backstop.platform.results.tracking.store import (
    Store,
    check_exists,
    is_new,
    mlflow_client,
    refusing,
    search_runs,
    sql_literal,
)
from backstop.platform.rounds.origin import Origin, of_tags
from backstop.platform.specs.spec import Spec

if TYPE_CHECKING:
    from mlflow.entities import Run as Item

TRIALS = "tags.`backstop.kind` = 'trial'"  # the condition that a run counts
REQUESTS_AT_ONCE = 8  # to a tracking server
NOT_BY_ROUND = ("final/", "time/", "memory/")  # metrics that are no round's own


class Run(NamedTuple):
    """One experiment as MLflow holds it."""

    id: str
    run_id: str
    spec: Json
    metrics: Mapping[str, float]  # final/…
    costs: Mapping[str, float]  # time/total_…_s, memory/peak_…_mib
    fingerprint: str
    status: str
    # metric → (round, value), filled by :func:`with_curves`
    curves: Mapping[str, Sequence[tuple[int, float]]] = {}
    data: str = ""  # digest of the data it has read
    code: Mapping[str, str] = {}  # "defense median" → digest of the plug-in's file

    @property
    def origin(self) -> Origin:
        """What besides the spec it was made of."""
        return Origin(self.fingerprint, self.data, self.code)


def read_runs(
    store: Store,
    experiment: str,
    *,
    status: str | None = "FINISHED",
    known: Iterable[Run] = (),
) -> list[Run]:
    """The experiment's runs, one per spec id, ordered by id. ``status=None`` reads the unfinished
    ones too.

    Finished runs do not change: of those that are ``known`` from an earlier reading it is looked up
    only whether they are still there. Raises BadInput when there is no such store or experiment.
    """
    check_exists(store)
    with refusing(store):
        experiment_id = find_experiment(store, experiment)
        read = _in_database if is_database(store) else _on_server
        runs: dict[str, Run] = {}
        for run in read(store, experiment_id, status, known):
            if _counts_before(run, runs.get(run.id)):
                runs[run.id] = run
    return [runs[key] for key in sorted(runs)]


def _in_database(
    store: Store,
    experiment_id: str,
    status: str | None,
    known: Iterable[Run],
) -> Iterator[Run]:
    """The trials of an experiment, the oldest first: those that are known, then the others."""
    statuses = database.trial_statuses(store, experiment_id, status)
    for run in known:
        if run.status == "FINISHED" and statuses.get(run.run_id) == "FINISHED":
            del statuses[run.run_id]
            yield run
    for stored in database.stored_runs(store, statuses):
        yield _run(store, stored)


def _on_server(
    store: Store,
    experiment_id: str,
    status: str | None,
    known: Iterable[Run],
) -> Iterator[Run]:
    """The same of a tracking server, whose API cannot tell what is there without all of it."""
    del known
    condition = TRIALS
    if status:
        condition += f" AND attributes.status = '{sql_literal(status)}'"
    for item in search_runs(store, experiment_id, condition):
        yield _run(store, _as_stored(item))


def _as_stored(item: Item) -> Stored:
    """A run of MLflow's API."""
    data = item.data
    return Stored(
        run_id=str(item.info.run_id),
        status=str(item.info.status),
        tags=data.tags,
        metrics=data.metrics,
    )


def find_experiment(store: Store, name: str) -> str:
    """MLflow's id of an experiment. Raises BadInput where there is none of that name."""
    client = mlflow_client(store.uri)
    known = client.get_experiment_by_name(name)
    if known is None:
        names = {item.name for item in client.search_experiments()} - {"Default"}
        raise BadInput(f"unknown experiment {name!r}; {nearest(name, sorted(names))}")
    return str(known.experiment_id)


def _counts_before(run: Run, earlier: Run | None) -> bool:
    """Whether a run counts for its spec in place of the one that was read before it."""
    if earlier is None:
        return True
    return run.status == "FINISHED" and earlier.status != "FINISHED"


def find_run(
    store: Store,
    experiment: str,
    spec: Spec,
) -> Run | None:
    """The finished run of a spec, the first where there are several; None without one."""
    if is_new(store):
        return None
    with refusing(store):
        known = mlflow_client(store.uri).get_experiment_by_name(experiment)
        if known is None:
            return None
        condition = f"{TRIALS} AND tags.`backstop.id` = '{spec.id}'"
        finished = f"{condition} AND attributes.status = 'FINISHED'"
        first = next(search_runs(store, known.experiment_id, finished), None)
        return None if first is None else _run(store, _as_stored(first))


def run_records(store: Store, run: Run) -> list[Record]:
    """The evaluated rounds of a run, in order, without their costs."""
    listed: dict[int, dict[str, float]] = {}
    with refusing(store):
        names = mlflow_client(store.uri).get_run(run.run_id).data.metrics
        for name in sorted(names):
            if name.startswith(NOT_BY_ROUND):
                continue
            for step, value in _history(store, run.run_id, name):
                listed.setdefault(step, {})[name] = value
    return [Record(run.id, step, metrics) for step, metrics in sorted(listed.items())]


def model_content(store: Store, run_id: str) -> bytes:
    """The file of the final model that a run has stored. Raises BadInput where it is not there."""
    with tempfile.TemporaryDirectory() as folder, refusing(store):
        client = mlflow_client(store.uri)
        if MODEL not in {item.path for item in client.list_artifacts(run_id)}:
            raise BadInput(
                f"MLflow run {run_id} holds no {MODEL}: it was made with --keep-models none or"
                " best; to make it again, run the spec with another --experiment"
            )
        return Path(client.download_artifacts(run_id, MODEL, folder)).read_bytes()


def _run(store: Store, stored: Stored) -> Run:
    made = of_tags(stored.tags)
    metrics = finite_metrics(stored.metrics)
    return Run(
        id=stored.tags.get("backstop.id", ""),
        run_id=stored.run_id,
        spec=_spec(store, stored),
        metrics=_that_begin(metrics, "final/"),
        costs=_that_begin(metrics, TOTALS),
        fingerprint=sys.intern(made.fingerprint),
        status=stored.status,
        data=sys.intern(made.data),
        code={sys.intern(name): sys.intern(digest) for name, digest in made.code.items()},
    )


def _that_begin(metrics: Mapping[str, float], start: str | tuple[str, ...]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(start)}


def _spec(store: Store, stored: Stored) -> Json:
    """The spec from its tag, or from spec.json where it is too long for a tag."""
    text = stored.tags.get("backstop.spec")
    if text:
        tagged: Json = json.loads(text, object_pairs_hook=_with_shared_texts)
        return tagged
    with tempfile.TemporaryDirectory() as folder:
        client = mlflow_client(store.uri)
        file = client.download_artifacts(stored.run_id, "spec.json", folder)
        document: dict[str, Json] = json.loads(Path(file).read_text())
    return document["spec"]


def _with_shared_texts(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose texts are those of the other runs: specs say much the same, and
    thousands of them are held at once.
    """
    return {sys.intern(key): _shared(value) for key, value in pairs}


def _shared(value: Any) -> Any:
    return sys.intern(value) if isinstance(value, str) else value


def with_curves(
    store: Store,
    runs: Sequence[Run],
    ids: Iterable[str],
    metrics: Sequence[str],
) -> list[Run]:
    """The runs, those with the given spec ids with their metrics by round besides those that they
    have already. A tracking server takes a request for each run and metric: ask for what is drawn.
    """
    chosen = set(ids)
    lacking = [run for run in runs if run.id in chosen and not run.curves.keys() >= set(metrics)]
    run_ids = [run.run_id for run in lacking]
    with refusing(store):
        read = database.read_curves if is_database(store) else _request_curves
        curves = read(store, run_ids, metrics)
    return [_with_curves(run, curves) for run in runs]


def _with_curves(run: Run, curves: Curves) -> Run:
    if run.run_id not in curves:
        return run
    return run._replace(curves={**run.curves, **curves[run.run_id]})


def _request_curves(
    store: Store,
    run_ids: Sequence[str],
    metrics: Sequence[str],
) -> Curves:
    """The metrics by round from a tracking server, some requests at a time."""

    def request(run_id: str) -> dict[str, list[tuple[int, float]]]:
        return {name: _history(store, run_id, name) for name in metrics}

    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return dict(zip(run_ids, pool.map(request, run_ids), strict=True))


def _history(
    store: Store,
    run_id: str,
    metric: str,
) -> list[tuple[int, float]]:
    """(round, value) in order of rounds; of two values of one round the first stored one."""
    points: dict[int, float] = {}
    for point in mlflow_client(store.uri).get_metric_history(run_id, metric):
        points.setdefault(point.step, point.value)
    return sorted(points.items())
