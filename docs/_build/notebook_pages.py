"""Notebooks as Markdown: their texts, their code and the outputs that they are stored with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
COLORS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal
STYLE = re.compile(r"<style.*?</style>\s*", re.DOTALL)


def tutorials_page() -> str:
    """The tutorials by their titles."""
    lines = [f"* [{_title(file)}]({file.stem}.md)" for file in _notebooks()]
    head = (
        "# Tutorials\n\nNotebooks with the outputs of their last run; a test runs them anew. They"
        " lie in `docs/tutorials/` of the repository.\n\n"
    )
    return head + "\n".join(lines) + "\n"


def _notebooks() -> list[Path]:
    return sorted(TUTORIALS.glob("*.ipynb"))


def _title(file: Path) -> str:
    first = "".join(_cells(file)[0]["source"])
    return first.partition("\n")[0].removeprefix("# ")


def _cells(file: Path) -> list[Mapping[str, Any]]:
    cells: list[Mapping[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return cells


def notebook_page(file: Path) -> str:
    """A notebook's cells one after another."""
    return "\n\n".join(block for cell in _cells(file) for block in _blocks(cell)) + "\n"


def _blocks(cell: Mapping[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        yield _output(output)


def _output(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _verbatim("".join(output["text"]))
    held = output.get("data", {})
    if "text/html" in held:
        return STYLE.sub("", "".join(held["text/html"]))
    if "image/png" in held:
        return f"![](data:image/png;base64,{''.join(held['image/png']).strip()})"
    return _verbatim("".join(held.get("text/plain", "")))


def _verbatim(text: str) -> str:
    lines = [line.rstrip() for line in COLORS.sub("", text).rstrip().split("\n")]
    return "\n".join(["```text", *lines, "```"])
