"""The view in which MLflow opens an experiment: columns, charts and order, as its own button
"share" would keep them.

MLflow reads a tag ``mlflow.sharedViewState.<key>`` of the experiment that the address names: a JSON
envelope around the compressed state of its page. Forms and names are those of MLflow 3.17.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.soundness import read_only
from backstop.platform.results.tracking.store import Store, mlflow_client, refusing
from backstop.platform.results.tracking.titles import varied_keys
from backstop.platform.specs.spec import Spec, spec_from_json

CHARTS = "&compareRunsMode=CHART"  # after the address: charts beside the runs, not columns
KEY = "backstop"  # in the address, and in the tag's name
TAG = f"mlflow.sharedViewState.{KEY}"
# what makes MLflow open the experiment on its runs, not on an overview of traces
KIND = ("mlflow.experimentKind", "custom_model_development")
VIEW_TITLE = "Backstop: defenses beside each other"  # in MLflow's list of saved views

ACCURACY, SUCCESS = "clean_accuracy", "attack_success_rate"
OF_TRIALS = "tags.`backstop.kind` = 'trial'"
ATTACKED = f"{OF_TRIALS} AND params.`attack.name` != 'none' AND params.`fl.dormant` = 'false'"
SECTION = "backstop"
# of metrics, as MLflow cuts their names
METRIC_SECTIONS = ("final", "round", "defense", "attack", "time", "memory")
CHARTS_IN_A_ROW = 2  # with three MLflow cuts their titles off
AXES = 6  # of the parallel coordinates, besides the result
WHERE = ("dataset.name", "model.name")  # that runs are on
RUN_NAME = "attributes.`Run Name`"
WIDTHS = {  # pixels
    "attributes.`Dataset`": 170,
    "params.`defense.name`": 160,
    "params.`attack.name`": 200,
    "params.`attack.strength`": 110,
    "params.`seed`": 60,
}
FIGURE_WIDTH = 150  # pixels that show the names of the figures in full


def write_view(
    store: Store,
    experiment_id: str,
    specs: Iterable[Spec],
) -> None:
    """Keep the view of an experiment with these runs in its tag; nothing is written where it is
    there already.
    """
    with refusing(store):
        client = mlflow_client(store.uri)
        experiment = client.get_experiment(experiment_id)
        text = envelope(view_state(list(specs)), experiment.creation_time or 0)
        for key, value in ((TAG, text), KIND):
            if experiment.tags.get(key) != value:
                client.set_experiment_tag(experiment_id, key, value)


def view_addresses(store: Store, server: str) -> dict[str, str]:
    """Experiment → where a server shows it in its view. One that has none yet, of an earlier
    version, gets it where the store can be written.
    """
    addresses = {}
    with refusing(store):
        for experiment in mlflow_client(store.uri).search_experiments(order_by=["name"]):
            known = experiment.experiment_id
            if TAG in experiment.tags or _add_view(store, known, experiment.name):
                page = f"{server}/#/experiments/{known}/runs"
                addresses[experiment.name] = f"{page}?viewStateShareKey={KEY}"
    return addresses


def _add_view(
    store: Store,
    experiment_id: str,
    name: str,
) -> bool:
    """Write the view of an experiment that has none; whether it has one now."""
    if read_only(store):
        return False
    try:
        specs = [spec_from_json(run.spec) for run in read_runs(store, name)]
        if specs:
            write_view(store, experiment_id, specs)
    except BadInput:  # of plug-ins that are not here
        return False
    return bool(specs)


def envelope(state: Mapping[str, Any], created: int) -> str:
    """The state as MLflow keeps it: ``created`` are milliseconds since 1970."""
    packed = base64.b64encode(zlib.compress(_compact(state).encode(), 9)).decode()
    wrapped = {"name": VIEW_TITLE, "createdAt": created, "state": f"deflate;{packed}"}
    return _compact(wrapped)


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def view_state(specs: Sequence[Spec]) -> dict[str, Any]:
    """The state of MLflow's page on an experiment with these runs: who runs against whom and what
    came of it as columns, the runs by attack success, and charts.
    """
    attacked = [spec for spec in specs if spec.attack and not spec.dormant]
    columns = _columns(attacked or specs)
    return {
        "searchFilter": ATTACKED if attacked else OF_TRIALS,
        "orderByKey": _metric(f"final/{SUCCESS}"),
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [RUN_NAME, *columns],  # else parameters come last
        "columnWidths": {RUN_NAME: 300, **{key: WIDTHS.get(key, FIGURE_WIDTH) for key in columns}},
        "runsHiddenMode": "FIRST_20_RUNS",
        "hideEmptyCharts": True,
        "isAccordionReordered": True,  # else MLflow puts its own sections first
        "compareRunSections": _sections(),
        "compareRunCharts": _charts(attacked or specs),
    }


def _columns(specs: Sequence[Spec]) -> list[str]:
    """What is looked at first stands first: MLflow shows as many as the window has room for."""
    varied = varied_keys(specs)
    others = [key for key in sorted(varied) if key.startswith("fl.") or key in WHERE]
    strength = ["attack.strength"] if "attack.strength" in varied else []
    first, last = ["defense.name", *strength, "seed"], ["attack.name", *others]
    return [
        *map(_param, first),
        *(_metric(f"final/{name}") for name in (SUCCESS, ACCURACY)),
        *map(_param, last),
        "attributes.`Dataset`",
    ]


def _param(name: str) -> str:
    return f"params.`{name}`"


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _sections() -> list[dict[str, Any]]:
    """Ours opened; MLflow's own, one for each group of metrics, closed behind it."""
    names = {SECTION: "Backstop", **{name: name for name in METRIC_SECTIONS}}
    return [
        {
            "uuid": uuid,
            "name": name,
            "display": uuid == SECTION,
            "isReordered": False,
            "columns": CHARTS_IN_A_ROW,
        }
        for uuid, name in names.items()
    ]


