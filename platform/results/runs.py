"""Runs read back from MLflow by the id of their spec."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backstop.platform.contract import Record
from backstop.platform.params import BadInput, nearest
from backstop.platform.results.figures import finite_metrics
from backstop.platform.results.log import TOTALS
from backstop.platform.results.names import Json
from backstop.platform.results.store import (
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
    from mlflow.entities import Run as Stored
    from torch import Tensor

TRIALS = "tags.`backstop.kind` = 'trial'"  # the condition that a run counts
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
) -> list[Run]:
    """The experiment's runs, one per spec id, ordered by id. ``status=None`` reads the unfinished
    ones too.

    Raises BadInput when there is no such store or experiment.
    """
    check_exists(store)
    with refusing(store):
        condition = TRIALS
        if status:
            condition += f" AND attributes.status = '{sql_literal(status)}'"
        runs: dict[str, Run] = {}
        for item in search_runs(store, _experiment_id(store, experiment), condition):
            run = _run(store, item)
            if _counts_before(run, runs.get(run.id)):
                runs[run.id] = run
    return [runs[key] for key in sorted(runs)]


def _experiment_id(store: Store, name: str) -> str:
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
        return None if first is None else _run(store, first)


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


def run_model(store: Store, run_id: str) -> Mapping[str, Tensor]:
    """Name → tensor of the final model that a run has stored. Raises BadInput where it is not
    there.
    """
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder, refusing(store):
        client = mlflow_client(store.uri)
        return load_file(client.download_artifacts(run_id, "model.safetensors", folder))


def _run(store: Store, item: Stored) -> Run:
    tags = item.data.tags
    made = of_tags(tags)
    metrics = finite_metrics(item.data.metrics)
    return Run(
        id=tags.get("backstop.id", ""),
        run_id=str(item.info.run_id),
        spec=_spec(store, item),
        metrics=_that_begin(metrics, "final/"),
        costs=_that_begin(metrics, TOTALS),
        fingerprint=made.fingerprint,
        status=str(item.info.status),
        data=made.data,
        code=made.code,
    )


def _that_begin(metrics: Mapping[str, float], start: str | tuple[str, ...]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(start)}


def _spec(store: Store, item: Stored) -> Json:
    """The spec from its tag, or from spec.json where it is too long for a tag."""
    text = item.data.tags.get("backstop.spec")
    if text:
        tagged: Json = json.loads(text)
        return tagged
    with tempfile.TemporaryDirectory() as folder:
        client = mlflow_client(store.uri)
        file = client.download_artifacts(item.info.run_id, "spec.json", folder)
        document: dict[str, Json] = json.loads(Path(file).read_text())
    return document["spec"]


def with_curves(
    store: Store,
    runs: Sequence[Run],
    ids: Sequence[str],
    metrics: Sequence[str],
) -> list[Run]:
    """The runs, those with the given spec ids with their metrics by round. One call per run and
    metric: ask for what is drawn.
    """
    chosen = set(ids)
    with refusing(store):
        return [_with_curves(store, run, metrics) if run.id in chosen else run for run in runs]


def _with_curves(
    store: Store,
    run: Run,
    metrics: Sequence[str],
) -> Run:
    curves = {name: _history(store, run.run_id, name) for name in metrics}
    return run._replace(curves=curves)


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
