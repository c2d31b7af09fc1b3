"""Runs read back from MLflow by the id of their spec."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backstop.platform.contract import Record
from backstop.platform.params import BadInput, nearest
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
        client = mlflow_client(store.uri)
        known = client.get_experiment_by_name(experiment)
        if known is None:
            names = [item.name for item in client.search_experiments() if item.name != "Default"]
            raise BadInput(f"unknown experiment {experiment!r}; {nearest(experiment, names)}")
        condition = "tags.`backstop.kind` = 'trial'" + (
            f" AND attributes.status = '{sql_literal(status)}'" if status else ""
        )
        runs: dict[str, Run] = {}
        for item in search_runs(store, known.experiment_id, condition):
            run = _run(store, item)
            if run.id not in runs or (
                run.status == "FINISHED" and runs[run.id].status != "FINISHED"
            ):
                runs[run.id] = run
    return [runs[key] for key in sorted(runs)]


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
        condition = (
            f"tags.`backstop.id` = '{spec.id}' AND tags.`backstop.kind` = 'trial'"
            " AND attributes.status = 'FINISHED'"
        )
        return next(
            (_run(store, item) for item in search_runs(store, known.experiment_id, condition)), None
        )


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

    with tempfile.TemporaryDirectory() as place, refusing(store):
        return load_file(
            mlflow_client(store.uri).download_artifacts(run_id, "model.safetensors", place)
        )


def _run(store: Store, item: Stored) -> Run:
    metrics = {
        key: float(value) for key, value in item.data.metrics.items() if math.isfinite(value)
    }
    label = item.data.tags.get("backstop.spec")
    made = of_tags(item.data.tags)
    return Run(
        id=item.data.tags.get("backstop.id", ""),
        run_id=str(item.info.run_id),
        spec=json.loads(label) if label else _stored_spec(store, item),
        metrics={key: value for key, value in sorted(metrics.items()) if key.startswith("final/")},
        costs={key: value for key, value in sorted(metrics.items()) if key.startswith(TOTALS)},
        fingerprint=made.fingerprint,
        status=str(item.info.status),
        data=made.data,
        code=made.code,
    )


def _stored_spec(store: Store, item: Stored) -> dict[str, Any]:
    """The spec from spec.json, for one that is too long for a tag."""
    with tempfile.TemporaryDirectory() as place:
        file = mlflow_client(store.uri).download_artifacts(item.info.run_id, "spec.json", place)
        document: dict[str, Any] = json.loads(Path(file).read_text())["spec"]
        return document


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
        return [
            run._replace(curves={name: _history(store, run.run_id, name) for name in metrics})
            if run.id in chosen
            else run
            for run in runs
        ]


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
