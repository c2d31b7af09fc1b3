"""Write the counts and lists of plug-ins in the README and in docs/ anew from the registry.

    python benchmarks/plugin_lists.py

Each list stands between two marks, ``<!-- plug-ins: NAME -->`` and ``<!-- end -->``; a test holds
the pages to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from backstop.platform import plugins
from backstop.platform.contract import Dataset, Defense

ROOT = Path(__file__).parents[1]
END = "<!-- end -->"

TRIGGERS = "trigger"
UPDATES = "update"
INFORMED = "update, informed"
UNTARGETED = "update, untargeted"
ATTACK_KINDS = {
    TRIGGERS: "what malicious clients train on, and what success means",
    UPDATES: "how they train and what they send",
    INFORMED: "what they send, knowing the defense or the honest updates",
    UNTARGETED: "nothing but damage: controls for robustness, with no attack success",
}

REJECT = "rows → rows"
MERGE = "rows → one row"
CLIENTS = "client-side"
REPAIR = "after training"
DEFENSE_KINDS = {
    REJECT: "rejects, weighs, clips or mixes the round's updates",
    MERGE: "an aggregate of its own",
    CLIENTS: "changes how honest clients train; attackers do not follow",
    REPAIR: "repairs the final model, or labels inputs, with the server's root set",
}


def attack_kind(name: str) -> str:
    """What an attack stage decides, as its facts say."""
    facts = plugins.attack_facts(name)
    if facts.trigger:
        return TRIGGERS
    if facts.untargeted:
        return UNTARGETED
    return UPDATES if facts.knows == "own" else INFORMED


def defense_kind(name: str) -> str:
    """Where a defense does its work, as its facts and its functions say."""
    facts = plugins.defense_facts(name)
    if "clients" in facts.needs:
        return CLIENTS
    if facts.gives == "row":
        return MERGE
    stage: Defense = plugins.build("defenses", name, {})
    at_test = facts.predicts and stage.apply is Defense().apply
    return REPAIR if stage.finish or at_test else REJECT


def by_kind(group: str, kinds: Iterable[str], kind: Callable[[str], str]) -> dict[str, list[str]]:
    """Kind → the names of a group that are of it."""
    names = plugins.names(group)
    return {one: [name for name in names if kind(name) == one] for one in kinds}


def code(names: Iterable[str]) -> str:
    """Names as they stand on a page."""
    return ", ".join(f"`{name}`" for name in names)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of text."""
    lines = [heads, [":---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def kind_table(kinds: Mapping[str, str], decides: str, names: Mapping[str, list[str]]) -> str:
    """The kinds of a group, each with its stages."""
    rows = [
        (kind, meaning, f"{len(names[kind])}: {code(names[kind])}")
        for kind, meaning in kinds.items()
    ]
    return table(("kind", decides, "stages"), rows)


def attacks() -> str:
    """The kinds of attack stages."""
    names = by_kind("attacks", ATTACK_KINDS, attack_kind)
    return kind_table(ATTACK_KINDS, "what it decides", names)


def defenses() -> str:
    """The kinds of defense stages."""
    names = by_kind("defenses", DEFENSE_KINDS, defense_kind)
    return kind_table(DEFENSE_KINDS, "what it does", names)


def datasets() -> str:
    """The datasets, with the edge cases that ``edge_case`` takes."""
    rows = []
    for name in plugins.names("datasets"):
        plugin = plugins.find("datasets", name)
        dataset: Dataset = plugins.build("datasets", name, {})
        edge_cases = "its own; tail" if dataset.edge_cases else "tail"
        kinds = ", ".join(plugins.kinds("datasets", name))
        rows.append((f"`{name}`", kinds, plugin.summary, edge_cases))
    return table(("dataset", "kind", "what it is", "edge cases"), rows)


def models() -> str:
    """The models, with their parameters."""
    rows = []
    for name in plugins.names("models"):
        plugin = plugins.find("models", name)
        kinds = ", ".join(plugins.kinds("models", name))
        rows.append((f"`{name}`", kinds, code(plugin.parameters) or "–", plugin.summary))
    return table(("model", "kinds of data", "parameters", "what it is"), rows)


def counted(names: Mapping[str, list[str]], words: Mapping[str, str]) -> str:
    """How many there are of each kind, in words."""
    return ", ".join(f"{len(names[kind])} {text}" for kind, text in words.items())


def counts() -> str:
    """How many plug-ins there are, group by group."""
    attack_words = {
        TRIGGERS: "triggers",
        UPDATES: "ways to train and craft updates",
        INFORMED: "that know the defense or the honest updates",
        UNTARGETED: "untargeted controls",
    }
    defense_words = {
        REJECT: "that reject, weigh, clip or mix rows",
        MERGE: "that merge them into one",
        CLIENTS: "that change honest clients' training",
        REPAIR: "that repair the final model or label inputs",
    }
    said = {
        "attacks": counted(by_kind("attacks", ATTACK_KINDS, attack_kind), attack_words),
        "defenses": counted(by_kind("defenses", DEFENSE_KINDS, defense_kind), defense_words),
        **{group: code(plugins.names(group)) for group in ("datasets", "models", "search_spaces")},
    }
    rows = [
        (group.replace("_", " "), str(len(plugins.names(group))), which)
        for group, which in said.items()
    ]
    return table(("plug-ins", "number", "which"), rows)


LISTS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "counts": ("README.md", counts),
    "attacks": ("docs/attacks.md", attacks),
    "defenses": ("docs/defenses.md", defenses),
    "datasets": ("docs/datasets.md", datasets),
    "models": ("docs/datasets.md", models),
}


def split(page: str, name: str) -> tuple[str, str, str]:
    """A page's text before its list, the list, and the text after it."""
    mark = f"<!-- plug-ins: {name} -->\n"
    head, found, rest = page.partition(mark)
    if not found:
        raise SystemExit(f"there is no mark for the list of plug-ins {name!r}: {mark.strip()}")
    listed, _, tail = rest.partition(END)
    return head + mark, listed, END + tail


def main() -> None:
    """Write every list."""
    for name, (page, listed) in LISTS.items():
        file = ROOT / page
        head, _, tail = split(file.read_text(encoding="utf-8"), name)
        file.write_text(head + listed() + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
