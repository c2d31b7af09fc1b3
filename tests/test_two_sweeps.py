"""Two sweeps on one experiment: the second says so and stops; a killed one is in nobody's way."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from backstop.platform import cli
from backstop.platform.params import BadInput
from backstop.platform.results.tracking import drivers, signs_of_life
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.store import Store, locate_store, mlflow_client
from backstop.platform.results.tracking.sweeps import close_parent, open_parent

HOLDS = """
import sys, time
from pathlib import Path
from backstop.platform.results.tracking import drivers
with drivers.alone(Path(sys.argv[1]), "mine", "smoke"):
    print("at work", flush=True)
    time.sleep(600)
"""


def test_the_second_sweep_says_who_is_at_work_and_a_killed_one_is_not(tmp_path: Path) -> None:
    line = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "at work\n"
        refusal = rf"'mine': another sweep is at work on it \(sweep smoke, process {first.pid} on "
        with pytest.raises(BadInput, match=refusal), drivers.alone(tmp_path, "mine", "other"):
            pass
        with drivers.alone(tmp_path, "another", "other"):
            pass
        first.kill()
        first.wait()
    for title in ("a much longer title", "short"):
        with drivers.alone(tmp_path, "mine", title):
            owners = [path.read_text() for path in (tmp_path / "drivers").iterdir()]
            (owner,) = [text for text in owners if "another" not in text and "other" not in text]
            assert owner.startswith(f"sweep {title}, process ")


def test_a_sweep_beside_another_one_is_refused_before_it_starts_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with drivers.alone(tmp_path / "s", "smoke", "smoke"):
        assert cli.main(["sweep", "smoke", "--store", "s", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "another sweep is at work on it" in said and "name another --experiment" in said
    assert not Path("s/mlflow.db").exists()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that is taken for a server's, and looked at quickly."""
    monkeypatch.setattr(signs_of_life, "database_file", lambda store: None)
    monkeypatch.setattr(signs_of_life, "STEP_S", 0.05)
    monkeypatch.setattr(signs_of_life, "SILENT_S", 3.0)
    monkeypatch.setattr(signs_of_life, "LOOK", 0.01)
    return locate_store(tmp_path)


def test_a_sweep_from_elsewhere_shows_that_it_is_at_work(
    server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = open_experiment(server, "mine")
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    said: list[str] = []

    def check(home: Path) -> None:
        signs_of_life.check_nobody_else(server, home, experiment, said.append)

    check(here)
    assert said == [], "nobody is there"
    with ExitStack() as held:
        driver = held.enter_context(drivers.at_work(elsewhere))
        parent = open_parent(server, experiment, "smoke", driver=driver)
        with signs_of_life.shown(server, parent):
            with pytest.raises(BadInput, match=rf"from another machine .*MLflow run {parent}"):
                check(here)
            check(elsewhere)  # its locks say who is there
    monkeypatch.setattr(signs_of_life, "SILENT_S", 0.5)
    check(here)  # RUNNING in the store, and no sign of life
    assert len(said) == 2 and "may be at work here" in said[-1]
    close_parent(server, parent, "FINISHED")
    check(here)
    assert len(said) == 2
    tags = mlflow_client(server.uri).get_run(parent).data.tags
    assert int(tags[signs_of_life.COUNTER]) > 0
