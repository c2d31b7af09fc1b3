"""The tables of docs/defenses.md, docs/attacks.md and docs/findings.md, written anew from the
leaderboards of their sweeps.

    backstop sweep all_defenses             (likewise all_attacks, attacks_on_cifar10, durability,
                                             worst_case, suite_laptop_1)
    python benchmarks/tables.py [STORE]

Each table stands between two marks, ``<!-- table: NAME -->`` and ``<!-- end -->``; a sweep whose
leaderboard is not in the store leaves its tables as they are, and that is said.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backstop.platform import plugins
from backstop.platform.contract import Part
from backstop.platform.declarations.venues import venue_of
from backstop.platform.results.figures.names import chain_of
from backstop.platform.results.figures.wording import percent, spread
from backstop.platform.results.leaderboard.reading import load_document
from backstop.search_spaces._defense_settings import ATTACKERS

Document = Mapping[str, Any]
Cell = Mapping[str, Any]
Stages = Sequence[Mapping[str, Any]]
ATTACK_COLUMNS = ("knows", "clean twin", "untriggered")
BITES = {True: "yes", False: "no", None: "not known"}


def origin(source: str) -> str:
    """Venue and year of a method's source."""
    return venue_of(source) or "–"


def mean(figure: Mapping[str, float] | None) -> str:
    """A figure's mean in percent."""
    return "–" if figure is None else percent(figure["mean"])


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], text: int) -> str:
    """A table whose first ``text`` columns are text."""
    rule = [":---"] * text + ["---:"] * (len(heads) - text)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows)) + "\n"


def as_written(cell: Cell) -> str:
    """A cell's attack as one would write it: without the parameters that have their defaults.

    >>> params = {"share": 0.2, "size": 3, "source": None, "target": 0, "value": 1.0}
    >>> as_written({"attack_stages": [{"name": "badnets", "params": params}]})
    'badnets(share=0.2)'
    """
    return "+".join(str(without_defaults(stage)) for stage in chain_of(cell["attack_stages"]))


def without_defaults(stage: Part) -> Part:
    """The stage of an attack without the parameters that have their defaults."""
    declared = plugins.find("attacks", stage.name).parameters
    own = {key: value for key, value in stage.params.items() if value != declared[key].default}
    return Part(stage.name, own)


def undefended(document: Document) -> dict[str, Cell]:
    """Attack → its cell under plain FedAvg; no attack at all is not among them."""
    return {
        cell["attack"]: cell
        for cell in document["cells"]
        if cell["attack_stages"] and not cell["defense_stages"]
    }


def code(name: str) -> str:
    """A name as it stands on the page, with the mark of what is not ranked outside."""
    return f"`{name.removesuffix('°')}`{'°' * name.endswith('°')}"


def defenses(document: Document) -> str:
    """Every defense against one strong backdoor, in the order of the leaderboard; those that assume
    a number of attackers as they do when it is the true one.
    """
    untriggered = {
        cell["defense"]: cell["untriggered_target_rate"]
        for cell in document["cells"]
        if cell["attack_stages"]
    }
    heads = (
        "#",
        "defense",
        "source",
        "needs",
        "DER",
        "accuracy",
        "attack success",
        "untriggered",
        "accuracy without attack",
    )
    rows = []
    # places among those that are told the truth: a board ranks one variant of each
    for place, row in enumerate(filter(told_the_truth, document["rows"]), 1):
        name = bare_name(row["defense_stages"], "fedavg")
        rows.append(
            (
                str(place),
                code(name),
                origin(plugins.find("defenses", name).source),
                ", ".join(row["needs"]) or "–",
                mean(row["der"]),
                mean(row["clean_accuracy"]),
                mean(row["attack_success_rate"]),
                mean(untriggered[row["defense"]]),
                mean(row["no_attack_accuracy"]),
            )
        )
    return markdown(heads, rows, 4)


def told_the_truth(row: Cell) -> bool:
    """Whether a defense of ``all_defenses`` assumes no wrong number of attackers."""
    told = {stage["params"].get("f", ATTACKERS) for stage in row["defense_stages"]}
    return told <= {ATTACKERS}


def bare_name(stages: Stages, empty: str) -> str:
    """The plug-ins of a chain without parameters."""
    return "+".join(stage["name"] for stage in stages) or empty


