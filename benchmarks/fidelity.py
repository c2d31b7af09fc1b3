"""Write docs/fidelity.md: every attack and defense, where it is from, what was held against what,
what differs.

    python benchmarks/fidelity.py

All of it stands in the plug-ins' data sheets; a test compares the page with them.
"""

from __future__ import annotations

from pathlib import Path

from backstop.platform import plugins

PAGE = Path(__file__).parents[1] / "docs" / "fidelity.md"
HEAD = """# Fidelity

Every attack and defense is somebody's method. This page says whose, what of it was held against
what, and where Backstop differs, so that a figure can be traced to the method it stands for. It is
written from the data sheets by `python benchmarks/fidelity.py`; `backstop show NAME` has the whole
sheet.

*Checked* names the code or text that the method was compared with. "(remembered)" marks a figure or
a formula that could not be verified there: papers' full texts were mostly out of reach. A deviation
is kept where it is better or where the platform's terms differ, and is stated; the rest was mended.
"""


def rows(group: str) -> list[str]:
    """The lines of a group's table."""
    listed = []
    for name in plugins.names(group):
        plugin = plugins.find(group, name)
        sections = (plugin.section(title) for title in ("Source", "Checked", "Deviations"))
        cells = [f"`{name}`", str(plugin.version), *(section or "–" for section in sections)]
        listed.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return listed


def page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for group in ("defenses", "attacks"):
        listed = rows(group)
        heads = [
            f"## {group.capitalize()} ({len(listed)})",
            "",
            "| method | version | source | checked | deviations |",
            "| :--- | ---: | :--- | :--- | :--- |",
        ]
        parts.append("\n".join([*heads, *listed]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
