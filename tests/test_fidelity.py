"""The page on fidelity says what the data sheets say, and every sheet says it."""

from __future__ import annotations

import pytest

from backstop.platform import plugins
from benchmarks import fidelity

METHODS = [(group, name) for group in ("attacks", "defenses") for name in plugins.names(group)]


@pytest.mark.parametrize(("group", "name"), METHODS)
def test_a_sheet_says_where_it_is_from_what_was_checked_and_what_differs(
    group: str, name: str
) -> None:
    plugin = plugins.find(group, name)
    for title in ("Source", "Checked", "Deviations"):
        assert len(plugin.section(title)) > 3, f"{group}/{name}.py has no paragraph {title}: …"


def test_the_page_is_that_of_the_sheets() -> None:
    assert fidelity.PAGE.read_text() == fidelity.page(), "run: python benchmarks/fidelity.py"


def test_every_method_stands_in_a_table() -> None:
    page = fidelity.page()
    for group, name in METHODS:
        version = plugins.find(group, name).version
        assert page.count(f"| `{name}` | {version} |") == 1, f"{group}/{name}"
