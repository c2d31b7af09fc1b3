"""The folder is the registry: what is found, what is refused, and that every plug-in of the
repository can be read.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from backstop.platform import plugins
from backstop.platform.declarations.facts import AttackFacts
from backstop.platform.params import BadInput, fill
from tests.conftest import forget

REAL = [(group, name) for group in plugins.PACKAGES for name in plugins.names(group)]


def test_a_dropped_file_is_a_plugin(toys: Path) -> None:
    assert plugins.names("defenses") == ["clip", "middle"]
    (toys / "defenses" / "added.py").write_text(
        '"""Added."""\n\n\ndef added() -> str:\n    """It."""\n    return "added"\n'
    )
    forget()
    assert plugins.names("defenses") == ["added", "clip", "middle"]
    assert plugins.build("defenses", "added", {}) == "added"


def test_names_are_sorted_hidden_ones_left_out_and_nothing_is_imported(toys: Path) -> None:
    assert plugins.names("attacks") == ["flip", "scale", "stamp"]
    assert plugins.names("search_spaces") == ["one"]
    assert "toybox.attacks.stamp" not in sys.modules


def test_a_plugin_as_its_file_declares_it(toys: Path) -> None:
    stamp = plugins.find("attacks", "stamp")
    assert (stamp.name, stamp.version, stamp.summary, list(stamp.parameters)) == (
        "stamp",
        1,
        "Stamps.",
        ["target", "size"],
    )
    assert stamp.facts == AttackFacts(version=1, kinds=("image",), trigger=True)
    assert plugins.find("attacks", "flip").version == 3
    assert plugins.find("defenses", "clip").version == 1
    assert plugins.find("defenses", "clip").sheet == "Clips rows.\n\nMore text."


def test_build_fills_and_checks(toys: Path) -> None:
    assert plugins.build("attacks", "stamp", {"size": 5}) == "stamp 0 5"
    with pytest.raises(
        BadInput, match=r"attack stamp: size=9 is not allowed; size is an integer in \[1, 8\]"
    ):
        plugins.build("attacks", "stamp", {"size": 9})
    with pytest.raises(
        BadInput, match="attack stamp: unknown parameter 'sise'; did you mean 'size'"
    ):
        plugins.build("attacks", "stamp", {"sise": 5})


@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        ("attacks", "stmp", "unknown attack 'stmp'; did you mean 'stamp'?"),
        ("defenses", "zzzz", "unknown defense 'zzzz'; known: clip, middle"),
        ("search_spaces", "two", "unknown search space 'two'; known: one"),
        ("search_spaces", "_hidden", "unknown search space '_hidden'; known: one"),
    ],
)
def test_unknown_names(toys: Path, group: str, name: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        plugins.find(group, name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "AttributeError"),
        (
            "def broken(norm: float = 1.0): ...",
            "TypeError: broken: parameter 'norm' must be keyword-only",
        ),
        ("raise SystemError('boom')", "SystemError: boom"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(toys: Path, source: str, reason: str) -> None:
    (toys / "defenses" / "broken.py").write_text(f'"""Broken."""\n{source}\n')
    forget()
    with pytest.raises(
        BadInput, match=r"defense 'broken' \(toybox\.defenses\.broken\) cannot be used: " + reason
    ):
        plugins.find("defenses", "broken")
    assert plugins.build("defenses", "clip", {}) == "clip 1.0"


def test_entry_points_of_other_packages(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "backstop.defenses": [
            EntryPoint("foreign", "toybox.attacks.scale:scale", "backstop.defenses")
        ]
    }
    monkeypatch.setattr(plugins, "entry_points", lambda group: points.get(group, []))
    forget()
    assert plugins.names("defenses") == ["clip", "foreign", "middle"]
    assert plugins.build("defenses", "foreign", {"factor": 2}) == "scale 2.0"


def test_one_name_from_two_sources_is_refused(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [EntryPoint("clip", "other:clip", group)]
    )
    forget()
    with pytest.raises(
        BadInput,
        match=r"defense 'clip' is defined twice: toybox\.defenses\.clip:clip and other:clip",
    ):
        plugins.names("defenses")


def test_owner(toys: Path) -> None:
    assert [plugins.owner(name) for name in ("stamp", "clip", "line", "one", "nobody")] == [
        "attacks",
        "defenses",
        "models",
        "search_spaces",
        None,
    ]


def test_a_file_by_path(toys: Path, tmp_path: Path) -> None:
    file = tmp_path / "outside.py"
    file.write_text(
        '"""Outside."""\n\n\ndef outside(*, n: int = 2) -> int:\n    """N."""\n    return n\n'
    )
    found = plugins.load_file(str(file), "search_spaces")
    assert (found.name, found.summary, found.factory(n=4)) == ("outside", "Outside.", 4)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "there is no such Python file"),
        ("1 / 0", "raised ZeroDivisionError"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("def other(): ...", r"has no function outside\(\), named as the file"),
    ],
)
def test_a_file_by_path_that_cannot_be_used(
    tmp_path: Path, source: str | None, message: str
) -> None:
    file = tmp_path / "outside.py"
    if source is not None:
        file.write_text(source)
    with pytest.raises(BadInput, match=message):
        plugins.load_file(str(file), "search_spaces")


@pytest.mark.parametrize(("group", "name"), REAL)
def test_every_plugin_of_the_repository_can_be_read(group: str, name: str) -> None:
    plugin = plugins.find(group, name)
    assert plugin.version >= 1
    assert plugin.summary.endswith(".")
    defaults = {key: parameter.default for key, parameter in plugin.parameters.items()}
    # every default lies in its own range
    assert fill(plugin.parameters, defaults, name) == defaults


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, name in REAL if group != "search_spaces"]
)
def test_every_parameter_says_what_it_is(group: str, name: str) -> None:
    plugin = plugins.find(group, name)
    for parameter in plugin.parameters.values():
        assert parameter.text, f"{name}: {parameter.name} has no help text"
        if float in parameter.types or int in parameter.types:
            assert parameter.range is not None, f"{name}: {parameter.name} has no range"


def test_a_chain_needs_what_its_stages_need() -> None:
    assert plugins.needs(["krum", "foolsgold", "median", "gone"]) == ["assumed f", "history"]
    assert plugins.needs([]) == []
