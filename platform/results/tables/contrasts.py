"""Comparisons of defenses and of leaderboards for a terminal: tables, and sentences below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from backstop.platform.results.figures.cells import ACCURACY, SUCCESS
from backstop.platform.results.figures.names import ChainName, Json
from backstop.platform.results.figures.wording import percent, plural
from backstop.platform.results.leaderboard.contrasts import leading_of
from backstop.platform.results.leaderboard.seedwise import BALANCE, ROW_MEASURES

MEASURE_NAMES = {
    "score": "score",
    BALANCE: "balance",
    "der": "DER",
    SUCCESS: "attack success",
    ACCURACY: "accuracy",
}
SPREADS = "in brackets the range under six seeds, from six on the 95 % interval"
SHOWN_OF_CELLS = (BALANCE, SUCCESS, ACCURACY)
MOST_CELLS = 12  # of a table; the JSON holds all
Names = Mapping[str, ChainName]  # chains in full → for people


# -- two defenses


def defense_tables(contrast: Json, names: Names) -> list[Table]:
    """The figures of two defenses, and the cells that decide; ``names`` are those of all chains."""
    return [_figure_table(contrast, names), _cell_table(contrast, names)]


def _figure_table(contrast: Json, names: Names) -> Table:
    first, second = (names[contrast[side]] for side in ("first", "second"))
    table = _table(f"{contrast['experiment']}: {first} against {second}")
    table.add_column("")
    for heading in ("first", "second", "first - second", "p"):
        table.add_column(heading, justify="right")
    for item in contrast["figures"]:
        table.add_row(
            MEASURE_NAMES[item["measure"]],
            _mean(item["first"]),
            _mean(item["second"]),
            points_between(item["difference"]),
            chance_text(item["p_value"]),
        )
    return table


def _cell_table(contrast: Json, names: Names) -> Table:
    table = _table("Which cells decide")
    table.add_column("attack", overflow="fold")
    several = len({cell["setting"] for cell in contrast["cells"]}) > 1
    if several:
        table.add_column("setting")
    table.add_column("adds", justify="right")
    for measure in SHOWN_OF_CELLS:
        table.add_column(MEASURE_NAMES[measure], justify="right")
    for cell in contrast["cells"][:MOST_CELLS]:
        setting = [cell["setting"]] if several else []
        differences = [points_between(cell["differences"][measure]) for measure in SHOWN_OF_CELLS]
        table.add_row(
            str(names[cell["attack"]]), *setting, points(cell["contribution"]), *differences
        )
    return table


def defense_notes(
    contrast: Json,
    names: Names,
    command: str,
) -> list[str]:
    """What the figures mean, whether they tell the two apart, and what would: ``command`` is the
    sweep with the seeds that are missing, empty where that is not known.
    """
    leading = leading_of(contrast)
    notes = [
        _what_is_shown(leading),
        *_worst_words(contrast, names),
        _verdict(contrast),
        *_missing_seeds(leading, command),
    ]
    for side in ("first", "second"):
        scenes = contrast[f"only_{side}"]
        if scenes:
            cells = plural(len(scenes), "cell")
            notes.append(f"{contrast[side]} alone has {cells} more, which count nowhere here")
    hidden = len(contrast["cells"]) - MOST_CELLS
    if hidden > 0:
        notes.append(f"{plural(hidden, 'cell')} that add less are not shown: --json has them")
    return notes


def _worst_words(contrast: Json, names: Names) -> list[str]:
    """Which attack the score of each counts."""
    if contrast["leading"] != "score" or None in contrast["worst"]:
        return []
    first, second = (f"{names[attack]}" for attack in contrast["worst"])
    worst = f"the score counts the worst attack: {first} for the first, {second} for the second"
    return ["balance is 1 - excess - cost of a cell; adds is its share of the mean balance", worst]


def _what_is_shown(leading: Json) -> str:
    seeds = len(leading["seeds"])
    return f"percent, differences in points; {spread_words(leading['difference'], seeds)}"


def spread_words(figure: Json | None, seeds: int) -> str:
    """What stands in brackets behind a mean."""
    if figure is None:
        return "no seed is common to all cells, so nothing is compared"
    if figure["kind"] == "range":
        return f"in brackets the range of {plural(seeds, 'seed')}, which is no interval"
    return f"in brackets the 95 % interval over {plural(seeds, 'seed')}"


def _verdict(contrast: Json) -> str:
    measure = MEASURE_NAMES[contrast["leading"]]
    match contrast["apart"]:
        case None:
            return f"under six seeds nothing tells the two apart by {measure}"
        case True:
            return f"the two are told apart by {measure}"
        case _:
            return f"the two cannot be told apart by {measure}"


def _missing_seeds(leading: Json, command: str) -> list[str]:
    more = leading["more_seeds"]
    if more == 0:
        return []
    if more is None:
        return ["how many more seeds would tell them apart cannot be said from these"]
    line = f"to tell them apart you need about {plural(more, 'more seed')}"
    return [f"{line}: {command}" if command else line]


# -- two leaderboards


def board_tables(
    changes: Json,
    names: Names,
    titles: Sequence[str],
) -> list[Table]:
    """The rows that are not as they were, and the cells that are not of the same runs. ``titles``
    are those of the two boards.
    """
    rows = [row for row in changes["rows"] if row_differs(row)]
    tables = [_row_table(rows, names, titles)] if rows else []
    return tables + ([_other_table(changes["cells"])] if changes["cells"] else [])


def row_differs(row: Json) -> bool:
    """Whether a row's rank or a mean of it has changed."""
    old, new = row["ranks"]
    return bool(old != new or row["first"] != row["second"])


