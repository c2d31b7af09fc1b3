"""The tables of docs/defenses.md and docs/attacks.md, written anew from the leaderboards of their
sweeps.

    backstop sweep all_defenses             (likewise all_attacks, attacks_on_cifar10, durability)
    python benchmarks/tables.py [STORE]

Each table stands between two marks, ``<!-- table: NAME -->`` and ``<!-- end -->``; a sweep whose
leaderboard is not in the store leaves its tables as they are, and that is said.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backstop.platform import plugins
from backstop.platform.contract import Part
from backstop.platform.results.renderings import undefended
from backstop.platform.results.wording import percent
from backstop.platform.specs.part import parse_chain

Document = Mapping[str, Any]
VENUE = re.compile(
    r"(AAAI|ACSAC|AISTATS|ASIA CCS|CCS|ECCV|ICASSP|ICDCS|ICLR|ICML|IEEE S&P|IEEE TBD|IEEE TSP|KDD"
    r"|MLSys|NDSS|NeurIPS|PODC|RAID|S&P|UAI|USENIX Security|WACV|Transactions on Signal Processing"
    r"|Transactions on Big Data)[^0-9\"]{0,12}((?:19|20)\d\d)"
)
YEAR = re.compile(r"\b(?:19|20)\d\d\b")
LONG = {"Transactions on Signal Processing": "IEEE TSP", "Transactions on Big Data": "IEEE TBD"}
UPDATE_COLUMNS = ("knows", "clean twin", "untriggered")


def origin(source: str) -> str:
    """Venue and year of a method's source, or the year alone.

    >>> origin('A. Author, "A Title, 1999", ICML 2018, definition 2.')
    'ICML 2018'
    """
    venue = VENUE.search(source)
    if venue:
        return f"{LONG.get(venue[1], venue[1])} {venue[2]}"
    year = YEAR.search(source)
    return year[0] if year else "–"


def mean(figure: Mapping[str, float] | None) -> str:
    """A figure's mean in percent."""
    return "–" if figure is None else percent(figure["mean"])


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], text: int) -> str:
    """A table whose first ``text`` columns are text."""
    rule = [":---"] * text + ["---:"] * (len(heads) - text)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows)) + "\n"


def written(attack: str) -> str:
    """An attack as one would write it: without the parameters that have their defaults.

    >>> written("badnets(share=0.2, size=3, source=None, target=0, value=1.0)")
    'badnets(share=0.2)'
    """

    def brief(stage: Part) -> Part:
        declared = plugins.find("attacks", stage.name).parameters
        given = {
            key: value for key, value in stage.params.items() if value != declared[key].default
        }
        return Part(stage.name, given)

    return "+".join(str(brief(stage)) for stage in parse_chain(attack))


def code(name: str) -> str:
    """A name as it stands on the page, with the mark of what is not ranked outside."""
    return f"`{name.removesuffix('°')}`{'°' * name.endswith('°')}"


def defenses(document: Document) -> str:
    """Every defense against one strong backdoor, in the order of the leaderboard."""
    anyway = {
        cell["defense"]: cell["untriggered_target_rate"]
        for cell in document["cells"]
        if cell["attack"] != "none"
    }
    heads = (
        "#", "defense", "source", "needs", "DER", "accuracy", "attack success", "untriggered",
        "accuracy without attack",
    )  # fmt: skip
    rows = []
    for row in document["rows"]:
        name = row["defense"].partition("(")[0]
        rows.append(
            (
                str(row["rank"]),
                code(name),
                origin(plugins.find("defenses", name).source),
                ", ".join(row["needs"]) or "–",
                percent(row["der"]),
                mean(row["clean_accuracy"]),
                mean(row["attack_success_rate"]),
                mean(anyway[row["defense"]]),
                mean(row["no_attack_accuracy"]),
            )
        )
    return markdown(heads, rows, 4)


def chains(document: Document, of: Callable[[Sequence[str]], bool]) -> list[str]:
    """The attacks whose stages are such, those that do most to FedAvg first."""
    plain = {cell["attack"]: cell for cell in undefended(document["cells"])}

    def strength(attack: str) -> tuple[float, str]:
        success = plain[attack]["attack_success_rate"]
        return (-success["mean"] if success else 0.0, attack)

    stages = {
        attack: [stage.partition("(")[0] for stage in re.split(r"\+(?=[a-z])", attack)]
        for attack in plain
        if attack != "none"
    }
    return sorted((attack for attack, names in stages.items() if of(names)), key=strength)


def attack_table(document: Document, attacks: Sequence[str]) -> str:
    """Attack success of each attack against each defense, and accuracy under FedAvg."""
    by_place = {(cell["attack"], cell["defense"]): cell for cell in document["cells"]}
    ours = sorted({defense for _, defense in by_place}, key=order)
    heads = [
        "attack",
        *UPDATE_COLUMNS,
        *(code(ours_name(name)) for name in ours),
        "accuracy (FedAvg)",
    ]
    rows = []
    for attack in attacks:
        plain = by_place[attack, "fedavg"]
        rows.append(
            [
                code(written(attack)) + "°" * bool(plain["left_out"]),
                plain["knows"],
                mean(plain["natural_success"]),
                mean(plain["untriggered_target_rate"]),
                *(mean(by_place[attack, name]["attack_success_rate"]) for name in ours),
                mean(plain["clean_accuracy"]),
            ]
        )
    return markdown(heads, rows, 2)


