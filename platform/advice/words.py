"""The answer for people: what its tables and lists say, as Markdown and on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from backstop.platform.advice.answer import Advice
from backstop.platform.results.figures.names import Json
from backstop.platform.results.figures.wording import kind_of_ends, percent, plural, spread

if TYPE_CHECKING:
    from rich.console import Group

TITLE = "Which defense for us?"
HEADS = ("#", "defense", "worst attack gets", "accuracy cost", "s a round", "needs", "holds")
HOLDS_NOTE = (
    "“Worst attack gets” is the share of triggered inputs that the strongest of the attacks turns"
    " beyond those that go there anyway; “holds” says whether that stays below what you can bear:"
    " “yes” over all that the seeds leave open, “in the mean” not for every seed."
)


def short_rows(answer: Advice) -> list[tuple[str, ...]]:
    """The short list as cells of text, as in :data:`HEADS`."""
    return [_short_row(entry) for entry in answer["short_list"]]


def _short_row(entry: Json) -> tuple[str, ...]:
    return (
        place_text(entry),
        entry["defense"],
        f"{spread(entry['worst_excess'])} %",
        "–" if entry["cost"] is None else spread(entry["cost"]),
        seconds_text(entry["seconds"]),
        ", ".join(entry["needs"]) or "nothing",
        entry["holds"],
    )


def place_text(entry: Json) -> str:
    """The place in the short list, and the ranks on the board that the seeds leave open."""
    low, high = entry["ranks"]
    open_ranks = f" ({low} to {high})" if low != high else ""
    return f"{entry['place']}{open_ranks}"


def seconds_text(seconds: float | None) -> str:
    """Seconds to two digits; a dash where they were not measured."""
    return "–" if seconds is None else f"{seconds:.2g}"


def reasons(entry: Json) -> list[tuple[str, str]]:
    """Why a defense is listed, what it costs, breaks and needs, a sentence each under a head."""
    return list(_reasons(entry))


def _reasons(entry: Json) -> Iterator[tuple[str, str]]:
    yield "what it is", " Then: ".join(entry["what"])
    score = f"{spread(entry['score'])} of 100 ({kind_of_ends(entry['score'])})"
    yield "why", f"score {score}: what the worst attack leaves, less the accuracy that it costs"
    cost = "unknown" if entry["cost"] is None else f"{spread(entry['cost'])} points of accuracy"
    taken = "seconds not measured"
    if entry["seconds"] is not None:
        taken = f"{seconds_text(entry['seconds'])} s of the server in a round"
    learned = ""
    if entry["learned"]:
        learned = f"; it learns {percent(entry['learned']['mean'], 0)} % of what FedAvg learns"
    yield "what it costs", f"{cost}; {taken}{learned}"
    knows = f", which knows {entry['worst_knows']}" if entry["worst_knows"] else ""
    yield (
        "what broke it most",
        f"{entry['worst_attack']}{knows}: {spread(entry['worst_excess'])} % of triggered inputs",
    )
    yield "what it needs", ", ".join(entry["needs"]) or "nothing but the updates"
    if entry["diverged"]:
        yield "beware", f"{plural(entry['diverged'], 'run')} diverged, and counts as broken"
    if entry["missing"]:
        yield "beware", f"{plural(entry['missing'], 'attack')} of the board did not meet it"


def situation_rows(answer: Advice) -> list[tuple[str, str]]:
    """What was said, or left at its default."""
    return [
        (name.replace("_", " "), _value(value))
        for name, value in answer["situation"].items()
        if value is not None
    ]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def federation_text(answer: Advice) -> str:
    """The federation that was trained, in a sentence; empty where a board was read."""
    tried = answer["federation"]
    if tried is None:
        return ""
    return (
        f"{tried['dataset']} with {tried['model']} ({tried['parameters']:,} parameters):"
        f" {tried['clients']} clients with {tried['smallest']:,} to {tried['largest']:,} samples,"
        f" labels {percent(tried['label_skew'], 0)} % off the whole in the mean,"
        f" {tried['per_round']} in a round, {tried['rounds']} rounds;"
        f" {tried['malicious']} malicious ({tried['selection']} cohorts);"
        f" {plural(tried['root_size'], 'clean sample')} on the server."
        f" Without an attack and a defense its accuracy is {percent(tried['accuracy'])} %."
    )


def attack_lines(answer: Advice) -> list[str]:
    """The attacks that were tried, and what each does without a defense."""
    lines = []
    for attack in answer["attacks"]:
        effect = f"{spread(attack['undefended'])} % without a defense"
        if attack["bites"] is False:
            effect += "; it does nothing that a defense could stop, and is not counted"
        lines.append(f"{attack['attack']}: {effect}")
    return lines


def left_out_lines(answer: Advice) -> list[tuple[str, str]]:
    """The defenses that are not listed, and why."""
    lines = []
    for group in answer["left_out"]:
        names = [f"{item['name']} {item['figure']}".strip() for item in group["defenses"]]
        lines.append((", ".join(names), group["reason"]))
    return lines


def evidence_text(answer: Advice) -> str:
    """What the figures are of."""
    told = answer["evidence"]
    seeds = plural(len(told["seeds"]), "seed")
    return (
        f"{plural(told['runs'], 'run')} of experiment {told['experiment']}, {seeds};"
        f" {told['fingerprint']}. The board with every figure: {told['board']}"
    )


def advice_markdown(answer: Advice) -> str:
    """The answer as Markdown."""
    return "\n".join(_markdown_lines(answer)) + "\n"


def _markdown_lines(answer: Advice) -> Iterator[str]:
    yield f"# {TITLE}\n"
    for sentence in answer["verdict"]:
        yield f"* {sentence}"
    yield "\n## Short list\n"
    yield from _table(HEADS, short_rows(answer))
    yield f"\n{HOLDS_NOTE}\n"
    for entry in answer["short_list"]:
        yield f"### {entry['place']}. `{entry['chain']}`\n"
        yield from (f"* **{head}**: {text}" for head, text in reasons(entry))
        yield ""
    yield "## The federation\n"
    yield from (f"* {name}: {value}" for name, value in situation_rows(answer))
    if tried := federation_text(answer):
        yield f"\nTried: {tried}"
        yield from (f"* {note}" for note in answer["federation"]["notes"])
    if answer["near"]:
        yield "\nRead from a board of another federation:\n"
        yield from _table(("", "yours", "the board's", "near"), near_rows(answer))
    yield "\n## Attacks\n"
    yield from (f"* {line}" for line in attack_lines(answer))
    yield "\n## Not tested\n"
    yield from (f"* {line}" for line in answer["not_tested"])
    yield "\n## Left out\n"
    yield from (f"* {names}: {reason}" for names, reason in left_out_lines(answer))
    yield "\n## Where the figures come from\n"
    yield f"{evidence_text(answer)}\n\n```\n{answer['evidence']['command']}\n```"


def near_rows(answer: Advice) -> list[tuple[str, ...]]:
    """How near a board that was read is."""
    return [
        (item["name"], item["yours"], item["theirs"], "yes" if item["near"] else "no")
        for item in answer["near"]
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        yield "Nothing."
        return
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join('---' for _ in heads)} |"
    yield from (
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows
    )


def terminal(answer: Advice) -> Group:
    """The answer on a terminal: verdict, short list, what broke each, what is not known."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(*HEADS, title=TITLE, title_justify="left")
    for row in short_rows(answer):
        table.add_row(*map(Text, row))
    lines = list(_terminal_lines(answer))
    verdict = [Text(f"• {sentence}") for sentence in answer["verdict"]]
    return Group(*verdict, *([table] if answer["short_list"] else []), *map(Text, lines))


def _terminal_lines(answer: Advice) -> Iterator[str]:
    for entry in answer["short_list"]:
        yield f"{entry['place']}. {entry['defense']}: broken most by {entry['worst_attack']}"
    yield "not tested:"
    yield from (f"  - {line}" for line in answer["not_tested"])
    yield "left out:"
    yield from (f"  - {names}: {reason}" for names, reason in left_out_lines(answer))
