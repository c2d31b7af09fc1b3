"""The command line: what each command prints, and one clear line and exit code 2 for everything
that cannot work.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backstop.platform import cli, plugins
from backstop.platform.contract import stateless
from backstop.platform.experiment import Experiment
from backstop.platform.plugins import build
from backstop.platform.results.tracking.experiments import open_experiment
from backstop.platform.results.tracking.runs import read_runs
from backstop.platform.results.tracking.store import locate_store, mlflow_client
from backstop.platform.specs.part import parse_value
from backstop.platform.sweeps.overrides import with_overrides
from backstop.platform.sweeps.plan import load_space
from backstop.platform.sweeps.session import Session
from tests.mounts import mounted

RUN = [
    "--rounds",
    "2",
    "--clients",
    "10",
    "--per-round",
    "5",
    "--root-size",
    "20",
    "--device",
    "cpu",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a folder of its own as working directory, store and home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKSTOP_DATA", str(tmp_path / "data"))
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr with which a command is refused."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    # what data were loaded before
    err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("read "))
    assert err.startswith("backstop: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The JSON document that a command prints."""
    assert cli.main(arguments) == code
    return json.loads(capsys.readouterr().out)


def test_a_stage_that_returns_nonsense_fails_the_run_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(group: str, name: str, params: Any) -> Any:
        if name == "rfa":
            return stateless(lambda updates: updates._replace(weight=updates.weight * float("nan")))
        return build(group, name, params)

    monkeypatch.setattr(plugins, "build", broken)
    assert cli.main(["run", "--defense", "norm_clip+rfa", *RUN]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1] == (
        "backstop: the run failed: defense rfa: round 1: "
        "5 of 5 weights are NaN, infinite or negative;"
        " a stage must return finite weights of at least 0"
    )


