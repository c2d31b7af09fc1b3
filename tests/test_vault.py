"""Files of which the content counts: a spec names them by what they hold, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args

import pytest

from backstop.platform import extras, plugins, vault
from backstop.platform.params import BadInput, Content, declare
from backstop.platform.specs.part import Part, complete_part, parse_part
from tests.conftest import forget

MODEL = '''"""A net."""

from typing import Annotated

from backstop.platform.params import Content


def net(
    *,
    weights: Annotated[str | None, Content(), "its weights"] = None,
    base: Annotated[str | None, Content(("config.json", "*.bin")), "its base"] = None,
) -> str:
    """Whatever."""
    return f"{weights} {base}"
'''
BASE = Content(("config.json", "*.bin"))


@pytest.fixture(autouse=True)
def net(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model with two such parameters, and a working folder of its own."""
    (toys / "models" / "net.py").write_text(MODEL)
    forget()
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BACKSTOP_STARTS", raising=False)
    vault._kept.cache_clear()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield
    vault._kept.cache_clear()


def base(folder: str, **files: str) -> Path:
    for file, text in files.items():
        place = Path(folder, file.replace("_", "."))
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    return Path(folder)


def named(text: str) -> str:
    return str(complete_part(parse_part(text), "models"))


def test_a_file_is_named_by_what_it_holds_wherever_it_lies() -> None:
    Path("a.bin").write_text("one")
    Path("b.bin").write_text("one")
    digest = hashlib.sha256(b"one").hexdigest()
    assert named("net(weights=a.bin)") == f"net(base=None, weights=sha256-{digest})"
    assert named("net(weights=a.bin)") == named("net(weights=b.bin)")
    assert named(f"net(weights=sha256-{digest})") == named("net(weights=b.bin)")
    Path("a.bin").write_text("other")
    assert named("net(weights=a.bin)") != named("net(weights=b.bin)")
    Path("b.bin").unlink()
    assert vault.read_kept(f"sha256-{digest}", "model net: weights") == b"one"  # a copy is kept
    assert named("net") == "net(base=None, weights=None)"


def test_a_folder_is_named_by_the_files_that_count() -> None:
    base("one", config_json="{}", a_bin="1", b_bin="2")
    base("two", b_bin="2", a_bin="1", config_json="{}", README_md="no matter")
    base("three", config_json="{}", a_bin="1", c_bin="2")
    first, second, third = (named(f"net(base={folder})") for folder in ("one", "two", "three"))
    assert first == second != third
    name = complete_part(Part("net", {"base": "one"}), "models").params["base"]
    assert isinstance(name, str)
    lines = [
        f"{hashlib.sha256(Path('one', file).read_bytes()).hexdigest()}  {file}\n"
        for file in ("a.bin", "b.bin", "config.json")
    ]
    # what `sha256sum *.bin config.json | sha256sum` prints in the folder
    assert name == f"sha256-{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    with vault.as_folder(name, BASE, "model net: base") as made:
        assert sorted(file.name for file in made.iterdir()) == ["a.bin", "b.bin", "config.json"]
        assert (made / "b.bin").read_text() == "2"
    assert not made.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("net(weights=a.bin)", r"model net: weights='a.bin': there is no such file \(looked for"),
        ("net(weights=empty)", "weights='empty': there is no such file"),
        ("net(base=a)", "model net: base='a': there is no such folder"),
        ("net(base=empty)", "model net: base='empty': the folder has no config.json or *.bin"),
        ("net(weights=3)", "weights=3 is not allowed"),
    ],
)
def test_what_is_not_there_is_one_line(text: str, words: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(BadInput) as caught:
        named(text)
    assert words.replace("\\", "") in str(caught.value) and "\n" not in str(caught.value)


def test_a_copy_that_is_lost_or_changed_is_told(tmp_path: Path) -> None:
    Path("a.bin").write_text("one")
    name = vault.keep_bytes(b"one")
    (tmp_path / "cache" / "starts" / name).write_text("two")
    with pytest.raises(BadInput, match="was changed; remove it"):
        vault.read_kept(name, "weights")
    (tmp_path / "cache" / "starts" / name).unlink()
    with pytest.raises(BadInput, match=f"weights={name} is not in .*; give its path once"):
        vault.read_kept(name, "weights")
    assert vault.read_kept("a.bin", "weights") == b"one"


def test_a_missing_library_is_one_line_that_says_what_brings_it() -> None:
    with pytest.raises(BadInput) as caught:
        extras.need(["json", "no_such_a", "no_such_b"], "models", "model x")
    assert str(caught.value) == (
        "model x needs no_such_a and no_such_b, which are not installed; the extra models brings"
        " them: pip install '.[models]' in a checkout"
    )


def test_the_annotation_is_read() -> None:
    annotation = plugins.find("models", "net").factory.__annotations__["base"]
    assert Content in map(type, get_args(annotation))
    assert declare("base", annotation, None).content == BASE
    assert declare("size", Annotated[int, "a size"], 1).content is None