def _charts(specs: Sequence[Spec]) -> list[dict[str, Any]]:
    axes = parallel_axes(specs)
    success, accuracy = f"final/{SUCCESS}", f"final/{ACCURACY}"
    return [
        _line(f"round/{SUCCESS}"),
        _line(f"round/{ACCURACY}"),
        _chart(
            "SCATTER",
            "cost",
            xaxis={"key": success, "type": "METRIC"},
            yaxis={"key": accuracy, "type": "METRIC"},
            runsCountToCompare=100,
        ),
        _chart(
            "PARALLEL",
            "knobs",
            selectedParams=axes,
            selectedMetrics=[success],
            showAllRuns=True,
        ),
    ]


def _chart(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    """A chart, by whose name MLflow tells it from others; its title is of its metrics."""
    return {
        "uuid": f"{SECTION}-{name}",
        "type": kind,
        "metricSectionId": SECTION,
        "isGenerated": False,
        "deleted": False,
        **settings,
    }


def _line(metric: str) -> dict[str, Any]:
    """A metric by round."""
    return _chart(
        "LINE",
        metric,
        metricKey=metric,
        selectedMetricKeys=[metric],
        xAxisKey="step",
        scaleType="linear",
        lineSmoothness=0,
        range={},
    )


def parallel_axes(specs: Sequence[Spec]) -> list[str]:
    """The parameters whose lines MLflow draws: an attack's strength and what varies of the defense
    that varies most, so that a run has all of them; the names where none varies.
    """
    varied = varied_keys(specs)
    stages: dict[str, list[str]] = {}
    for key in sorted(varied - {"defense.name"}):
        if key.startswith("defense."):
            stages.setdefault(key.rpartition(".")[0], []).append(key)
    knobs = max(stages.values(), key=len, default=[])
    strength = [key for key in varied if key == "attack.strength"]
    axes = [*strength, *knobs] or ["defense.name", "attack.name"]
    return axes[:AXES]