@pytest.mark.parametrize(("left", "said"), [(0.0, True), (0.5, False)])
def test_a_run_in_which_nothing_is_aggregated_is_said_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, left: float, said: bool
) -> None:
    def closed(group: str, name: str, params: Any) -> Any:
        if name == "rfa":
            return stateless(lambda updates: updates._replace(weight=updates.weight * left))
        return build(group, name, params)

    monkeypatch.setattr(plugins, "build", closed)
    assert cli.main(["run", "--defense", "rfa", *RUN]) == 0
    line = (
        "backstop: the defense gave every client's row weight 0 in all evaluated rounds (2): "
        "nothing was aggregated in them"
    )
    assert (line in capsys.readouterr().err.splitlines()) == said
    # shown again, it is as doubtful as before
    assert cli.main(["run", "--defense", "rfa", *RUN]) == 0
    again = capsys.readouterr().err.splitlines()
    assert again[0].startswith("finished already") and (line in again) == said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--attack", "badnet"], ["unknown attack 'badnet'", "did you mean 'badnets'"]),
        (["run", "--defense", "medain"], ["unknown defense 'medain'", "did you mean 'median'"]),
        (["run", "--dataset", "digit"], ["unknown dataset 'digit'", "did you mean 'digits'"]),
        (["run", "--model", "mpl"], ["unknown model 'mpl'", "did you mean 'mlp'"]),
        (["run", "--optimizer", "sdg"], ["unknown optimizer 'sdg'", "did you mean 'sgd'"]),
        (
            ["run", "--defense", "invariant(mask_threshold=1.5)"],
            ["mask_threshold=1.5 is not allowed", "[0, 1]"],
        ),
        (
            ["run", "--defense", "invariant(mask_treshold=0.5)"],
            ["unknown parameter 'mask_treshold'", "did you mean 'mask_threshold'"],
        ),
        (
            ["run", "--defense", "invariant(trim_fraction=0.5)"],
            ["trim_fraction=0.5 is not allowed", "[0, 0.5)"],
        ),
        (["run", "--attack", "badnets(size=big)"], ["size='big' is not allowed", "an integer"]),
        (["run", "--attack", "badnets(size=2.5)"], ["size=2.5 is not allowed", "an integer"]),
        (["run", "--attack", "badnets(3"], ["not of the form"]),
        (["run", "--attack", ""], ["attack '' names no stage; no attack at all is none"]),
        (["run", "--defense", ""], ["defense '' names no stage; no defense at all is fedavg"]),
        (["run", "--defense", "median+"], ["'median+' is not of the form", "it breaks off"]),
        (["run", "--defense", "clip()++median"], ["it leaves that form at '+median'"]),
        (["run", "--dataset", ""], ["'' is not of the form", "it is empty"]),
        (["sweep", "smoke", "--set", "defense="], ["defense '' names no stage"]),
        (
            ["run", "--attack", "badnets+label_flip"],
            ["badnets and label_flip both define the trigger"],
        ),
        (
            ["run", "--dataset", "synthetic", "--attack", "badnets"],
            ["badnets takes image data", "synthetic is table data"],
        ),
        (["run", "--clients", "10", "--per-round", "11"], ["per_round=11 is more than clients=10"]),
        (["run", "--rounds", "0"], ["rounds=0 is not allowed", "[1, 1e+09]"]),
        (
            ["run", "--malicious", "30%"],
            ["backstop: --malicious: malicious='30%' is not allowed", "a number in [0, 1]"],
        ),
        (
            ["run", "--local-epochs", "two"],
            ["backstop: --local-epochs: local_epochs='two' is not allowed"],
        ),
        (
            ["run", "--selection", "fixd"],
            ["selection='fixd' is not allowed", "did you mean 'fixed'"],
        ),
        (
            ["run", "--precision", "bfloat"],
            ["precision='bfloat' is not allowed", "did you mean 'bfloat16'"],
        ),
        (
            ["sweep", "smoke", "--set", "precision=float64"],
            ["precision='float64' is not allowed", "precision is float32 or bfloat16"],
        ),
        (
            ["run", "--attack-start", "5", "--attack-stop", "5"],
            ["attack_stop=5 must come after attack_start=5"],
        ),
        (
            ["run", "--alpha", "0.001", "--root-size", "0"],
            ["alpha=0.001 leaves one of clients=100 without samples", "raise alpha"],
        ),
        (["run", "--root-size", "5000"], ["root_size=5000 is not allowed"]),
        (["run", "--dataset", "mnist"], ["MNIST", "data"]),
        (["run", "--roundz", "3"], ["unknown option '--roundz'", "did you mean '--rounds'"]),
        (["run", "--client-actors", "two"], ["--client-actors 'two'", "auto or an integer"]),
        (["run", "--client-actors", "²"], ["--client-actors '²'", "auto or an integer"]),
        (["run", "--device", "gpu"], ["device 'gpu'", "auto, cpu or cuda"]),
        (["run", "--attack", "edge_case(pool=external)"], ["the dataset has no edge cases"]),
        (["runn"], ["unknown argument 'runn'", "did you mean 'run'"]),
        ([], ["COMMAND"]),
        (["sweep", "smok"], ["unknown search space 'smok'", "did you mean 'smoke'"]),
        (["sweep", "absent.py"], ["there is no such Python file"]),
        (["sweep", "smoke", "--set", "rounds"], ["not of the form key=value"]),
        (
            ["sweep", "smoke", "--set", "rounds=3", "--seeds", "1", "--set", "rounds = 4"],
            ["--set 'rounds=3' and --set 'rounds = 4' both set rounds; give one"],
        ),
        (["run", "--save", ""], ["--save: the path is empty"]),
        (["sweep", "smoke", "--out", ""], ["--out: the path is empty"]),
        (["leaderboard", "--experiment", "runs", "--out", ""], ["--out: the path is empty"]),
        (["sweep", "smoke", "--experiment", ""], ["experiment name '' is not allowed"]),
        (["sweep", "smoke", "--set", "round=3"], ["unknown key 'round'", "did you mean 'rounds'"]),
        (
            ["sweep", "smoke", "--set", "rounds=many"],
            ["backstop: --set: rounds='many' is not allowed"],
        ),
        (
            ["sweep", "smoke", "--set", "seed=3", "--seeds", "2"],
            ["--set seed=3 and --seeds both say which seeds"],
        ),
        (
            ["sweep", "smoke", "--set", "attack.strenght=3"],
            ["unknown key 'attack.strenght' for attack badnets"],
        ),
        (["sweep", "smoke", "--seeds", "x"], ["--seeds 'x'"]),
        (["sweep", "smoke", "--seeds", "0"], ["--seeds '0'"]),
        (["sweep", "tune_invariant", "--trials", "0"], ["--trials 0 is not allowed"]),
        (["sweep", "smoke", "--trials", "5"], ["--trials is for a search"]),
        (["sweep", "smoke", "--experiment", "a/b"], ["experiment name 'a/b' is not allowed"]),
        (["leaderboard", "--experiment", "nothing"], ["there is no database yet"]),
        (["leaderboard"], ["--experiment"]),
        (["verify", "absent.json"], ["absent.json", "No such file"]),
        (["list", "atacks"], ["unknown argument 'atacks'", "did you mean 'attacks'"]),
        (["show", "invarient"], ["unknown plug-in 'invarient'", "did you mean 'invariant'"]),
        (["data", "mnits"], ["unknown dataset 'mnits'", "did you mean 'mnist'"]),
    ],
    ids=lambda value: (
        " ".join(value)
        if isinstance(value, list) and value and not value[0].startswith(("unknown", "not "))
        else ""
    ),
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, arguments: list[str], expected: list[str]
) -> None:
    message = refused(capsys, *arguments)
    for words in expected:
        assert words in message
    assert not list(elsewhere.glob("**/*.db")), "nothing may be started"