def attacks_of(document: Document, belongs: Callable[[Sequence[str]], bool]) -> list[str]:
    """The attacks whose stages' names are such, those that do most to FedAvg first."""
    cells = undefended(document)

    def strongest_first(attack: str) -> tuple[float, str]:
        success = cells[attack]["attack_success_rate"]
        return (-success["mean"] if success else 0.0, attack)

    listed = [
        attack
        for attack, cell in cells.items()
        if belongs([stage["name"] for stage in cell["attack_stages"]])
    ]
    return sorted(listed, key=strongest_first)


def by_attack_and_defense(document: Document) -> dict[tuple[str, str], Cell]:
    """(attack, defense) → cell."""
    return {(cell["attack"], cell["defense"]): cell for cell in document["cells"]}


def defense_names(document: Document) -> dict[str, str]:
    """Defense → its names without parameters, FedAvg first."""
    names = {
        cell["defense"]: bare_name(cell["defense_stages"], "fedavg") for cell in document["cells"]
    }
    order = sorted(names, key=lambda defense: (names[defense] != "fedavg", defense))
    return {defense: names[defense] for defense in order}


def attack_table(document: Document, attacks: Sequence[str]) -> str:
    """Attack success of each attack against each defense, and accuracy under FedAvg."""
    cells = by_attack_and_defense(document)
    plain = undefended(document)
    names = defense_names(document)
    heads = ["attack", *ATTACK_COLUMNS, *map(code, names.values()), "accuracy (FedAvg)"]
    rows = []
    for attack in attacks:
        cell = plain[attack]
        successes = (cells[attack, defense]["attack_success_rate"] for defense in names)
        rows.append(
            [
                code(as_written(cell)) + "°" * bool(cell["left_out"]),
                cell["knows"],
                mean(cell["natural_success"]),
                mean(cell["untriggered_target_rate"]),
                *map(mean, successes),
                mean(cell["clean_accuracy"]),
            ]
        )
    return markdown(heads, rows, 2)


def triggers(document: Document) -> str:
    """Attacks by a trigger of their own, each with its own helpers."""
    return attack_table(document, attacks_of(document, has_own_trigger))


def has_own_trigger(names: Sequence[str]) -> bool:
    """Whether the chain is a trigger and its helpers, other than the common patch with a stage."""
    return plugins.attack_facts(names[0]).trigger and not behind_the_patch(names)


def behind_the_patch(names: Sequence[str]) -> bool:
    """Whether the chain shows a later stage, behind the common patch."""
    return names[0] == "badnets" and len(names) > 1


def updates(document: Document) -> str:
    """Stages of training and crafting behind the common patch."""
    return attack_table(document, attacks_of(document, behind_the_patch))


def untargeted(document: Document) -> str:
    """Accuracy under attacks that only do damage."""
    attacks = attacks_of(document, lambda names: plugins.attack_facts(names[0]).untargeted)
    cells = by_attack_and_defense(document)
    names = defense_names(document)
    clean = clean_on_digits(document)
    rows = [["none", "–", *(mean(clean[defense]["clean_accuracy"]) for defense in names)]]
    for attack in sorted(attacks):
        row = [cells[attack, defense] for defense in names]
        accuracies = (mean(cell["clean_accuracy"]) for cell in row)
        rows.append([code(as_written(row[0])), row[0]["knows"], *accuracies])
    return markdown(["attack", "knows", *map(code, names.values())], rows, 2)


def clean_on_digits(document: Document) -> dict[str, Cell]:
    """Defense → its cell without an attack, on the digits."""
    cells = document["cells"]
    digits = {cell["setting"] for cell in cells if cell["dataset"].startswith("digits")}
    return {
        cell["defense"]: cell
        for cell in cells
        if not cell["attack_stages"] and cell["setting"] in digits
    }


def on_photographs(document: Document) -> str:
    """Every image trigger at its default on CIFAR-10: what it has, what its inputs have anyway."""
    plain = undefended(document)
    rows = []
    for attack in attacks_of(document, lambda _: True):
        cell = plain[attack]
        if cell["attack_success_rate"]:
            rows.append(
                [
                    code(as_written(cell)),
                    mean(cell["attack_success_rate"]),
                    mean(cell["natural_success"]),
                    mean(cell["untriggered_target_rate"]),
                    mean(cell["clean_accuracy"]),
                    BITES[cell["bites"]],
                ]
            )
    heads = ("attack", "attack success", "clean twin", "untriggered", "accuracy", "bites")
    return markdown(heads, rows, 1)


