"""Plug-in files that lie anywhere: named by what they hold, sent to other processes, and missed
without harm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backstop.platform import cli, loose, plugins
from backstop.platform.experiment import Experiment, run
from backstop.platform.params import BadInput
from backstop.platform.specs.change import change_spec
from backstop.platform.specs.part import Part, parse_chain
from backstop.platform.specs.spec import Spec, spec_from_json, spec_to_json
from backstop.platform.sweeps.calibration import calibrate
from backstop.platform.workers.actors import Worker, pack
from tests.conftest import forget

DEFENSE = '''"""Halving: every row times a share.

More text.
"""

from typing import Annotated, NamedTuple

from backstop.platform.contract import Defense
from backstop.platform.params import Range

NEEDS = ("history",)


class Rounds(NamedTuple):
    done: int


def halving(*, share: Annotated[float, Range(0, 1), "what is kept"] = 0.5) -> Defense:
    def apply(updates, state, view):
        return updates._replace(rows=updates.rows * share), Rounds(state.done + 1)

    return Defense(init=lambda view: Rounds(0), apply=apply)


def third() -> Defense:
    return halving(share=0.3)
'''
SMALL = Spec(
    dataset=Part("synthetic", {"samples": 300}),
    model=Part("logistic"),
    clients=5,
    per_round=3,
    rounds=2,
    root_size=0,
)
TINY = "--dataset synthetic(samples=300) --model logistic --clients 5 --per-round 3 --rounds 2"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with halving.py in it; what is read there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loose, "FILES", {})
    monkeypatch.setattr(loose, "GIVEN", {})
    Path("halving.py").write_text(DEFENSE)
    yield tmp_path
    forget()


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a process that has read no file."""
    monkeypatch.setattr(loose, "FILES", {})
    monkeypatch.setattr(loose, "GIVEN", {})
    forget()


def with_defense(text: str) -> Spec:
    return SMALL.replace(defense=parse_chain(text)).resolved


def name() -> str:
    digest = hashlib.sha256(Path("halving.py").read_bytes()).hexdigest()
    return f"halving@{digest[:12]}"


def board(where: str) -> Any:
    return json.loads(Path(where, "leaderboard.json").read_text())


def refusal(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("backstop: ")
    return err.removeprefix("backstop: ").strip()


def test_a_path_is_a_name_that_says_what_the_file_holds(folder: Path) -> None:
    spec = with_defense("norm_clip(norm=1)+./halving.py(share=0.2)")
    assert spec.defense[1] == Part(name(), {"share": 0.2})
    for same in (f"{folder}/halving.py(share=0.2)", f"'{folder}/halving.py'(share=0.2)"):
        assert with_defense(f"norm_clip(norm=1)+{same}").id == spec.id
    assert parse_chain(str(spec.defense[1])) == (spec.defense[1],)
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))).id == spec.id


def test_a_file_goes_by_its_name_once_it_is_given(folder: Path) -> None:
    by_path = with_defense("./halving.py")
    with pytest.raises(BadInput, match=r"unknown defense 'halving'; .* say \./halving\.py$"):
        with_defense("halving")
    plugins.give_file("~/halving.py" if folder == Path.home() else "halving.py")
    assert with_defense("halving").id == by_path.id == with_defense(name()).id


def test_a_changed_file_is_another_experiment_and_the_old_one_stays_what_it_was() -> None:
    before = with_defense("./halving.py")
    Path("halving.py").write_text(DEFENSE + "# a comment\n")
    after = with_defense("./halving.py")
    assert before.id != after.id
    assert {before.defense[0].name, after.defense[0].name} <= {
        file.key for file in loose.FILES.values()
    }
    assert [plugins.find("defenses", spec.defense[0].name).name for spec in (before, after)] == [
        before.defense[0].name,
        after.defense[0].name,
    ]


def test_another_function_of_the_file_goes_by_both_names() -> None:
    (stage,) = with_defense("halving.py:third").defense
    assert stage == Part(f"halving:third@{name().partition('@')[2]}")


