"""Docstrings and data sheets as Markdown: plain paragraphs, formulas and examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

WIDTH = 100  # columns to which prose is filled
SYMBOLS = re.compile(r"<-|[=←≤≥∈Σ‖~·⊙]")
ROLE = re.compile(r":(?:func|data|mod|class):`[~.]*([^`]+)`")
TITLE = re.compile(r"([A-Z][A-Za-z ]{1,15}):\s+(?=\S)")
CODE = re.compile(r"``.+?``|`[^`]+`")


def markdown(text: str, *, sections: bool = False) -> str:
    """Paragraph after paragraph; with ``sections`` one that begins with a title, as those of a data
    sheet do, has it in bold.
    """
    return "\n\n".join(_blocks(text, sections=sections))


def _blocks(text: str, *, sections: bool) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        head, example, code = paragraph.partition(">>> ")
        if example:
            yield "**Example:**" if head.strip() == "Example:" else inline(_joined(head))
            yield f"```python\n{_dedented(example + code)}\n```"
        elif _is_formula(paragraph):
            yield f"```text\n{_dedented(paragraph)}\n```"
        else:
            later = sections and not text.startswith(paragraph)
            yield _titled(_joined(paragraph)) if later else inline(_joined(paragraph))


def _joined(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _dedented(text: str) -> str:
    lines = text.strip("\n").split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    return "\n".join([lines[0].strip(), *(line[margin:] for line in lines[1:])])


def _is_formula(paragraph: str) -> bool:
    """Whether its lines are meant as they stand: indented, or symbols on lines that end early."""
    lines = paragraph.split("\n")
    if any(line.startswith((" ", "- ", "* ")) for line in lines):
        return True
    if not SYMBOLS.search(lines[0]) or TITLE.match(lines[0]):
        return False
    if len(lines) == 1:
        return "``" not in paragraph
    pairs = pairwise(lines)
    return any(len(line) + 1 + len(after.split(" ")[0]) <= WIDTH for line, after in pairs)


def _titled(text: str) -> str:
    title = TITLE.match(text)
    if title is None:
        return inline(text)
    return f"**{title[1]}:** {inline(text[title.end() :])}"


def inline(text: str) -> str:
    r"""Text that Markdown shows as it stands; code stays code.

    >>> inline("a_b * ``c_d`` <e>")
    'a\\_b \\* `c_d` &lt;e&gt;'
    """
    text = ROLE.sub(r"`\1`", text)
    parts = []
    end = 0
    for code in CODE.finditer(text):
        parts += [_escaped(text[end : code.start()]), f"`{code[0].strip('`')}`"]
        end = code.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\*_\[\]])", r"\\\1", text).replace("|", "&#124;")
    return re.sub(r"(https?://[^\s,;)&]+[^\s,;)&.])", _link, text)


def _link(address: re.Match[str]) -> str:
    plain = address[1].replace("\\", "")
    return f"[{address[1]}]({plain})"
