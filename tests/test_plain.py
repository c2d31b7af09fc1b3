"""Terminals and pipes that cannot carry every character: what is printed there is plain, and
nothing fails.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from backstop.platform import cli, plugins
from backstop.platform.commands import live, plain
from backstop.platform.contract import Spec
from backstop.platform.sweeps.queues import Fixed, Queue

ROOT = Path(__file__).resolve().parents[1]


class Terminal:
    """Streams of an encoding in the place of stdout and stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
        self.encoding, self.files = encoding, (io.BytesIO(), io.BytesIO())
        for name, file in zip(("stdout", "stderr"), self.files, strict=True):
            stream = io.TextIOWrapper(file, encoding, errors="strict", write_through=True)
            monkeypatch.setattr(sys, name, stream)

    def said(self) -> tuple[str, str]:
        out, err = (file.getvalue().decode(self.encoding) for file in self.files)
        return out, err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["list"], "invariant"),
        (["show", "invariant"], "|1/n Sigma_i sign(u_ij)| >= tau"),
        (["data"], "-> put the folder cifar-100-python"),
        (["sweep", "--help"], "N|A,B,..."),
        (["run", "--help"], "--defense"),
    ],
    ids=["list", "show", "data", "help of sweep", "help of run"],
)
def test_what_is_printed_is_plain(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    encoding: str,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.setenv("BACKSTOP_DATA", str(tmp_path))
    terminal = Terminal(monkeypatch, encoding)
    if "--help" in arguments:
        with pytest.raises(SystemExit):
            cli.main(arguments)
    else:
        assert cli.main(arguments) == 0
    out, err = terminal.said()
    assert expected in out and "\\" not in out and err == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_messages_are_plain(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    terminal = Terminal(monkeypatch, encoding)
    assert cli.main(["run", "--attack", "bädnets→"]) == 2
    out, err = terminal.said()
    assert out == "" and err.count("\n") == 1 and "->" in err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_the_same_document_in_every_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    terminal = Terminal(monkeypatch, encoding)
    assert cli.main(["show", "invariant", "--json"]) == 0
    document = json.loads(terminal.said()[0])
    assert document["sheet"] == plugins.find("defenses", "invariant").sheet
    assert "τ" in document["sheet"]


def test_a_path_that_is_no_text_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name of bytes that are no UTF-8 cannot be printed even on a terminal of UTF-8."""
    folder = tmp_path / "\udcff"
    folder.mkdir()
    terminal = Terminal(monkeypatch, "utf-8")
    assert cli.main(["data", "--data-dir", str(folder)]) == 0
    assert f"data folder: {tmp_path}/\\udcff" in terminal.said()[0]


def test_the_live_table_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, "ascii")
    plain.settle(sys.stderr)
    planned = [Spec(seed=seed) for seed in range(3)]
    queue = Queue(Fixed(planned), {planned[0].id: {}})
    assert queue.fill()
    with live.Watch("spaceα", queue) as watch:
        watch.started(Spec())
        watch.console.print(watch.draw())
    assert "spacealpha: 1/3 done * 1 running" in terminal.said()[1]


def test_every_sign_of_the_sheets_has_a_likeness() -> None:
    folders = ("platform", "attacks", "defenses", "search_spaces")
    texts = [
        file.read_text(encoding="utf-8")
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
    ]
    # an example of what has none
    signs = {sign for text in texts for sign in text if not sign.isascii()} - {"雪"}
    assert len(signs) > 50
    assert [
        sign for sign in signs if "\\" in plain.plain(sign) or not plain.plain(sign).isascii()
    ] == []
