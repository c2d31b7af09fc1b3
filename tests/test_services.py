"""A sweep on PostgreSQL, an MLflow server and an object store, each killed in its middle: the board
has the bytes of an undisturbed sweep into a folder, and nothing is lost, doubled or left behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backstop.platform import storage
from backstop.platform.results.tracking.store import mlflow_client
from backstop.platform.rounds.checkpoint import saved_ids
from benchmarks.servers import Service
from tests.services import Services, needs_services, services

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow, needs_services]
SPACE = """
from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

BASE = Spec(
    model=Part("logistic"), clients=10, per_round=5, rounds=100, batch=16, root_size=20, warmup=2,
    eval_every=50,
)

def few():
    attack = "badnets+model_replacement(strength=3)"
    return grid(BASE, attack=[attack], defense=["median", "krum(f=1)"], seed=range(2))
"""
RUNS = 12  # with FedAvg and the clean twins
BOARD = Path("backstop-store", "leaderboards", "few", "leaderboard.json")
AWAY = 3.0  # seconds between a kill and the start


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("services")) as running:
        yield running


def sweep(
    folder: Path, *options: str, space: str = SPACE, **environment: str
) -> subprocess.Popen[bytes]:
    """A sweep two at a time, in a folder of its own; what it says is in its file ``said``."""
    folder.mkdir()
    (folder / "few.py").write_text(space)
    line = [sys.executable, "-m", "backstop.platform.cli", "sweep", "few.py", "--device", "cpu"]
    own = {"HOME": str(folder), "BACKSTOP_CACHE": str(folder / "cache")}
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            [*line, "--max-concurrent", "2", *options],
            cwd=folder,
            env={**os.environ, **own, **environment},
            stdout=said,
            stderr=said,
        )


@contextmanager
def ended(running: subprocess.Popen[bytes]) -> Iterator[None]:
    """Whatever the block finds, the sweep does not outlive it."""
    try:
        yield
    finally:
        running.terminate()
        running.wait(60)


def stored(uri: str, experiment: str) -> list[tuple[str, str, str]]:
    """Kind, spec id and status of every run in an experiment, deleted ones too."""
    from mlflow.entities import ViewType

    client = mlflow_client(uri)
    known = client.get_experiment_by_name(experiment)
    if known is None:
        return []
    runs = client.search_runs([known.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)
    return [
        (run.data.tags["backstop.kind"], run.data.tags.get("backstop.id", ""), run.info.status)
        for run in runs
    ]


def await_stored(cluster: Services, running: subprocess.Popen[bytes], count: int) -> None:
    """Return when so many runs of the sweep are finished."""
    while [status for _, _, status in stored(cluster.server.uri, "few")].count("FINISHED") < count:
        assert running.poll() is None, "the sweep has ended before its services were killed"
        time.sleep(0.2)


def check_stored(uri: str, count: int) -> None:
    """Check that so many trials are in the experiment: none lost, none doubled, none RUNNING."""
    runs = stored(uri, "few")
    kinds = Counter((kind, status) for kind, _, status in runs)
    assert kinds == {("sweep", "FINISHED"): 1, ("trial", "FINISHED"): count}
    assert len({key for kind, key, _ in runs if kind == "trial"}) == count


@pytest.mark.timeout(3000)
def test_a_sweep_outlives_the_death_of_each_service(cluster: Services, tmp_path: Path) -> None:
    assert sweep(tmp_path / "whole").wait(1200) == 0, (tmp_path / "whole/said").read_text()
    address = cluster.objects.address("swept")
    disturbed = tmp_path / "disturbed"
    running = sweep(disturbed, "--store", address, MLFLOW_TRACKING_URI=cluster.server.uri)
    victims: list[Service] = [cluster.objects, cluster.server, cluster.database]
    with ended(running):
        for count, service in enumerate(victims):
            await_stored(cluster, running, 1 + count)
            service.kill()
            time.sleep(AWAY)
            service.start()
        running.wait(1200)
    assert running.returncode == 0, (disturbed / "said").read_text()
    assert "Traceback" not in (disturbed / "said").read_text()
    assert (disturbed / BOARD).read_bytes() == (tmp_path / "whole" / BOARD).read_bytes()
    check_stored(cluster.server.uri, RUNS)
    assert saved_ids(storage.locate(address) / "checkpoints") == set()
