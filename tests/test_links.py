"""Every link of the pages leads to a file that is there, and its anchor to a heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(\s*<?([^()\s>]+(?:\([^()\s]*\))?)>?[^()]*\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
ADDRESS = re.compile(r"[a-z]+:")  # of another site: not asked


def links(text: str) -> Iterator[str]:
    """The targets of a text's links inside the repository, without those in code."""
    prose = CODE.sub("``", FENCE.sub("", text))
    for target in LINK.findall(prose):
        if not ADDRESS.match(target):
            yield target


def slug(heading: str) -> str:
    """A heading's anchor, as the repository's host makes it."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page; of headings that are alike the later ones have a number."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        anchor, number = slug(heading), 0
        while anchor in found:
            number += 1
            anchor = f"{slug(heading)}-{number}"
        found.add(anchor)
    return found


def broken(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    wrong = []
    for target in links(text):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        is_there = file.exists() and file.is_relative_to(ROOT)
        if not is_there or (anchor and (file.suffix != ".md" or anchor not in anchors(file))):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_a_link_that_leads_nowhere_is_noticed() -> None:
    page = ROOT / "docs" / "concepts.md"
    text = (
        "[a](nothing.md) [b](statistics.md#range-and-interval) [c](statistics.md#no)"
        " ![d](../../outside.png) `[e](code.md)` [f](#threat-models) [g](#no) [h](https://x.org)\n"
        "```\n[i](fence.md)\n```\n"
    )
    assert broken(page, text) == ["nothing.md", "statistics.md#no", "../../outside.png", "#no"]


def test_headings_have_the_anchors_of_the_host() -> None:
    assert slug("Fixed: methods are their authors' (numbers change)") == (
        "fixed-methods-are-their-authors-numbers-change"
    )
    assert slug("`run` – a [link](x.md)") == "run--a-link"
