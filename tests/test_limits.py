"""A trial that hangs, grows or kills its worker ends, is named, and never blocks the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from backstop.platform import cli, contract, experiment
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.store import locate_store
from backstop.platform.sweeps import failures
from backstop.platform.sweeps.failures import DEATHS, RETRIES, Failures
from backstop.platform.sweeps.trials import death_reason
from backstop.platform.training import stage_errors
from backstop.platform.workers.limits import log_path

pytestmark = pytest.mark.xdist_group("ray")
DEFENSE = """
import os
from backstop.platform.contract import Defense, stateless

def {name}() -> Defense:
    def apply(updates):
        {body}
        return updates
    return stateless(apply)
"""
BODIES = {
    "holding": "sum(range(10**15))",  # in C, with the interpreter's lock
    "growing": "kept = [b'x' * 2**24 for _ in range(10**6)]",
    "deadly": "os._exit(7)",
}
SPACE = """
from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

BASE = Spec(
    dataset=Part("synthetic"), model=Part("logistic"), clients=4, per_round=4, rounds=3, batch=16,
    root_size=4, alpha=None,
)

def little():
    return grid(BASE, defense=["median", "holding", "growing", "deadly"])
"""
GUARDED = """
import sys, time
from pathlib import Path
from backstop.platform.workers.limits import Guard, Limits
guard = Guard(Limits({minutes}, {gib}, Path(sys.argv[1])))
guard.begin("one")
{body}
"""


def guarded(folder: Path, body: str, minutes: object = None, gib: object = None) -> tuple[int, str]:
    """A process under limits: its exit code, and its log."""
    code = GUARDED.format(body=body, minutes=minutes, gib=gib)
    found = subprocess.run([sys.executable, "-c", code, str(folder)], timeout=60, check=False)
    log = log_path(folder, "one")
    return found.returncode, log.read_text() if log.exists() else ""


def test_a_process_that_holds_the_lock_for_ever_is_ended_and_says_where_it_was(
    tmp_path: Path,
) -> None:
    code, log = guarded(tmp_path, "sum(range(10**15))", minutes=0.01)
    assert code == -9
    assert log.startswith("limit: took longer than --trial-minutes 0.01\n")
    assert 'File "<string>", line 7 in <module>' in log


def test_a_process_that_grows_is_ended(tmp_path: Path) -> None:
    code, log = guarded(tmp_path, "x = [b'x' * 2**22 for _ in range(10**6)]", gib=0.25)
    assert code == -9
    assert "GiB, more than --trial-memory 0.25\n" in log and log.startswith("limit: grew to 0.")


def test_what_keeps_to_its_limits_or_rests_is_left_alone(tmp_path: Path) -> None:
    body = "time.sleep(.3)\nguard.begin('two')\ntime.sleep(.3)\nguard.rest()\ntime.sleep(1.5)"
    assert guarded(tmp_path, body, minutes=1 / 60, gib=4) == (0, "")
    assert guarded(tmp_path, "time.sleep(.5)\nguard.close()") == (0, "")
    assert not list(tmp_path.iterdir())


def test_the_reason_names_the_line_of_the_plug_in(tmp_path: Path) -> None:
    log = log_path(tmp_path, "one")
    log.write_text(
        "limit: took longer than --trial-minutes 1\nCurrent thread 0x1 (most recent call first):\n"
        '  File "/lib/torch/tensor.py", line 4 in norm\n'
        '  File "/plugins/krum.py", line 31 in apply\n'
        f'  File "{contract.__file__}", line 678 in <lambda>\n'
        f'  File "{stage_errors.__file__}", line 60 in call\n'
        f'  File "{experiment.__file__}", line 9 in round\n'
    )
    reason = failures.limit_reason(tmp_path, "one")
    assert reason == "took longer than --trial-minutes 1 (krum.py:31)"
    log.write_text("Traceback (most recent call last):\n")
    assert failures.limit_reason(tmp_path, "one") == ""
    failures.write_log(tmp_path, "one", ValueError("the actor died"))
    assert "the actor died" in log.read_text()
    log.write_text("limit: grew to 3.0 GiB, more than --trial-memory 2\n")
    failures.write_log(tmp_path, "one", ValueError("the actor died"))
    assert failures.limit_reason(tmp_path, "one") == "grew to 3.0 GiB, more than --trial-memory 2"
    failures.forget_log(tmp_path, "one")
    assert failures.limit_reason(tmp_path, "one") == ""


def test_a_trial_is_to_blame_for_deaths_in_one_place_and_for_a_few_errors() -> None:
    found = Failures()
    assert [found.final_error("a") for _ in range(RETRIES + 1)] == [False] * RETRIES + [True]
    assert not any(found.final_death("b", rounds) for rounds in range(100)), "it gets on"
    deaths = [found.final_death("c", 5) for _ in range(DEATHS)]
    assert deaths == [False] * (DEATHS - 1) + [True]
    for _ in range(100):
        found.lost("d")  # with its node
    assert not found.final_death("d", 0)
    assert (found.pause("a"), found.pause("c"), found.pause("d")) == (0.0, 8.0, 60.0)


def test_ray_says_in_its_last_line_how_a_worker_died() -> None:
    error = RayActorError(error_msg="The actor died.\n\tpid: 7\nWorker exit type: SYSTEM_ERROR")
    assert death_reason(error).endswith("in the same place: Worker exit type: SYSTEM_ERROR")


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("option", ["--trial-minutes", "--trial-memory"])
def test_a_limit_that_is_none_is_refused(
    option: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", "smoke", option, given]) == 2
    assert f"{option}: '{given}' is not allowed; a number above 0" in capsys.readouterr().err


def plugins(folder: Path) -> dict[str, str]:
    """The defenses as a package of their own; the environment that finds them."""
    info = folder / "theirs-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    names = [f"{name} = {name}:{name}\n" for name in BODIES]
    (info / "entry_points.txt").write_text("[backstop.defenses]\n" + "".join(names))
    for name, body in BODIES.items():
        (folder / f"{name}.py").write_text(DEFENSE.format(name=name, body=body))
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path}


@pytest.mark.slow  # a Ray, a minute's limit and three workers that die
@pytest.mark.timeout(900)
@pytest.mark.parametrize("actors", ["0", "1"])
def test_a_sweep_goes_on_beside_trials_that_hang_grow_and_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, actors: str
) -> None:
    (tmp_path / "little.py").write_text(SPACE)
    environment = plugins(tmp_path / "plugins")
    line = [sys.executable, "-m", "backstop.platform.cli", "sweep", "little.py", "--store", "s"]
    line += ["--trial-minutes", "2", "--trial-memory", "2", "--device", "cpu"]
    found = subprocess.run(
        [*line, "--client-actors", actors],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1, found.stderr
    assert "Traceback" not in found.stderr
    said = found.stderr
    assert "1 run failed: took longer than --trial-minutes 2 (holding.py:7)" in said
    assert "GiB, more than --trial-memory 2 (growing.py:7)" in said
    assert "1 run failed: its worker died 3 times in the same place" in said
    assert "INCOMPLETE: 3 planned runs are missing" in " ".join(found.stdout.split())
    stored = read_runs(locate_store(tmp_path / "s"), "little", status=None)
    assert sorted(run.status for run in stored) == ["FAILED"] * 3 + ["FINISHED"] * 2
    board = json.loads((tmp_path / "s/leaderboards/little/leaderboard.json").read_text())
    assert len(board["missing_runs"]) == 3
