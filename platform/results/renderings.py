"""A leaderboard as a terminal table, Markdown and csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from backstop.platform.results.columns import Kind, columns_in, ranked_rows
from backstop.platform.results.document import Document, encode_document, write_text
from backstop.platform.results.names import (
    ChainName,
    chain_label,
    display_names,
    part_label,
    stage_texts,
)
from backstop.platform.results.ranking import FIGURES, SUCCESS, UNTRIGGERED, Logged
from backstop.platform.results.wording import margin, percent, plural, spread
from backstop.platform.specs.part import NOTHING

NAMES = 20  # columns of a terminal for the names of defenses, at least, where there is room


def remarks(row: Mapping[str, Any]) -> str:
    """Marks for a row that is not like the others: † lacks attacks that others have, ‡ holds
    diverged runs.
    """
    return ("†" if row["missing"] else "") + ("‡" if row["diverged"] else "")


def incomplete(document: Mapping[str, Any], most: int = 5) -> str:
    """A sentence that says which planned runs are not in the document; empty where all are."""
    absent = [item["run"] for item in document["missing_runs"]]
    if not absent:
        return ""
    more = [f"and {len(absent) - most} more"] if len(absent) > most else []
    have = "is" if len(absent) == 1 else "are"
    listed = "; ".join([*absent[:most], *more])
    return f"INCOMPLETE: {plural(len(absent), 'planned run')} {have} missing: {listed}"


def footnotes(document: Mapping[str, Any]) -> list[str]:
    """What the marks mean, where there are any."""
    notes = []
    if any(row["missing"] for row in document["rows"]):
        notes.append(
            "† lacks attacks or settings that other rows have; its means are not over the same cells"
        )
    notes += unranked(document)
    if any(row["diverged"] for row in document["rows"]):
        notes.append(
            "‡ holds diverged runs; a figure they lack counts as accuracy 0 and attack success 1"
        )
    return notes


def unranked(document: Mapping[str, Any]) -> list[str]:
    """What counts in no rank and why, and what could not be judged: sentences."""
    attacked = [cell for cell in document["cells"] if cell["attack"] != NOTHING["attack"]]
    names = display_names(cell["attack"] for cell in attacked)
    reasons = {
        (cell["setting"], cell["attack"]): cell["left_out"] for cell in attacked if cell["left_out"]
    }
    several = len(document["settings"]) > 1
    notes = [
        f"not ranked: {names[attack]}{f' (setting {where})' if several else ''}: {reason}"
        for (where, attack), reason in reasons.items()
    ]
    absent = sorted(
        {seed for cell in attacked if cell["seeds"] for seed in cell["unattacked_seeds"]}
    )
    if absent:
        notes.append(
            f"in some runs of seed {', '.join(map(str, absent))} no malicious client took part in an attacked round; they count nowhere"
        )
    silent = sorted(
        {names[cell["attack"]] for cell in attacked if cell["seeds"] and cell[SUCCESS] is None}
    )
    if silent:
        notes.append(
            f"without an attack success, counted in the accuracy only: {', '.join(silent)}"
        )
    unjudged = {
        cell["attack"] for cell in attacked if cell["bites"] is None and cell[SUCCESS] is not None
    }
    if unjudged:
        notes.append(
            f"whether {plural(len(unjudged), 'attack')} did anything is not known: undefended FedAvg or the clean twin has not run"
        )
    return notes


def table(document: Mapping[str, Any], width: int = 100) -> Table:
    """The ranking for a terminal so wide. Where it is narrow the names stay and the last columns
    go, which the caption says.
    """
    rows = document["rows"]
    names, attacks = (
        display_names(row["defense"] for row in rows),
        display_names(row["worst_attack"] for row in rows if row["worst_attack"]),
    )
    cells = len(
        {(cell["setting"], cell["attack"]) for cell in document["cells"]}
        - {(s, NOTHING["attack"]) for s in document["settings"]}
    )
    seeds = len({seed for row in rows for seed in row["seeds"]})
    title = Text(
        f"{document['experiment']}: {plural(len(rows), 'defense')}, {plural(cells, 'attacked cell')}, {plural(seeds, 'seed')}"
    )
    absent = incomplete(document)
    if absent:
        title.append(f"\n{absent}", style="bold red")
    figures = {
        "DER": [percent(row["der"]) for row in rows],
        "accuracy": [margin(row["clean_accuracy"]) for row in rows],
        "attack\nsuccess": [margin(row["attack_success_rate"]) for row in rows],
        "worst": [percent(row["worst_attack_success_rate"]) for row in rows],
        "under": [
            attacks[row["worst_attack"]].replace("+", "\n+") if row["worst_attack"] else "–"
            for row in rows
        ],
    }
    ranks = max((len(str(row["rank"])) for row in rows), default=1)
    shown, labels, room = (
        list(figures),
        [_lines(names[row["defense"]], remarks(row)) for row in rows],
        NAMES,
    )
    if _wide(ranks, room, figures) > width:
        labels = [_lines(names[row["defense"]], remarks(row), narrow=True) for row in rows]
        room = min(
            NAMES,
            max((len(line) for text in labels for line in text.plain.split("\n")), default=NAMES),
        )
    while shown and _wide(ranks, room, {head: figures[head] for head in shown}) > width:
        shown.pop()
    notes = [
        "percent; means over the attacks, ± half the 95 % interval over seeds",
        *footnotes(document),
    ]
    if gone := [" ".join(head.split()) for head in figures if head not in shown]:
        notes.append(f"too narrow for {', '.join(gone)}: the files have them")
    made = Table(
        title=title,
        caption="\n".join(notes),
        box=SIMPLE_HEAD,
        header_style="bold",
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    made.add_column("#", justify="right", no_wrap=True)
    made.add_column("defense", min_width=room, overflow="fold")
    for head in shown:
        if head == "under":
            made.add_column(head, overflow="fold")
        else:
            made.add_column(head, justify="right", no_wrap=True)
    best = rows[0]["der"] if rows else None
    for place, row in enumerate(rows):
        made.add_row(
            str(row["rank"]),
            labels[place],
            *(Text(figures[head][place]) for head in shown),
            style="bold green"
            if row["der"] is not None and row["der"] == best
            else "dim"
            if row["defense"] == NOTHING["defense"]
            else None,
        )
    return made


def _wide(ranks: int, room: int, figures: Mapping[str, Sequence[str]]) -> int:
    """Columns of a terminal that the table takes: one at either end, two between its own."""
    texts = [(head, *column) for head, column in figures.items()]
    own = [max(len(line) for text in column for line in text.split("\n")) for column in texts]
    return 2 + ranks + room + sum(own) + 2 * (1 + len(own))


def _lines(name: str, note: str, *, narrow: bool = False) -> Text:
    """A single stage's parameters stand below its name, each in a line of its own where it is
    narrow; a chain stays as it is, broken between its stages.
    """
    head, _, inside = name.partition("(")
    if not inside or len(stage_texts(name)) > 1:
        return Text(
            f"{name}{note}"
            if len(name) < 30 and not narrow
            else f"{name}{note}".replace("+", "\n+")
        )
    listed = inside.removesuffix(")")
    return Text.assemble(
        head + note, ("\n" + (listed.replace(", ", "\n") if narrow else listed), "not bold dim")
    )


def _flat(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's fields as the cells of a spreadsheet; the intervals' three numbers become three
    columns.
    """
    found: dict[str, str] = {}
    for key, value in row.items():
        if key.endswith("_stages"):
            continue
        if key == "intervals":
            for name, interval in value.items():
                found |= {
                    f"{name}_{end}": "" if interval is None else repr(interval[end])
                    for end in ("low", "high")
                }
        elif key in FIGURES or key == "no_attack_accuracy":
            found |= {
                f"{key}_{end}": "" if value is None else repr(value[end])
                for end in ("mean", "low", "high")
            }
        elif isinstance(value, list):
            found[key] = "; ".join(map(str, value))
        else:
            found[key] = "" if value is None else str(value)
    return found


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(
        text,
        list(dict.fromkeys(key for row in rows for key in row)),
        restval="",
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def means(
    cells: Sequence[Mapping[str, Any]], keys: Sequence[str], figure: str
) -> dict[tuple[str, ...], float]:
    """The mean of a figure over the cells that have it, by the values of some of their fields."""
    found: dict[tuple[str, ...], list[float]] = {}
    for cell in cells:
        if cell[figure] is not None:
            found.setdefault(tuple(cell[key] for key in keys), []).append(cell[figure]["mean"])
    return {place: sum(values) / len(values) for place, values in found.items()}


def _by_attack(document: Mapping[str, Any]) -> list[str]:
    """Attack success of every attack against every defense as a Markdown table, attacks in the
    rows; nothing for fewer than two.
    """
    attacked = [
        cell
        for cell in document["cells"]
        if cell["attack"] != NOTHING["attack"] and cell["attack_success_rate"] is not None
    ]
    attacks = sorted({cell["attack"] for cell in attacked})
    if len(attacks) < 2:
        return []
    defenses = [row["defense"] for row in document["rows"]]
    cells, natural = (
        means(attacked, ("attack", "defense"), "attack_success_rate"),
        means(attacked, ("attack",), "natural_success"),
    )
    anyway = means(undefended(attacked), ("attack",), UNTRIGGERED)
    knows = {cell["attack"]: cell["knows"] for cell in attacked}
    ours, theirs = display_names(defenses), marked_attacks(document)
    lines = [
        "## Attack success, attack by attack",
        "",
        f"| attack | knows | clean twin | untriggered | {' | '.join(ours[defense] for defense in defenses)} |",
        f"| :--- | :--- | {' | '.join(['---:'] * (len(defenses) + 2))} |",
    ]
    for attack in attacks:
        values = [
            natural.get((attack,)),
            anyway.get((attack,)),
            *(cells.get((attack, defense)) for defense in defenses),
        ]
        lines.append(f"| {' | '.join([theirs[attack], knows[attack], *map(percent, values)])} |")
    return ["", *lines, "", TWINS]


TWINS = (
    "Clean twin: the same triggered inputs, before a model that nobody attacked. Untriggered: the same inputs without the trigger, "
    "before the model that FedAvg gives under the attack. ° counts in no rank."
)


def undefended(cells: Sequence[Document]) -> list[Document]:
    """The cells of plain FedAvg."""
    return [cell for cell in cells if cell["defense"] == NOTHING["defense"]]


def marked_attacks(document: Mapping[str, Any]) -> dict[str, str]:
    """Attack → its name for people, with ° where it counts in no rank in any setting."""
    attacked = [cell for cell in document["cells"] if cell["attack"] != NOTHING["attack"]]
    counted = {cell["attack"] for cell in attacked if not cell["left_out"]}
    names = display_names(cell["attack"] for cell in attacked)
    return {attack: name if attack in counted else f"{name}°" for attack, name in names.items()}


def lifetimes(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(attack, defense, rounds to the backdoor, rounds that it lasted) for people, of the attacks
    that stop. + says that it was still active when the last round of some seed was over.
    """
    lasting = [
        cell
        for cell in document["cells"]
        if document["settings"][cell["setting"]]["attack_stop"] is not None
        and cell[SUCCESS] is not None
        and cell["seeds"]
    ]
    theirs, ours = (
        display_names(cell["attack"] for cell in lasting),
        display_names(cell["defense"] for cell in lasting),
    )

    def rounds(cell: Mapping[str, Any], name: str, *, more: bool = False) -> str:
        if cell[name] is None:
            return "never" if name == "time_to_backdoor" else "–"
        planted, seeds = cell["planted_seeds"], len(cell["seeds"])
        some = f" ({planted} of {plural(seeds, 'seed')})" if planted < seeds else ""
        return f"{cell[name]['mean']:.1f}{'+' * more}{some}"

    return [
        (
            theirs[cell["attack"]],
            ours[cell["defense"]],
            rounds(cell, "time_to_backdoor"),
            rounds(cell, "durability", more=bool(cell["still_active"])),
        )
        for cell in lasting
    ]


LIFETIME_HEADS = ("attack", "defense", "rounds to the backdoor", "rounds that it lasted")
LIFETIME_NOTE = (
    "Over the clean twin: rounds from the attack's first until success is half-way from the twin's to 100 %, and rounds after its last "
    "in which half of the excess was left; + where some seed's was still active at the end. Means are over the seeds in which it came so far."
)


def _lifetimes(document: Mapping[str, Any]) -> list[str]:
    """The lifetimes as a Markdown table; nothing where no attack stops."""
    rows = lifetimes(document)
    if not rows:
        return []
    lines = [
        f"| {' | '.join(row)} |"
        for row in (LIFETIME_HEADS, (":---", ":---", "---:", "---:"), *rows)
    ]
    return ["", "## How long backdoors last", "", *lines, "", LIFETIME_NOTE]


def markdown(document: Mapping[str, Any]) -> str:
    """The ranking, and attack success attack by attack, as Markdown tables."""
    absent = incomplete(document)
    lines = [
        f"# Leaderboard: {_markdown_safe(document['experiment'])}",
        "",
        *([f"**{_markdown_safe(absent)}.**", ""] if absent else []),
        *_markdown_ranking(document),
    ]
    notes = [f"{note}." for note in footnotes(document)]
    about = f"In percent. {_markdown_safe(document['rule'])}"
    return "\n".join(
        [
            *lines,
            *_by_attack(document),
            *_lifetimes(document),
            "",
            *[
                line
                for note in (
                    about,
                    *notes,
                    f"Fingerprint: {_markdown_safe(document['fingerprint'])}.",
                )
                for line in (note, "")
            ],
        ]
    )


def _markdown_ranking(document: Mapping[str, Any]) -> list[str]:
    columns = columns_in("markdown")
    lines = [
        [column.heading for column in columns],
        [":---" if column.alignment == "left" else "---:" for column in columns],
    ]
    lines += [
        [MARKDOWN[column.kind](column.of(row)) for column in columns]
        for row in ranked_rows(document)
    ]
    return [f"| {' | '.join(line)} |" for line in lines]


def _markdown_safe(text: object) -> str:
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("\n", " ")


def _markdown_worst(worst: tuple[float, ChainName] | None) -> str:
    if worst is None:
        return "–"
    success, attack = worst
    return f"{percent(success)} {_markdown_safe(attack)}"


MARKDOWN: Mapping[Kind, Callable[[Any], str]] = {
    "count": str,
    "share": percent,
    "score": percent,
    "figure": spread,
    "chain": lambda name: "–" if name is None else _markdown_safe(name),
    "share of chain": _markdown_worst,
    "words": lambda words: ", ".join(words) or "–",
}


class Timed(Logged, Protocol):
    """A run with what must not stand in the leaderboard itself."""

    @property
    def run_id(self) -> str:
        """MLflow's id."""

    @property
    def costs(self) -> Mapping[str, float]:
        """Seconds by phase and peak memory, as the run stored them."""


def runs_csv(document: Mapping[str, Any], runs: Iterable[Timed]) -> str:
    """runs.csv: per run its MLflow run id, fingerprint, seconds and final metrics, in the order of
    the document.
    """
    known = {run.id: run for run in runs}
    listed = []
    for item in document["runs"]:
        spec, run = item["spec"], known.get(item["id"])
        row = {
            "id": item["id"],
            "run_id": run.run_id if run else "",
            "dataset": part_label(spec["dataset"]),
            "model": part_label(spec["model"]),
            "attack": chain_label(spec["attack"], "attack"),
            "defense": chain_label(spec["defense"], "defense"),
            "seed": str(spec["seed"]),
            "fingerprint": run.fingerprint if run else "",
        }
        if run:
            row |= {
                key.partition("/")[2]: f"{value:.3f}" for key, value in sorted(run.costs.items())
            }
        listed.append(
            row
            | {key.removeprefix("final/"): repr(value) for key, value in item["metrics"].items()}
        )
    return _csv(listed)


def write_leaderboard(
    document: Mapping[str, Any], runs: Iterable[Timed], folder: Path
) -> list[Path]:
    """Write leaderboard.json, .csv, .md and runs.csv. Raises BadInput when the folder cannot be
    written.
    """
    contents: dict[str, Callable[[], str]] = {
        "leaderboard.json": lambda: encode_document(document),
        "leaderboard.csv": lambda: _csv([_flat(row) for row in document["rows"]]),
        "leaderboard.md": lambda: markdown(document),
        "runs.csv": lambda: runs_csv(document, runs),
    }
    return [write_text(folder / name, content()) for name, content in contents.items()]
