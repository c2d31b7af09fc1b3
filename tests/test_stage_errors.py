"""What the code of a plug-in raises names the stage, the round and the client, in one line."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from backstop.platform import cli, plugins
from backstop.platform.contract import Attack, BrokenStage, Defense, Local, Part, Spec
from backstop.platform.experiment import run
from backstop.platform.params import BadInput
from backstop.platform.sweeps.trials import BROKEN_STAGE, failure_reason
from backstop.platform.training.attack_chain import attack_chain
from backstop.platform.training.defense_chain import chain
from backstop.platform.training.stage_errors import failure_line, located
from tests.views import attack_view, server_view

LOOP = Spec(clients=6, per_round=6, rounds=2, malicious=0.5, root_size=20, model=Part("cnn"))
BLOCK = LOOP.replace(model=Part("mlp"))


def luckless(*_: Any) -> NoReturn:
    raise ValueError("no\n luck")


def as_stage(monkeypatch: pytest.MonkeyPatch, group: str, stage: Attack | Defense, of: str) -> None:
    """Let a plug-in's name stand for a stage made here."""
    build = plugins.build

    def replaced(asked: str, name: str, params: Any) -> Any:
        return stage if (asked, name) == (group, of) else build(asked, name, params)

    monkeypatch.setattr(plugins, "build", replaced)


def line_of(spec: Spec) -> str:
    """How the experiment ends; what was raised stays as the cause."""
    with pytest.raises(BrokenStage) as caught:
        list(run(spec, folder=Path("unused"), device="cpu"))
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError) and str(cause) == "no\n luck"
    return str(caught.value)


def assert_matches(pattern: str, text: str) -> None:
    assert re.fullmatch(pattern, text), text


def test_a_stage_that_leaves_the_program_breaks_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command would end without a word, as if all were done."""
    stage = Attack(plan=lambda *_: sys.exit(0))
    as_stage(monkeypatch, "attacks", stage, "badnets")
    with pytest.raises(BrokenStage, match=r"^attack badnets: round 1: SystemExit: 0 \(.*\)$"):
        list(run(LOOP.replace(attack=(Part("badnets"),)), folder=Path("unused"), device="cpu"))


@pytest.mark.parametrize("spec", [LOOP, BLOCK], ids=["loop", "block"])
@pytest.mark.parametrize(
    ("hook", "at_client"),
    [
        ("plan", False),
        ("poison", True),
        ("objective", True),
        ("train", True),
        ("craft", False),
        ("trigger", False),
    ],
)
def test_an_attack_is_named(
    monkeypatch: pytest.MonkeyPatch, spec: Spec, hook: str, at_client: bool
) -> None:
    goal = (lambda _, y: y) if hook == "trigger" else None
    broken: dict[str, Any] = {"goal": goal, hook: luckless}
    stage = Attack(**broken)
    as_stage(monkeypatch, "attacks", stage, "badnets")
    spec = spec.replace(attack=(Part("badnets"),), attack_start=0 if hook == "trigger" else 1)
    round_number = 1 if hook == "trigger" else 2
    client = r"client \d: " if at_client else ""
    expected = rf"attack badnets: round {round_number}: {client}ValueError: no luck \(\w+\.py:\d+\)"
    assert_matches(expected, line_of(spec))


@pytest.mark.parametrize("spec", [LOOP, BLOCK], ids=["loop", "block"])
@pytest.mark.parametrize(
    ("stage", "round_number", "at_client"),
    [
        (Defense(apply=luckless), 1, False),
        (Defense(send=luckless), 1, False),
        (Defense(finish=luckless), 2, False),
        (Defense(predict=luckless), 2, False),
        (Defense(local=Local(prepare=luckless, batch=lambda _, x, y, draws: (x, y))), 1, True),
        (Defense(local=Local(batch=luckless)), 1, True),
    ],
    ids=["apply", "send", "finish", "predict", "prepare", "batch"],
)
def test_a_defense_is_named(
    monkeypatch: pytest.MonkeyPatch, spec: Spec, stage: Defense, round_number: int, at_client: bool
) -> None:
    as_stage(monkeypatch, "defenses", stage, "fedprox")
    client = r"client \d: " if at_client else ""
    expected = (
        rf"defense fedprox: round {round_number}: {client}ValueError: no luck \(\w+\.py:\d+\)"
    )
    assert_matches(expected, line_of(spec.replace(defense=(Part("fedprox"),))))


def test_a_stage_that_cannot_begin_is_named() -> None:
    defense = chain(Defense(), Defense(init=luckless), names=["krum"])
    with pytest.raises(BrokenStage, match=r"^defense stage 2: ValueError: no luck \("):
        defense.init(server_view(2))
    attack = attack_chain([Attack(init=luckless)], ["own"])
    assert attack.init is not None
    with pytest.raises(BrokenStage, match=r"^attack stage 1: ValueError: no luck \("):
        attack.init(attack_view("table"))


def test_bad_input_stays_bad_input() -> None:
    def refuse(*_: Any) -> NoReturn:
        raise BadInput("source=1 is no class")

    with pytest.raises(BadInput, match=r"^source=1 is no class$"):
        chain(Defense(init=refuse)).init(server_view(2))


def test_the_inner_place_counts_and_survives_another_process() -> None:
    error = BrokenStage("defense krum", "ValueError: no luck")
    with pytest.raises(BrokenStage), located(4, 2), located(4, 7), located(2):
        raise error
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error) == "defense krum: round 3: client 7: ValueError: no luck"
    assert failure_line(error, 5) == str(error)
    assert failure_reason(f'File "a.py"\n{BROKEN_STAGE}{error}') == str(error)
    assert f"{BrokenStage.__module__}.{BrokenStage.__name__}: " == BROKEN_STAGE


def test_the_command_line_says_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    as_stage(monkeypatch, "defenses", Defense(apply=luckless), "krum")
    options = "--rounds 2 --clients 6 --per-round 6 --root-size 20 --device cpu"
    assert cli.main(["run", "--defense", "krum", *options.split()]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("backstop: the run failed: defense krum: round 1: ValueError: no luck (")