def order(defense: str) -> tuple[bool, str]:
    """FedAvg first."""
    return defense != "fedavg", defense


def ours_name(defense: str) -> str:
    """A defense without its parameters, as on the command line."""
    return defense.partition("(")[0]


def triggers(document: Document) -> str:
    """Attacks by a trigger of their own, each with its own helpers."""
    attacks = chains(
        document, lambda names: plugins.attack_facts(names[0]).trigger and not behind(names)
    )
    return attack_table(document, attacks)


def behind(names: Sequence[str]) -> bool:
    """Whether the chain shows a later stage, behind the common patch."""
    return names[0] == "badnets" and len(names) > 1


def updates(document: Document) -> str:
    """Stages of training and crafting behind the common patch."""
    return attack_table(document, chains(document, behind))


def untargeted(document: Document) -> str:
    """Accuracy under attacks that only do damage."""
    attacks = chains(document, lambda names: plugins.attack_facts(names[0]).untargeted)
    by_place = {(cell["attack"], cell["defense"]): cell for cell in document["cells"]}
    digits = {cell["setting"] for cell in document["cells"] if cell["dataset"].startswith("digits")}
    ours = sorted({defense for _, defense in by_place}, key=order)
    clean = {
        cell["defense"]: cell
        for cell in document["cells"]
        if cell["attack"] == "none" and cell["setting"] in digits
    }
    rows = [["none", "–", *(mean(clean[name]["clean_accuracy"]) for name in ours)]]
    for attack in sorted(attacks):
        cells = [by_place[attack, name] for name in ours]
        accuracies = (mean(cell["clean_accuracy"]) for cell in cells)
        rows.append([code(written(attack)), cells[0]["knows"], *accuracies])
    return markdown(["attack", "knows", *(code(ours_name(name)) for name in ours)], rows, 2)


def on_photographs(document: Document) -> str:
    """Every image trigger at its default on CIFAR-10: what it has, what its inputs have anyway."""
    plain = {cell["attack"]: cell for cell in undefended(document["cells"])}
    attacks = [
        attack
        for attack in chains(document, lambda _: True)
        if plain[attack]["attack_success_rate"]
    ]
    rows = [
        [
            code(written(attack)),
            mean(cell["attack_success_rate"]),
            mean(cell["natural_success"]),
            mean(cell["untriggered_target_rate"]),
            mean(cell["clean_accuracy"]),
            {True: "yes", False: "no", None: "not known"}[cell["bites"]],
        ]
        for attack, cell in ((attack, plain[attack]) for attack in attacks)
    ]
    heads = ("attack", "attack success", "clean twin", "untriggered", "accuracy", "bites")
    return markdown(heads, rows, 1)


def lifetimes(document: Document) -> str:
    """Rounds to a backdoor and rounds that it lasts."""
    lasting = [cell for cell in undefended(document["cells"]) if cell["attack"] != "none"]

    def rounds(cell: Mapping[str, Any], name: str) -> str:
        figure, seeds = cell[name], len(cell["seeds"])
        if figure is None:
            return "never" if name == "time_to_backdoor" else "–"
        spread = f"{figure['mean']:.0f} ({figure['low']:.0f} to {figure['high']:.0f})"
        some = (
            f", {cell['planted_seeds']} of {seeds} seeds" if cell["planted_seeds"] < seeds else ""
        )
        active = cell["still_active"] if name == "durability" else 0
        return spread + some + (f", in {active} of {seeds} still there" if active else "")

    rows = [
        [
            code(written(cell["attack"])),
            rounds(cell, "time_to_backdoor"),
            rounds(cell, "durability"),
        ]
        for cell in lasting
    ]
    return markdown(("attack", "rounds to the backdoor", "rounds that it lasts"), rows, 1)


TABLES: Mapping[str, tuple[str, str, Callable[[Document], str]]] = {
    "defenses": ("docs/defenses.md", "all_defenses", defenses),
    "triggers": ("docs/attacks.md", "all_attacks", triggers),
    "updates": ("docs/attacks.md", "all_attacks", updates),
    "untargeted": ("docs/attacks.md", "all_attacks", untargeted),
    "photographs": ("docs/attacks.md", "attacks_on_cifar10", on_photographs),
    "lifetimes": ("docs/attacks.md", "durability", lifetimes),
}


def main(store: Path) -> None:
    """Write every table whose leaderboard is there."""
    for name, (page, sweep, build) in TABLES.items():
        board = store / "leaderboards" / sweep / "leaderboard.json"
        if not board.is_file():
            print(f"{name}: left as it is; {board} is not there: backstop sweep {sweep}")
            continue
        text = Path(page).read_text()
        head, mark, rest = text.partition(f"<!-- table: {name} -->\n")
        if not mark:
            raise SystemExit(f"{page} has no mark for the table {name}")
        _, end, tail = rest.partition("<!-- end -->")
        Path(page).write_text(head + mark + build(json.loads(board.read_text())) + end + tail)
        print(f"{name}: {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "backstop-store"))
