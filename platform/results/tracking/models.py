"""Which runs keep their final models: of a ResNet-18 each is 45 MB."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.locations import local_path
from backstop.platform.results.tracking.log import MODEL
from backstop.platform.results.tracking.runs import Run
from backstop.platform.results.tracking.store import Store, mlflow_client, refusing


def drop_models(store: Store, runs: Iterable[Run]) -> int:
    """Remove the final models of runs; how many there were. Raises BadInput where MLflow does not
    give one up.
    """
    return sum(_drop(store, run.run_id) for run in runs)


def _drop(store: Store, run_id: str) -> bool:
    with refusing(store):
        client = mlflow_client(store.uri)
        uri = client.get_run(run_id).info.artifact_uri
        folder = local_path(uri)
        if folder is not None:
            file = folder / MODEL
            there = file.exists()
            file.unlink(missing_ok=True)
            return there
        if MODEL not in {item.path for item in client.list_artifacts(run_id)}:
            return False
        _delete_remote(uri)
        return True


def _delete_remote(uri: str) -> None:
    """Have MLflow remove a model: its client has no call for one artifact."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        repository: Any = get_artifact_repository(uri)  # it has no types
        repository.delete_artifacts(MODEL)
    except NotImplementedError:
        raise BadInput(
            f"MLflow cannot remove artifacts from {uri}: all final models are kept;"
            " --keep-models none keeps further runs from storing theirs"
        ) from None