def _row_table(
    rows: Sequence[Json],
    names: Names,
    titles: Sequence[str],
) -> Table:
    table = _table(f"from {titles[0]} to {titles[1]}")
    table.add_column("#", justify="right")
    table.add_column("defense", overflow="fold")
    for measure in ROW_MEASURES:
        table.add_column(MEASURE_NAMES[measure], justify="right")
    table.add_column(f"change of {MEASURE_NAMES[ROW_MEASURES[0]]}", justify="right")
    for row in rows:
        means = [
            _arrow(percent(row[side][measure]) for side in ("first", "second"))
            for measure in ROW_MEASURES
        ]
        change = points_between(row["changes"][ROW_MEASURES[0]])
        table.add_row(_arrow(map(_rank, row["ranks"])), str(names[row["defense"]]), *means, change)
    return table


def _rank(rank: int | None) -> str:
    return "–" if rank is None else str(rank)


def _arrow(texts: Iterable[str]) -> str:
    old, new = texts
    return old if old == new else f"{old} → {new}"


def _other_table(cells: Sequence[Json]) -> Table:
    """One line for the cells that differ in the same way."""
    table = _table("Cells of other runs")
    for heading in ("cells", "seeds", "other ids", "other figures", "for example"):
        table.add_column(heading, justify="right" if heading == "cells" else "left")
    for alike in _alike(cells):
        first = alike[0]
        table.add_row(
            str(len(alike)),
            _arrow(map(seeds_text, first["seeds"])),
            seeds_text(first["other_ids"]),
            seeds_text(first["other_figures"]),
            f"{first['defense']} under {first['attack']}",
        )
    return table


def _alike(cells: Sequence[Json]) -> list[list[Json]]:
    """The cells that differ in the same way, together."""
    groups: dict[str, list[Json]] = {}
    for cell in cells:
        way = str([cell["seeds"], cell["other_ids"], cell["other_figures"]])
        groups.setdefault(way, []).append(cell)
    return list(groups.values())


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds for people: runs of them as ``0-9``, a dash for none.

    >>> seeds_text([0, 1, 2, 5, 7, 8]), seeds_text([])
    ('0-2, 5, 7, 8', '–')
    """
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and seed == spans[-1][-1] + 1:
            spans[-1].append(seed)
        else:
            spans.append([seed])
    texts: list[str] = []
    for span in spans:
        texts += [f"{span[0]}-{span[-1]}"] if len(span) > 2 else map(str, span)
    return ", ".join(texts) or "–"


def board_notes(changes: Json) -> list[str]:
    """What the figures mean, and what only one of the boards has."""
    moved = sum(row["ranks"][0] != row["ranks"][1] for row in changes["rows"])
    as_before = sum(not row_differs(row) for row in changes["rows"])
    notes = [
        f"percent; the change is in points over the cells and seeds that both have, {SPREADS}",
        f"{moved} of {plural(len(changes['rows']), 'row')} moved; {as_before} are as they were",
    ]
    for side in ("first", "second"):
        if changes[f"only_{side}"]:
            listed = ", ".join(changes[f"only_{side}"])
            notes.append(f"only the {side} has {listed}")
    notes.append(_other_words(changes["cells"]))
    if not changes["settings"]["both"]:
        notes.append("the two have no setting in common")
    return notes


def _other_words(cells: Sequence[Json]) -> str:
    if not cells:
        return "all cells are of the same runs"
    verb = "is" if len(cells) == 1 else "are"
    return f"{plural(len(cells), 'cell')} {verb} not of the same runs"


# -- values


def points(value: float | None) -> str:
    """A difference of shares in points, with its sign: ``+3.1``."""
    return "–" if value is None else f"{100 * value:+.1f}"


def points_between(figure: Mapping[str, float] | None) -> str:
    """A difference with its ends: ``+3.1 (+1.2 to +5.0)``; without them where seeds agree."""
    if figure is None:
        return "–"
    if figure["low"] == figure["high"]:
        return points(figure["mean"])
    return f"{points(figure['mean'])} ({points(figure['low'])} to {points(figure['high'])})"


def chance_text(p_value: float | None) -> str:
    """A p value to three digits behind the point; a dash under six seeds."""
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _mean(figure: Mapping[str, float] | None) -> str:
    return percent(None if figure is None else figure["mean"])


def _table(title: str) -> Table:
    return Table(
        title=title,
        box=SIMPLE_HEAD,
        header_style="bold",
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
