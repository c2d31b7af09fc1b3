"""What a reviewer asks of a plug-in's data sheet: its parts, and an example that runs."""

from __future__ import annotations

import doctest
import re
import sys
from collections.abc import Iterator
from types import ModuleType

from backstop.platform.plugins import Plugin

PARTS = {  # how a part begins → what it says
    "Shapes": "what goes in and comes out, in letters",
    "Source": "authors, title, venue, year and the number of the equation or algorithm",
    "Deviations": "from the paper and from its public code, and why; or none",
}


def lacking(plugin: Plugin) -> Iterator[str]:
    """A line for each part that the data sheet does not have."""
    if not _module(plugin).__doc__:
        yield "data sheet: there is none; the module's docstring is the data sheet"
        return
    for part, words in PARTS.items():
        if not re.search(rf"(?m)^{part}\b", plugin.sheet):
            yield f"data sheet: no line begins with {part}: ({words})"


def _module(plugin: Plugin) -> ModuleType:
    return sys.modules[plugin.factory.__module__]


def failing_examples(plugin: Plugin) -> Iterator[str]:
    """A line where there is no example, and one for each that does not give what it says."""
    tests = [test for test in doctest.DocTestFinder().find(_module(plugin)) if test.examples]
    if not tests:
        yield "example: there is none; the docstring shows one that runs (>>> …)"
    told: list[str] = []
    for test in tests:
        doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    for text in told:
        yield f"example: {_brief(text)}"


def _brief(report: str) -> str:
    """A failure of doctest in one line: what was run, expected and got."""
    _, _, told = report.partition("Failed example:")
    return " ".join((told or report).split())[:300]
