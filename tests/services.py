"""What a cluster has beside Ray, on loopback: PostgreSQL, an MLflow server on it whose artifacts go
to an object store. Each can be killed and started again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.servers import Postgres, TrackingServer, postgres, program, started
from tests.buckets import ObjectStore, object_store


def missing() -> str:
    """What the services lack; empty where all is there."""
    if program("postgres") is None or program("initdb") is None:
        return "there is no PostgreSQL: apt-get install postgresql brings one"
    if any(find_spec(name) is None for name in ("psycopg", "boto3", "moto", "flask")):
        extras = "pip install -c constraints.txt -e '.[test-s3,cluster]'"
        return f"there is no driver of PostgreSQL or no object store: {extras} brings them"
    return ""


needs_services = pytest.mark.skipif(bool(missing()), reason=missing() or "all is there")


class Services(NamedTuple):
    """All three."""

    database: Postgres
    server: TrackingServer
    objects: ObjectStore


@contextmanager
def services(folder: Path) -> Iterator[Services]:
    """Running services, which end with the block."""
    with ExitStack() as stack:
        objects = stack.enter_context(object_store(folder))
        database = stack.enter_context(postgres())
        server = TrackingServer(
            folder,
            database.uri,
            "s3://bucket/mlflow",
            environment={
                "MLFLOW_S3_ENDPOINT_URL": f"http://{objects.host}:{objects.port}",
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        )
        yield Services(database, stack.enter_context(started(server)), objects)