def test_a_store_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    (elsewhere / "file").write_text("in the way")
    for command in (["run", *RUN], ["sweep", "smoke"]):
        assert "cannot be written" in refused(
            capsys, *command, "--store", str(elsewhere / "file" / "store")
        )


def test_a_store_that_is_no_database_is_refused_and_kept(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    (elsewhere / "store").mkdir()
    (elsewhere / "store" / "mlflow.db").write_bytes(b"something else entirely" * 100)
    assert "is not a sound MLflow database" in refused(capsys, "run", *RUN, "--store", "store")
    assert (elsewhere / "store" / "mlflow.db").read_bytes() == b"something else entirely" * 100


def test_an_unreachable_tracking_server_is_refused_at_the_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for command in (["run", *RUN], ["sweep", "smoke"], ["leaderboard", "--experiment", "x"]):
        assert "tracking server http://127.0.0.1:9 cannot be reached" in refused(capsys, *command)


def test_corrupt_data_is_named(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    raw = elsewhere / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (raw / name).write_bytes(b"not an idx file")
    message = refused(capsys, "run", "--dataset", "mnist")
    assert "train-images-idx3-ubyte" in message


def test_a_space_that_raises_is_named(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    (elsewhere / "mine.py").write_text("def mine():\n    raise RuntimeError('two\\nlines')\n")
    assert "mine.py raised RuntimeError: two lines" in refused(capsys, "sweep", "mine.py")


def test_list_names_every_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    for group in plugins.PACKAGES:
        found = printed(capsys, "list", group.replace("_", "-"), "--json")
        assert [item["name"] for item in found] == plugins.names(group)
        assert all(item["summary"] and "error" not in item for item in found)
    assert cli.main(["list"]) == 0
    assert "model_replacement" in capsys.readouterr().out


def test_a_notebooks_backend_is_no_concern_of_a_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://of_another_environment.backend_inline")
    monkeypatch.setattr(sys, "argv", ["backstop", "list", "models"])
    monkeypatch.setattr("backstop.platform.collector.skip_at_exit", lambda: None)
    assert cli.main() == 0
    assert "logistic" in capsys.readouterr().out
    assert "MPLBACKEND" not in os.environ


def test_show_is_the_data_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "invariant"]) == 0
    out = capsys.readouterr().out
    for words in (
        "AISTATS 2024",
        "mask_threshold",
        "[0, 0.5)",
        f"defense invariant, version {plugins.find('defenses', 'invariant').version}",
    ):
        assert words in out
    found = printed(capsys, "show", "model-replacement", "--json")
    assert found["strength"] == "strength"
    assert [item["name"] for item in found["parameters"]] == ["strength"]


def test_data_says_what_is_missing_and_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = {item["name"]: item for item in printed(capsys, "data", "--json")}
    assert found["digits"]["usable"]
    assert not found["cifar10"]["usable"]
    assert all(file["state"] == "missing" and file["hint"] for file in found["mnist"]["files"])
    assert cli.main(["data", "digits"]) == 0
    capsys.readouterr()
    assert cli.main(["data", "mnist"]) == 1
    assert "missing" in capsys.readouterr().out
    assert cli.main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"data folder: {os.environ['BACKSTOP_DATA']} (there is no such folder)"
    assert {word for line in lines for word in line.split()[1:2]} >= set(plugins.names("datasets"))
    assert max(map(len, lines[1:])) <= 110
    # on one line, to be copied
    assert sum("backstop data mnist --download" in line for line in lines) == 1
    # nobody but the user has its file: no fault
    (table,) = (line for line in lines if "· table " in line)
    assert "missing" not in table


SHELF = '''
"""Shelf: files in every state."""

from backstop.platform.contract import Dataset, File

FILES = [File(name, "{md5}", f"hint {{name[0]}}") for name in ("a1", "a2", "b1", "b2")]
INSTEAD = (File("c2", None, "hint c"), File("c3", "{md5}", "hint c"))
FILES.append(File("c1", None, "hint c", instead=INSTEAD))
EDGES = (File("e", None, "hint e", instead=(File("e1", None, ""),)), File("e", None, "hint e"))


def shelf() -> Dataset:
    return Dataset(load=print, files=tuple(FILES), edge_files=EDGES)
'''
OWN = '''
"""A file of the user."""

from backstop.platform.contract import Dataset, File


def own(*, path: str = "mine.csv") -> Dataset:
    return Dataset(load=print, files=(File(path, None, "name another"),))
'''


def test_data_shows_every_state(
    capsys: pytest.CaptureFixture[str], toys: Path, elsewhere: Path
) -> None:
    from backstop.platform.intake.files import md5_of

    for name in ("pictures", "sheet"):
        (toys / f"datasets/{name}.py").unlink()
    for name, source in (
        ("shelf", SHELF.format(md5=md5_of(b"right"))),
        ("own", OWN),
        ("broken", "import nothing_of_this_name\n"),
    ):
        (toys / f"datasets/{name}.py").write_text(source)
    folder = elsewhere / "data"
    folder.mkdir()
    for name, content in (
        ("a1", b"right"),
        ("a2", b"right"),
        ("b1", b"wrong"),
        ("c3", b"right"),
        ("e", b"any"),
    ):
        (folder / name).write_bytes(content)
    assert cli.main(["data"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"data folder: {folder}",
        "",
        "missing or corrupt",
        (
            "  ✗ shelf   3 files present, md5 ok; 1 file corrupt: b1; 1 file missing: b2; edge "
            "cases: e present"
        ),
        "            → hint b",
        "",
        "read a file of your own",
        "  · own     mine.csv is not there",
        "            → name another",
        "",
        "cannot be used",
        (
            "  ✗ broken  dataset 'broken' (toybox.datasets.broken) cannot be used: "
            "ModuleNotFoundError: No module named"
        ),
        "            'nothing_of_this_name'",
    ]
    assert cli.main(["data", "shelf"]) == 1
    right, wrong = md5_of(b"right"), md5_of(b"wrong")
    head, *lines = capsys.readouterr().out.splitlines()
    assert (
        f" corrupt {right} b1 {folder / 'b1'} is corrupt: its md5 is {wrong}, not {right} "
        in " ".join(" ".join(lines).split())
    )
    assert head == f"data folder: {folder}" and lines[0] == "✗ shelf: Files in every state."
    assert f"    present, md5 ok  {right}  c3, in place of c1" in lines
    assert f"    missing          {right}  b2" in lines
    assert f"    present          {'':32}  e (edge cases)" in lines
    assert lines[-1] == "    → hint b"
    (shelf,) = printed(capsys, "data", "shelf", "--json", code=1)
    found = {row["path"]: row for row in shelf["files"]}
    assert [(row["state"], row["md5"], row["found"]) for row in found.values()] == [
        ("present", right, "a1"),
        ("present", right, "a2"),
        ("corrupt", right, None),
        ("missing", right, None),
        ("present", right, "c3"),
        ("present", None, "e"),
    ]
    assert "dataset shelf has no downloader" in refused(capsys, "data", "shelf", "--download")
    (folder / "mine.csv").touch()
    # without a name: what can be fetched, here nothing
    assert cli.main(["data", "--download"]) == 0
    assert "  · own     mine.csv present" in capsys.readouterr().out


def test_data_on_the_real_folder(capsys: pytest.CaptureFixture[str], data_folder: Path) -> None:
    found = {
        item["name"]: item
        for item in printed(capsys, "data", "--json", "--data-dir", str(data_folder))
    }
    assert found["mnist"]["usable"]
    assert found["cifar10"]["usable"]


def test_help_states_every_field_of_the_spec(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["run", "--help"])
    out = capsys.readouterr().out
    for option in (
        "--per-round",
        "--local-epochs",
        "--malicious",
        "--alpha",
        "--eval-every",
        "--seed",
        "--server-lr",
        "--attack-every",
        "--precision",
        "--evaluate-on",
    ):
        assert option in out


def test_the_examples_of_set_work_for_every_space(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["sweep", "--help"])
    examples = re.findall(
        r"[\w.]+=[\w.]+", capsys.readouterr().out.partition("e.g. ")[2].partition("--trials")[0]
    )
    assert len(examples) == 3
    for space in plugins.names("search_spaces"):
        loaded = load_space(space)
        if isinstance(loaded, list):  # what a spec takes it takes with any seed
            loaded = [spec for spec in loaded if spec.seed == loaded[0].seed]
        for example in examples:
            key, _, value = example.partition("=")
            if key == "attack.strength" and space in {"worst_case", "tune_defenses"}:
                continue  # these search the attack, or have attacks of their own
            assert with_overrides(loaded, {key: parse_value(value)}, None, print)


def test_a_dry_run_prints_the_plan_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    document = printed(
        capsys, "sweep", "smoke", "--dry-run", "--json", "--set", "rounds=2", "--seeds", "2"
    )
    # for each of two seeds the clean twin of the trigger under three defenses besides the six
    # of the space
    assert len(document["specs"]) == 18
    assert [item["spec"]["dormant"] for item in document["specs"]].count(True) == 6
    assert {item["spec"]["rounds"] for item in document["specs"]} == {2}
    assert {item["spec"]["seed"] for item in document["specs"]} == {0, 1}
    assert cli.main(["sweep", "tune_invariant", "--dry-run"]) == 0
    capsys.readouterr()
    assert cli.main(["sweep", "smoke", "--dry-run", "--set", "attack.strength=1"]) == 0
    assert (
        "backstop: --set attack.strength changes 3 of 6 specs; without it: attack none"
        in capsys.readouterr().err
    )
    assert list(elsewhere.iterdir()) == []


def test_a_run_in_bfloat16_says_where_that_is_emulated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["run", *RUN, "--precision", "bfloat16"]
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": False})
    assert cli.main(arguments) == 0
    said = "backstop: precision=bfloat16: this CPU has no bfloat16 instructions"
    assert capsys.readouterr().err.count(said) == 1
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    assert cli.main([*arguments, "--seed", "1"]) == 0
    assert said not in capsys.readouterr().err
    first, second = read_runs(locate_store(Path("backstop-store")), "runs")
    assert first.spec["precision"] == second.spec["precision"] == "bfloat16"


def test_run_prints_one_document_and_logs_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "run",
        *RUN,
        "--attack",
        "badnets+model_replacement(strength=5)",
        "--defense",
        "invariant(mask_threshold=0.6)",
        "--json",
    ]
    found = printed(capsys, *arguments)
    assert set(found) == {"id", "spec", "rounds", "final", "timing", "run_id"}
    assert [row["round"] for row in found["rounds"]] == [0, 1]
    assert set(found["timing"]) >= {"time/train_s", "time/aggregate_s", "time/evaluate_s"}
    assert all(not key.startswith("time/") for row in found["rounds"] for key in row["metrics"])
    assert {
        "round/clean_accuracy",
        "round/attack_success_rate",
        "round/robust_accuracy",
        "round/train_loss",
    } <= set(found["rounds"][0]["metrics"])
    assert found["spec"]["defense"] == [
        {"name": "invariant", "params": {"mask_threshold": 0.6, "trim_fraction": 0.45}}
    ]
    told_once = {"final/start_accuracy", "final/test_samples", "final/success_samples"}
    assert told_once <= set(found["final"])
    again = printed(capsys, *arguments)
    assert {key: again[key] for key in ("id", "rounds", "final", "run_id")} == {
        key: found[key] for key in ("id", "rounds", "final", "run_id")
    }
    board = printed(capsys, "leaderboard", "--experiment", "runs", "--json", "--out", "board")
    assert [run["id"] for run in board["runs"]] == [found["id"]]
    assert {file.name for file in Path("board").iterdir()} == {
        f"leaderboard.{kind}" for kind in ("json", "csv", "md", "tex", "parquet", "html")
    } | {"runs.csv", "cells.parquet"}


def test_a_board_without_an_attack_says_that_it_ranks_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = "no run is attacked, so there is nothing to rank the defenses by"
    for attack, expected in (("none", True), ("badnets", False)):
        printed(capsys, "run", *RUN, "--attack", attack, "--json")
        assert cli.main(["leaderboard", "--experiment", "runs", "--out", "board"]) == 0
        assert (said in capsys.readouterr().err) == expected


def test_verify_agrees_until_a_digit_changes(capsys: pytest.CaptureFixture[str]) -> None:
    for defense in ("fedavg", "median"):
        printed(capsys, "run", *RUN, "--attack", "badnets", "--defense", defense, "--json")
    printed(capsys, "leaderboard", "--experiment", "runs", "--json", "--out", "board")
    file = Path("board/leaderboard.json")
    assert cli.main(["verify", str(file), "--sample", "2"]) == 0
    assert capsys.readouterr().out == f"{file}: agrees\n"
    document = json.loads(file.read_text())
    metrics = document["runs"][1]["metrics"]
    metrics["final/clean_accuracy"] += 0.01
    file.write_text(json.dumps(document))
    assert cli.main(["verify", str(file), "--sample", "1"]) == 1
    out = capsys.readouterr().out
    assert document["runs"][1]["id"][:12] in out
    assert "final/clean_accuracy" in out
    assert out.endswith("DIFFERS\n")
    metrics["final/clean_accuracy"] -= 0.01
    document["cells"][0]["clean_accuracy"]["mean"] = 0.123
    file.write_text(json.dumps(document))
    assert cli.main(["verify", str(file), "--sample", "1"]) == 1
    assert "clean_accuracy mean: file 0.123" in capsys.readouterr().out
    file.write_text("{}")
    assert "leaderboard" in refused(capsys, "verify", str(file))


def test_an_interrupted_run_goes_on_from_there(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    arguments = [
        "run",
        "--clients",
        "10",
        "--per-round",
        "5",
        "--rounds",
        "40",
        "--local-epochs",
        "2",
        "--batch",
        "4",
        "--device",
        "cpu",
        "--json",
    ]
    command = [sys.executable, "-m", "backstop.platform.cli", *arguments]
    kept = elsewhere / "backstop-store" / "checkpoints"
    for number, after in ((signal.SIGINT, "round  3/40"), (signal.SIGTERM, "round 12/40")):
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith(after):
                    process.send_signal(number)
                    break
            rest = process.stderr.read()
        assert process.returncode == 130, rest
        assert "the same command goes on from there" in rest
        assert "Traceback" not in rest
        assert len(list(kept.glob("*.pt"))) == 1
    assert cli.main(arguments) == 0
    resumed, messages = capsys.readouterr()
    assert "going on after round" in messages
    whole = printed(capsys, *arguments, "--store", "other")
    assert json.loads(resumed)["rounds"] == whole["rounds"]
    assert json.loads(resumed)["final"] == whole["final"]
    assert not list(kept.glob("*.pt"))


@pytest.mark.parametrize("step", ["open_log", "finish"])
def test_a_run_that_is_interrupted_while_it_is_stored_is_not_trained_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    arguments = ["run", *RUN, "--json"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Session, step, interrupted)
        assert cli.main(arguments) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(Experiment, "round", interrupted)
        assert cli.main(arguments) == 0
    stored = json.loads(capsys.readouterr().out)
    whole = printed(capsys, *arguments, "--store", "other")
    assert stored["final"] == whole["final"] and stored["rounds"] == whole["rounds"]


KILLED = """
import os, signal, sys
import backstop.platform.cli as cli
from backstop.platform.experiment import Experiment
from backstop.platform.sweeps import session

session.SAVE_INTERVAL_S = 0.0  # save after every round
real = Experiment.round

def round(self):
    if self.state.round == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self)

Experiment.round = round
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_killed_run_goes_on_from_its_last_save_and_is_shown_as_interrupted(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    arguments = ["run", *RUN, "--rounds", "6", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = locate_store(elsewhere / "backstop-store")
    assert [run.status for run in read_runs(store, "runs", status=None)] == ["RUNNING"]
    assert cli.main(arguments) == 0
    resumed, messages = capsys.readouterr()
    assert "backstop: 1 run was interrupted" in messages
    assert "going on after round 3 of 6" in messages
    whole = printed(capsys, *arguments, "--store", "other")
    assert json.loads(resumed)["rounds"] == whole["rounds"]
    assert json.loads(resumed)["final"] == whole["final"]
    assert [run.status for run in read_runs(store, "runs", status=None)] == ["FINISHED"]
    assert not list((elsewhere / "backstop-store").glob("drivers/*"))


def test_a_run_looks_at_its_store_before_it_trains(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    store = locate_store(elsewhere / "backstop-store")
    number = open_experiment(store, "mine")
    mlflow_client(store.uri).delete_experiment(number)
    monkeypatch.setattr(Experiment, "round", lambda self: pytest.fail("nothing may be trained"))
    assert "experiment name 'a/b' is not allowed" in refused(
        capsys, "run", *RUN, "--experiment", "a/b"
    )
    message = refused(capsys, "run", *RUN, "--experiment", "mine")
    assert "experiment 'mine' was deleted in MLflow" in message
    line = message.partition(" or run: ")[2].replace(" mlflow ", f" {sys.executable} -m mlflow ")
    monkeypatch.undo()
    monkeypatch.chdir(elsewhere)
    subprocess.run(line, shell=True, check=True, capture_output=True)
    assert cli.main(["run", *RUN, "--experiment", "mine", "--data-dir", "data"]) == 0


def test_a_disk_that_is_full_loses_nothing_that_was_stored(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    """Room for a store, which then fills up in mid-run."""
    (elsewhere / "small").mkdir()
    arguments = ["run", *RUN, "--seed", "1", "--json"]
    whole = printed(capsys, *arguments, "--store", "large")
    real = Experiment.round
    with mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(elsewhere / "small")):
        assert cli.main(["run", *RUN, "--store", "small/store"]) == 0
        before = read_runs(locate_store(Path("small/store")), "runs")
        filler = elsewhere / "small" / "filler"

        def fill(self: Experiment) -> Any:
            with suppress(OSError), filler.open("wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(4096))
            return real(self)

        monkeypatch.setattr(Experiment, "round", fill)
        capsys.readouterr()
        assert cli.main([*arguments, "--store", "small/store"]) == 1
        said = [
            line for line in capsys.readouterr().err.splitlines() if line.startswith("backstop: ")
        ]
        assert len(said) == 1, said
        assert "trained but not stored" in said[0]
        assert "No space left on device" in said[0]
        monkeypatch.setattr(Experiment, "round", real)
        assert "the disk is full" in refused(capsys, *arguments, "--store", "small/store")
        filler.unlink()
        assert read_runs(locate_store(Path("small/store")), "runs") == before
        again = printed(capsys, *arguments, "--store", "small/store")
        assert {key: again[key] for key in ("rounds", "final")} == {
            key: whole[key] for key in ("rounds", "final")
        }
        assert {
            run.status for run in read_runs(locate_store(Path("small/store")), "runs", status=None)
        } == {"FINISHED"}


@pytest.mark.parametrize("command", [["run", *RUN], ["sweep", "smoke"]])
def test_a_disk_of_120_kib_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], elsewhere: Path, command: list[str]
) -> None:
    (elsewhere / "small").mkdir()
    with mounted("-t", "tmpfs", "-o", "size=120k", "tmpfs", str(elsewhere / "small")):
        assert "the disk is full: 120 KiB are free" in refused(capsys, *command, "--store", "small")
        assert not list((elsewhere / "small").iterdir())


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = (
        f"{sys.executable} -m backstop.platform.cli list --json | head -c 10; exit "
        f"${{PIPESTATUS[0]}}"
    )
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""


def test_the_first_round_comes_soon() -> None:
    """Not a timing: heavy imports must not stand before the first round's line."""
    code = (
        "import sys, backstop.platform.cli as cli\n"
        "from backstop.platform.commands import run\n"
        "HEAVY = 'rich ray mlflow optuna matplotlib pandas sklearn scipy torchvision'.split()\n"
        "show = run._show_round\n"
        "def first(*given):\n"
        "    show(*given)\n"
        "    print([name for name in HEAVY if name in sys.modules]); raise KeyboardInterrupt\n"
        "run._show_round = first\n"
        f"sys.exit(cli.main({['run', *RUN]!r}))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert "round 1/2" in found.stderr
    assert found.stdout == "[]\n", found.stderr
    assert found.returncode == 130


def test_time_stands_still_in_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "run", *RUN, "--json")
    first = printed(capsys, "leaderboard", "--experiment", "runs", "--json", "--out", "one")
    time.sleep(1.1)
    second = printed(capsys, "leaderboard", "--experiment", "runs", "--json", "--out", "two")
    assert first == second
    assert Path("one/leaderboard.json").read_bytes() == Path("two/leaderboard.json").read_bytes()
    assert Path("one/leaderboard.html").read_bytes() == Path("two/leaderboard.html").read_bytes()


def test_defenses_are_listed_with_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "defenses", "--json"]) == 0
    found = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert len(found) >= 38
    assert (
        found["fltrust"]["needs"] == ["root set"]
        and found["foolsgold"]["needs"] == ["history"]
        and found["median"]["needs"] == []
    )
    assert found["krum"]["needs"] == ["assumed f"] and found["fedprox"]["needs"] == [
        "client change"
    ]
    assert (
        found["median"]["gives"] == "one merged row"
        and found["foolsgold"]["takes"] == "each client's own row"
    )
    assert cli.main(["list", "defenses"]) == 0
    assert "needs root set" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["show", "flame"]) == 0
    sheet = capsys.readouterr().out
    assert all(
        word in sheet
        for word in (
            "HDBSCAN",
            "Source:",
            "USENIX Security 2022",
            "Deviations:",
            "takes: several rows",
            "noise",
        )
    )


def test_chains_without_sense_exit_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--defense", "median+krum"]) == 2
    assert capsys.readouterr().err.strip() == (
        "backstop: defense median+krum: median leaves one merged row and krum compares rows; put "
        "krum first"
    )
    assert cli.main(["run", "--defense", "fltrust", "--root-size", "0"]) == 2
    assert "root set" in capsys.readouterr().err
