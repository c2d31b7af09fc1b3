"""A page for each plug-in: its data sheet, its parameters, and its rows in the published boards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from boards import Board, attack_rows, defense_rows, space_boards, task_boards
from prose import inline, markdown

from backstop.platform import plugins
from backstop.platform.declarations.facts import (
    GIVES,
    KEEPS,
    KNOWS,
    NEEDS,
    TAKES,
    AttackFacts,
    DefenseFacts,
    SearchSpaceFacts,
)
from backstop.platform.results.tables.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[2]
TITLES = {
    "attacks": "Attacks",
    "defenses": "Defenses",
    "datasets": "Datasets",
    "models": "Models",
    "search_spaces": "Search spaces",
}
DEFENSE_NOTE = (
    "In percent, with a range of the seeds or a 95 % interval from six seeds on; the ranks that the"
    " seeds leave open stand in brackets. Two boards are two questions: their figures are not"
    " comparable."
)
ATTACK_NOTE = (
    "Against FedAvg without a defense, in percent. *Clean twin* is what the same triggered inputs"
    " achieve where nobody attacks; *excess* is the attack's success above that, as a share of the"
    " room that is left."
)
NOTHING = (
    "No published leaderboard has it yet; `backstop sweep` with a space that names it makes one."
)


@lru_cache
def plugin_pages() -> dict[str, str]:
    """Page of the site → its Markdown."""
    pages = {"plugins/index.md": _index()}
    for group in plugins.PACKAGES:
        pages[f"plugins/{group}/index.md"] = _group_page(group)
        for name in plugins.names(group):
            pages[f"plugins/{group}/{name}.md"] = _page(group, name)
    return pages


def _index() -> str:
    lines = [
        f"* [{title}]({group}/index.md): {len(plugins.names(group))}"
        for group, title in TITLES.items()
    ]
    head = (
        "# Plug-ins\n\nA plug-in is one file with one public function. Each page holds what the"
        " file says of itself, as `backstop show NAME` does, and the rows that the published"
        " leaderboards have of it.\n\n"
    )
    return head + "\n".join(lines) + "\n"


def _group_page(group: str) -> str:
    rows = [
        f"| [`{name}`]({name}.md) | {inline(plugins.describe(group, name).summary)} |"
        for name in plugins.names(group)
    ]
    return f"# {TITLES[group]}\n\n| name | what it is |\n| :--- | :--- |\n" + "\n".join(rows) + "\n"


def _page(group: str, name: str) -> str:
    plugin = plugins.describe(group, name)
    blocks = [
        f"# {name}",
        markdown(plugin.sheet, sections=True),
        "## Facts",
        "\n".join(f"* {line}" for line in _facts(plugin)),
        *_parameters(plugin),
        *_measured(group, name),
    ]
    return "\n\n".join(blocks) + "\n"


def _facts(plugin: plugins.Plugin) -> Iterator[str]:
    facts = plugin.facts
    if isinstance(facts, SearchSpaceFacts):
        yield f"run it: `backstop sweep {plugin.name}`"
        return
    yield f"version {plugin.version}, part of the id of every spec that uses it"
    if facts.kinds:
        yield f"kinds of data: {', '.join(facts.kinds)}"
    if isinstance(facts, AttackFacts):
        yield f"knows: {KNOWS[facts.knows]}"
        yield _what_it_is(facts)
        if facts.strength:
            yield f"strength: `{facts.strength}`"
    if isinstance(facts, DefenseFacts):
        needed = [words for need, words in NEEDS.items() if need in facts.needs]
        yield f"needs: {', '.join(needed) or 'nothing besides the rows'}"
        yield f"takes {TAKES[facts.takes]}, gives {GIVES[facts.gives]}"
        if facts.keeps:
            yield f"each client keeps {KEEPS[facts.keeps]}"
        if facts.repairs:
            yield "repairs the final model, and does nothing else"


def _what_it_is(facts: AttackFacts) -> str:
    if facts.trigger:
        return "a trigger: it defines what success is"
    if facts.untargeted:
        return "untargeted: it only does damage"
    return "a way to train or to craft updates: it stands behind a trigger"


def _parameters(plugin: plugins.Plugin) -> Iterator[str]:
    if not plugin.parameters:
        return
    rows = [
        (f"`{item.name}`", f"`{item.default}`", item.allowed, item.text)
        for item in plugin.parameters.values()
    ]
    yield "## Parameters"
    yield markdown_table(("parameter", "default", "allowed", "meaning"), ("left",) * 4, rows)


def _measured(group: str, name: str) -> Iterator[str]:
    yield "## Measured"
    if group == "defenses":
        yield from _noted(DEFENSE_NOTE, defense_rows(name))
    elif group == "attacks":
        yield from _noted(ATTACK_NOTE, attack_rows(name))
    elif group == "search_spaces":
        yield _listed("The leaderboard of this space:", space_boards(name))
    else:
        yield _listed("Leaderboards on it:", task_boards(group, name))


def _noted(note: str, tables: Iterable[str]) -> Iterator[str]:
    listed = list(tables)
    if not listed:
        yield NOTHING
        return
    yield note
    yield from listed


def _listed(head: str, boards: Iterable[Board]) -> str:
    links = [f"[`{board.document['experiment']}`]({board.link})" for board in boards]
    return f"{head} {', '.join(links)}." if links else NOTHING