def lifetimes(document: Document) -> str:
    """Rounds to a backdoor, rounds that it lasts, and what is left of it on average."""
    rows = [
        [
            code(as_written(cell)),
            rounds(cell, "time_to_backdoor") or "never",
            rounds(cell, "durability", "still_active") or "–",
            rounds(cell, "lifespan", "still_over_half") or "–",
            spread(cell["excess_after_stop"]),
        ]
        for cell in undefended(document).values()
    ]
    heads = (
        "attack",
        "rounds to the backdoor",
        "rounds that it lasts",
        "rounds over one half",
        "excess after the attack, %",
    )
    return markdown(heads, rows, 1)


def rounds(
    cell: Cell,
    figure: str,
    still_there: str = "",
) -> str:
    """A mean number of rounds with its interval, over how many seeds where not over all, and in how
    many the backdoor was still there at the end; empty where there is none.
    """
    value, seeds = cell[figure], len(cell["seeds"])
    if value is None:
        return ""
    text = f"{value['mean']:.0f} ({value['low']:.0f} to {value['high']:.0f})"
    if value["n"] < seeds:
        text = f"{text}, {value['n']} of {seeds} seeds"
    still = cell[still_there] if still_there else 0
    return f"{text}, in {still} of {seeds} still there" if still else text


def worst_cases(document: Document) -> str:
    """Every defense under the attack that a search has found against it, on seeds that the search
    has not seen.
    """
    heads = (
        "#",
        "defense",
        "needs",
        "attack",
        "excess success",
        "attack success",
        "accuracy cost",
        "cost without attack",
        "score",
    )
    rows = []
    for row in document["rows"]:
        if row["worst_case_stages"] is None:
            continue
        rows.append(
            (
                rank(row),
                code(bare_name(row["defense_stages"], "fedavg")),
                ", ".join(row["needs"]) or "–",
                code(bare_name(row["worst_case_stages"], "none")),
                spread(row["worst_excess"]),
                spread(row["worst_case_success"]),
                mean(row["cost_under_attack"]),
                mean(row["cost_without_attack"]),
                mean(row["score"]),
            )
        )
    return markdown(heads, rows, 4)


def suite(document: Document) -> str:
    """Every defense of a suite in each of its settings, where it is told what it has to be told
    there: its largest excess success, and its score, whose mean orders the rows.
    """
    boards = document["boards"]
    titles = [document["settings"][board["setting"]]["dataset"]["name"] for board in boards]
    placed: dict[str, list[Cell | None]] = {}
    for place, board in enumerate(boards):
        for row in board["rows"]:
            name = bare_name(row["defense_stages"], "fedavg")
            placed.setdefault(name, [None] * len(boards))[place] = row
    rows = [
        (
            code(name),
            *(spread(row["worst_excess"]) if row else "–" for row in each),
            *(mean(row["score"]) if row else "–" for row in each),
            percent(mean_score(each)),
        )
        for name, each in sorted(placed.items(), key=lambda item: -mean_score(item[1]))
    ]
    heads = ["defense", *(f"{title}, excess" for title in titles), *titles, "mean score"]
    return markdown(heads, rows, 1)


def mean_score(rows: Sequence[Cell | None]) -> float:
    """The mean of the scores in the settings in which a defense is."""
    return statistics.mean(row["score"]["mean"] for row in rows if row)


def rank(row: Cell) -> str:
    """The rank, and the ranks that are left open."""
    if row["rank"] is None:
        return "–"
    low, high = row["rank_low"], row["rank_high"]
    return f"{row['rank']}" if low == high else f"{row['rank']} ({low} to {high})"


TABLES: Mapping[str, tuple[str, str, Callable[[Document], str]]] = {
    "defenses": ("docs/defenses.md", "all_defenses", defenses),
    "triggers": ("docs/attacks.md", "all_attacks", triggers),
    "updates": ("docs/attacks.md", "all_attacks", updates),
    "untargeted": ("docs/attacks.md", "all_attacks", untargeted),
    "photographs": ("docs/attacks.md", "attacks_on_cifar10", on_photographs),
    "lifetimes": ("docs/attacks.md", "durability", lifetimes),
    "suite": ("docs/findings.md", "suite_laptop_1", suite),
    "worst cases": ("docs/findings.md", "worst_case", worst_cases),
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
        Path(page).write_text(head + mark + build(load_document(board)) + end + tail)
        print(f"{name}: {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "backstop-store"))
