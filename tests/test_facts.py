"""What plug-ins say of themselves: read once, checked, and never the end of a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from backstop.platform import cli, plugins
from backstop.platform.declarations import facts
from backstop.platform.declarations.facts import AttackFacts, DefenseFacts
from backstop.platform.params import BadInput
from tests.conftest import forget


def drop(toys: Path, group: str, name: str, constants: str) -> Path:
    """A plug-in with these constants among the toys."""
    file = toys / group / f"{name}.py"
    factory = f'def {name}(*, size: int = 3) -> str:\n    return "it"\n'
    file.write_text(f'"""Dropped."""\n\n{constants}\n\n\n{factory}')
    forget()
    return file


def test_constants_are_read_into_their_types(toys: Path) -> None:
    drop(toys, "attacks", "mine", 'KNOWS, TRIGGER = "all", False\nSTRENGTH = "size"\nRATE = 0.5')
    assert plugins.attack_facts("mine") == AttackFacts(knows="all", trigger=False, strength="size")
    drop(toys, "defenses", "mine", 'VERSION = 4\nNEEDS = ["f", "root"]\nPREDICTS = "size"')
    told = DefenseFacts(version=4, needs=("f", "root"), predicts="size")
    assert plugins.defense_facts("mine") == told
    assert plugins.find("defenses", "mine").version == 4


def test_what_is_left_out_has_its_default(toys: Path) -> None:
    assert plugins.defense_facts("clip") == DefenseFacts()
    assert plugins.kinds("models", "line") == plugins.kinds("search_spaces", "one") == ()
    assert plugins.kinds("datasets", "sheet") == ("table",)


@pytest.mark.parametrize(
    ("group", "constants", "problem"),
    [
        (
            "attacks",
            'KNOWS = "own"',
            "TRIGGER is missing; TRIGGER is true or false, whether it defines what success is",
        ),
        ("attacks", "TRIGGER = 1", "TRIGGER=1 is not allowed; TRIGGER is true or false"),
        (
            "attacks",
            'TRIGGER = True\nKNOWS = "al"',
            "KNOWS='al' is not allowed; KNOWS is own or defense or all; did you mean 'all'?",
        ),
        (
            "attacks",
            'TRIGGER = True\nSTRENGTH = "siz"',
            "STRENGTH='siz' is none of its parameters; did you mean 'size'?",
        ),
        (
            "attacks",
            'TRIGGER = True\nKINDS = "image"',
            "KINDS='image' is not allowed; KINDS is a tuple of image or text or table",
        ),
        (
            "defenses",
            'NEEDS = ("root", "clietns")',
            (
                "NEEDS='clietns' is not allowed; NEEDS is f or root or history or clients or model"
                " or buffers or validation; did you mean 'clients'?"
            ),
        ),
        ("defenses", 'PREDICTS = "no"', "PREDICTS='no' is none of its parameters; known: size"),
        (
            "datasets",
            "VERSION = 0",
            "VERSION=0 is not allowed; VERSION is an integer in [1, 1e+09]",
        ),
    ],
)
def test_a_missing_or_wrong_constant_is_one_line(
    toys: Path, group: str, constants: str, problem: str
) -> None:
    file = drop(toys, group, "mine", constants)
    for read in (plugins.find, plugins.describe):
        with pytest.raises(BadInput) as refusal:
            read(group, "mine")
        assert str(refusal.value) == f"{file}: {problem}"


@pytest.mark.parametrize(
    ("constants", "error"),
    [
        ("", "TRIGGER is missing"),
        ("raise SystemExit(3)", "cannot be used: SystemExit: 3"),
        ("import nothing_of_this_name", "cannot be used: ModuleNotFoundError"),
        ("TRIGGER = not_defined", "cannot be used: NameError: name 'not_defined'"),
        ("(", "cannot be used: SyntaxError"),
    ],
)
def test_a_broken_plugin_never_takes_the_list_down(
    toys: Path, capsys: pytest.CaptureFixture[str], constants: str, error: str
) -> None:
    drop(toys, "attacks", "mine", constants)
    assert cli.main(["list", "attacks", "--json"]) == 0
    listed = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert list(listed) == ["flip", "mine", "scale", "stamp"]
    assert error in listed["mine"]["error"]
    assert listed["stamp"]["kind"] == "trigger"
    assert cli.main(["list"]) == 0
    assert error in " ".join(capsys.readouterr().out.split())
    assert cli.main(["show", "mine"]) == 2
    assert error in capsys.readouterr().err


def test_every_value_of_a_fact_has_its_words() -> None:
    for words, values in (
        (facts.KNOWS, facts.Knowledge),
        (facts.NEEDS, facts.Need),
        (facts.TAKES, facts.Taken),
        (facts.GIVES, facts.Given),
        (facts.KEEPS, facts.Kept),
    ):
        assert tuple(words) == get_args(values)
