"""The files outside docs/ that are pages of the site, and links to them and to other files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BORROWED = {  # file of the repository → page of the site
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "deploy/README.md": "deploy.md",
    "benchmarks/results.md": "benchmarks/results.md",
    "benchmarks/aggregators.md": "benchmarks/aggregators.md",
}
FOLDERS = {"docs/decisions": "decisions/index.md", "deploy": "deploy.md"}
PAGES = {page: file for file, page in BORROWED.items()}
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def lead_home(markdown: str, page: str) -> str:
    """The text of a page with links that lead where its files are in the site; a link to a file
    that the site does not have is the file's name.
    """
    parts = []
    end = 0
    for fence in FENCE.finditer(markdown):
        parts += [_led(markdown[end : fence.start()], page), fence[0]]
        end = fence.end()
    return "".join([*parts, _led(markdown[end:], page)])


def _led(text: str, page: str) -> str:
    return LINK.sub(_leading(page), text)


def _leading(page: str) -> Callable[[re.Match[str]], str]:
    """What a link on a page becomes."""
    home = PAGES.get(page, f"docs/{page}")

    def led(link: re.Match[str]) -> str:
        text, target = link[1], link[2]
        if target.startswith("#") or re.match(r"[a-z]+:", target):
            return link[0]
        path, sign, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(home), path))
        aim = _page_of(file)
        if aim is None:
            name = text[1:-1]
            return name if name.startswith("`") else f"{name} (`{file}`)" if name != file else file
        return f"{text}({posixpath.relpath(aim, posixpath.dirname(page) or '.')}{sign}{anchor})"

    return led


def _page_of(file: str) -> str | None:
    """The page of the site that a file of the repository is; None where it is none."""
    if file in BORROWED:
        return BORROWED[file]
    if file in FOLDERS:
        return FOLDERS[file]
    if file.startswith("docs/") and not (ROOT / file).is_dir():
        page = file.removeprefix("docs/")
        return f"{page.removesuffix('.ipynb')}.md" if page.endswith(".ipynb") else page
    return None if (ROOT / file).exists() else file
