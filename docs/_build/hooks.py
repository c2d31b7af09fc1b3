"""What MkDocs calls while it builds the site: pages are added, links out of docs/ are led to them.

Nothing that is made here is ever written to docs/.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from boards import board_titles
from borrowed import BORROWED, lead_home
from notebook_pages import notebook_page, tutorials_page
from plugin_pages import plugin_pages
from reference_pages import reference_pages

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ROW = re.compile(r"^\|[^`\]]+\|$", re.MULTILINE)  # without code and links
JOINT = re.compile(r"(?<=[\w)])\+|(?<=[a-z])\(")  # of a chain
MARK = re.compile(
    r"^<!-- .* -->\n", re.MULTILINE
)  # for scripts; Markdown wants none before a table


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the sections whose pages are known by their folders alone."""
    assert config.nav is not None
    sections: dict[str, list[Any]] = {}
    for section in config.nav:
        sections.update(section)
    sections["Plug-ins"] += [
        {title: [f"plugins/{page}" for page in pages]} for title, pages in _plugin_groups().items()
    ]
    sections["Reference"] += [name for name in reference_pages() if not name.endswith("index.md")]
    sections["Tutorials"] += [
        f"tutorials/{file.stem}.md" for file in sorted((DOCS / "tutorials").glob("*.ipynb"))
    ]
    sections["Decisions"] += [
        f"decisions/{file.name}" for file in sorted((DOCS / "decisions").glob("*.md"))
    ]
    sections["Results"] += [
        {title: f"results/{folder}/leaderboard.md"} for folder, title in board_titles().items()
    ]
    return config


def _plugin_groups() -> dict[str, list[str]]:
    """Group → its pages, the index of the group first."""
    groups: dict[str, list[str]] = {}
    for name in plugin_pages():
        folder, _, page = name.removeprefix("plugins/").partition("/")
        if page:
            title = folder.replace("_", " ").capitalize()
            groups.setdefault(title, []).append(f"{folder}/{page}")
    return groups


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in docs/."""
    pages = {
        **{page: (ROOT / file).read_text(encoding="utf-8") for file, page in BORROWED.items()},
        **plugin_pages(),
        **reference_pages(),
        "decisions/index.md": decisions_page(),
        "tutorials/index.md": tutorials_page(),
    }
    for notebook in sorted((DOCS / "tutorials").glob("*.ipynb")):
        pages[f"tutorials/{notebook.stem}.md"] = notebook_page(notebook)
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def decisions_page() -> str:
    """The titles of the decisions."""
    lines = []
    for file in sorted((DOCS / "decisions").glob("*.md")):
        title = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        number, _, words = title.partition(". ")
        lines.append(f"{number}. [{words}]({file.name})")
    head = "# Decisions\n\nWhat was decided once, why, and what follows from it.\n\n"
    return head + "\n".join(lines) + "\n"


def on_page_markdown(
    markdown: str,
    page: Page,
    config: MkDocsConfig,  # noqa: ARG001 -- MkDocs passes it by name
    files: Files,  # noqa: ARG001
) -> str:
    """A page's text without the marks of scripts, its links led to pages of the site; long chains
    in the tables of a leaderboard may break behind a stage.
    """
    text = MARK.sub("\n", markdown)
    if page.file.src_uri.startswith("results/"):
        text = ROW.sub(lambda row: JOINT.sub(r"\g<0><wbr>", row[0]), text)
    return lead_home(text, page.file.src_uri)