def test_it_runs_as_a_defense_of_the_folder_would() -> None:
    free = [record.metrics for record in run(with_defense("./halving.py(share=1)"))]
    plain = [record.metrics for record in run(SMALL)]
    halved = [record.metrics for record in run(with_defense("./halving.py"))]
    losses = [
        [metrics["round/train_loss"] for metrics in metered] for metered in (free, plain, halved)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("median.py", DEFENSE, r"there is a defense 'median' already \(backstop.defenses.median\)"),
        ("badnets.py", DEFENSE, r"there is a attack 'badnets' already"),
        ("none.py", DEFENSE, "'none' is no stage at all"),
        ("two-words.py", DEFENSE, "has to be called as a function can be"),
        ("empty.py", "x = 1\n", r"has no function empty\(\), named as the file"),
        ("broken.py", "def broken(:\n", "raised SyntaxError"),
        ("lonely.py", "import beside_it\n", "a loose file is all of a plug-in"),
        ("leaves.py", "raise SystemExit(0)\n", "raised SystemExit: 0"),
        ("facts.py", 'NEEDS = ("luck",)\ndef facts(): ...\n', "NEEDS='luck' is not allowed"),
        ("gone.py", None, "the file does not exist"),
    ],
)
def test_a_file_that_cannot_be_one_is_refused_in_one_line(
    file: str, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path(file).write_text(text)
    line = refusal("run", "--defense", f"./{file}", capsys=capsys)
    assert file in line
    with pytest.raises(BadInput, match=message):
        plugins.find("defenses", f"./{file}")


def test_two_files_of_one_name_are_told_apart(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "halving.py").write_text(DEFENSE + "\n")
    plugins.give_file("halving.py")
    plugins.give_file("./halving.py")
    with pytest.raises(BadInput, match="one name is one plug-in"):
        plugins.give_file("other/halving.py")


def test_a_file_of_this_repository_is_the_plug_in() -> None:
    assert plugins.full_name("defenses", str(plugins.folder("defenses") / "median.py")) == "median"


def test_a_key_names_the_stage_without_digits() -> None:
    spec = change_spec(with_defense("./halving.py"), "defense.halving.share", 0.25)
    assert spec.defense[0] == Part(name(), {"share": 0.25})


def test_another_process_is_sent_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = with_defense("./halving.py")
    experiment = Experiment(spec, Path(), "cpu")
    files = loose.sent()
    Path("halving.py").unlink()
    assert calibrate([spec], Path(), "cpu", 0.1)[0].rounds
    elsewhere(monkeypatch)
    worker = Worker("cpu")
    with pytest.raises(BadInput, match=r"is not here; say --plugin halving\.py, with the path"):
        worker.open(spec, "key", pack(experiment.built.data))
    worker.open(spec, "key", pack(experiment.built.data), files)


def test_list_show_and_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "defenses", "--plugin", "halving.py", "--json"]) == 0
    listed = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert listed[name()]["summary"] == "Halving: every row times a share."
    for words in (["halving.py"], ["halving", "--plugin", "halving.py"], ["halving.py:third"]):
        assert cli.main(["show", *words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["name"].startswith("halving")
    assert cli.main(["check", "./halving.py"]) == 1
    out = capsys.readouterr().out
    assert "\ndefense halving: " in out and "no line begins with Shapes:" in out


def test_a_stored_run_keeps_the_file_and_is_ranked_and_verified_without_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*TINY.split(), "--store", "store", "--experiment", "mine"]
    for defense in ("fedavg", "./halving.py"):
        attacked = ["--attack", "label_flip", "--defense", defense]
        assert cli.main(["run", *options, *attacked]) == 0
        assert cli.main(["run", *options, *attacked, "--dormant", "true"]) == 0
        assert cli.main(["run", *options, "--defense", defense]) == 0
    (first, *_) = Path("store").rglob("plugins/*/halving.py")
    assert first.read_text() == DEFENSE
    ranked = ["leaderboard", "--store", "store", "--experiment", "mine", "--out"]
    assert cli.main([*ranked, "with"]) == 0
    capsys.readouterr()

    elsewhere(monkeypatch)
    assert cli.main([*ranked, "without"]) == 0
    assert f"{name()}: not here" in capsys.readouterr().err
    without, whole = (board(folder) for folder in ("without", "with"))
    (mine,) = [row for row in without["rows"] if name() in row["defense"]]
    (told,) = [row for row in whole["rows"] if name() in row["defense"]]
    assert (mine.pop("needs"), told.pop("needs")) == ([], ["history"])
    assert without["rows"] == whole["rows"]
    assert cli.main(["verify", "with", "--sample", "9"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("with: agrees\n")
    assert f"not run again, as {name()} is not here" in said.err
    again = ["run", *options, "--attack", "label_flip", "--defense", name()]
    assert "say --plugin halving.py" in refusal(*again, capsys=capsys)

    assert cli.main(["verify", "with", "--sample", "9", "--plugin", "halving.py"]) == 0
    assert "not run again" not in capsys.readouterr().err
    assert cli.main([*again, "--plugin", str(folder / "halving.py")]) == 0
    assert "finished already" in capsys.readouterr().err
    Path("halving.py").write_text(DEFENSE + "# changed\n")
    elsewhere(monkeypatch)
    line = refusal(*again, "--plugin", "halving.py", capsys=capsys)
    assert f"{name().partition('@')[2]}" in line and "another file than halving.py" in line
