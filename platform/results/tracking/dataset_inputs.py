"""The dataset of a run as MLflow knows datasets, so that its tables name it and filter by it."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING

from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.part import Part
from backstop.platform.specs.spec import Spec

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXT = "mlflow.data.context"  # what MLflow shows beside a dataset's name
COUNTS = ("rows", "train", "test")  # of what was read


def dataset_input(spec: Spec, origin: Origin) -> DatasetInput | None:
    """What a run has read: the dataset's name and the digest of its decoded data; None where the
    digest is not known.
    """
    if not origin.data:
        return None
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = {"mlflow.source.name": "backstop", "backstop.dataset": str(_placeless(spec.dataset))}
    read = Dataset(
        name=spec.dataset.name,
        digest=origin.data,
        source_type="code",
        source=json.dumps({"tags": source}),
        profile=json.dumps(_counts(origin)),
    )
    return DatasetInput(read, [InputTag(CONTEXT, "train")])


def _placeless(part: Part) -> Part:
    """The dataset without the folders of its files: they are of one machine, the digest is not."""
    params = {
        key: PurePath(value).name
        if isinstance(value, str) and PurePath(value).is_absolute()
        else value
        for key, value in part.params.items()
    }
    return Part(part.name, params)


def _counts(origin: Origin) -> dict[str, int]:
    """How many samples there are; nothing where that was too long to be kept as JSON."""
    try:
        reading = json.loads(origin.reading)
    except ValueError:
        return {}
    return {key: reading[key] for key in COUNTS if key in reading}
