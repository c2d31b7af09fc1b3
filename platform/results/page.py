"""The leaderboard for people: one page that needs nothing else.

``page.html`` and ``page.css`` beside this file are the page; what is here says what stands in them.
The page holds no script and loads nothing. Every value that comes from a run is escaped by Jinja2;
only our own drawings are markup.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from backstop.platform.results import illustrations
from backstop.platform.results.cells import SUCCESS, UNTRIGGERED
from backstop.platform.results.document import write_text
from backstop.platform.results.marks import UNATTACKED
from backstop.platform.results.names import display_names, stage_texts
from backstop.platform.results.renderings import (
    LIFETIME_HEADS,
    LIFETIME_NOTE,
    TWINS,
    footnotes,
    incomplete,
    lifetimes,
    marked_attacks,
    means,
    remarks,
    undefended,
)
from backstop.platform.results.runs import Run, with_curves
from backstop.platform.results.series import CURVES, Drawn, curve_run_ids
from backstop.platform.results.store import Store
from backstop.platform.results.wording import percent, plural, spread


class DefenseName(NamedTuple):
    """A defense as the tables show it."""

    label: str
    stages: Sequence[str]
    params: Sequence[str]  # of a defense of one stage
    marks: str


class FigureText(NamedTuple):
    """A mean, and its interval where it has one."""

    mean: str
    interval: str


class RankedRow(NamedTuple):
    """A line of the ranking."""

    rank: int
    defense: str
    name: DefenseName
    der: float | None
    figures: Sequence[FigureText]
    worst_success: float | None
    worst_attack: Sequence[str]
    needs: Sequence[str]


class AttackRates(NamedTuple):
    """An attack of the table of attacks and defenses, with its success in the order of these."""

    stages: Sequence[str]
    knows: str
    clean_twin: float | None
    untriggered: float | None
    success: Sequence[float | None]


class Matrix(NamedTuple):
    """Attack success of every attack against every defense."""

    attacks: Sequence[AttackRates]
    defenses: Sequence[DefenseName]


def page(document: Mapping[str, Any], runs: Sequence[Drawn]) -> str:
    """The whole page. Runs need their curves only for :func:`curve_run_ids`."""
    experiment = str(document["experiment"])
    return _template().render(
        experiment=experiment,
        experiment_argument=shlex.quote(experiment),
        facts=_facts(document),
        missing_runs=incomplete(document),
        ranking=_ranking(document),
        footnotes=footnotes(document),
        overview=illustrations.overview(document, runs),
        matrix=_matrix(document),
        twins_note=TWINS,
        lifetimes=lifetimes(document),
        lifetime_headings=LIFETIME_HEADS,
        lifetime_note=LIFETIME_NOTE,
        strength_curves=illustrations.by_strength(document),
        maps=illustrations.knob_maps(document),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    return environment.get_template("page.html")


def _facts(document: Mapping[str, Any]) -> dict[str, str]:
    """Where the figures come from, in words."""
    cells = document["cells"]
    tasks = sorted({f"{cell['dataset']} ({cell['model']})" for cell in cells})
    seeds = {seed for cell in cells for seed in cell["seeds"]}
    attacks = {cell["attack"] for cell in cells} - {UNATTACKED}
    counts = (
        plural(len(document["rows"]), "defense"),
        plural(len(attacks), "attack"),
        plural(len(seeds), "seed"),
    )
    return {
        "task": ", ".join(tasks),
        "runs": f"{len(document['runs'])}: {', '.join(counts)}",
        "rule": document["rule"],
        "fingerprint": document["fingerprint"],
    }


def _defense_names(document: Mapping[str, Any]) -> dict[str, DefenseName]:
    """The defenses of the ranking as tables show them, by their full texts."""
    rows = document["rows"]
    labels = display_names(row["defense"] for row in rows)
    return {row["defense"]: _defense_name(labels[row["defense"]], remarks(row)) for row in rows}


def _defense_name(label: str, marks: str) -> DefenseName:
    stages = stage_texts(label)
    name, _, inside = label.removesuffix(")").partition("(")
    if len(stages) > 1 or not inside:
        return DefenseName(label, stages, [], marks)
    return DefenseName(label, [name], inside.split(", "), marks)


def _ranking(document: Mapping[str, Any]) -> list[RankedRow]:
    rows = document["rows"]
    names = _defense_names(document)
    attacks = display_names(row["worst_attack"] for row in rows if row["worst_attack"])
    return [
        RankedRow(
            rank=row["rank"],
            defense=row["defense"],
            name=names[row["defense"]],
            der=row["der"],
            figures=[_figure_text(row[figure]) for figure in RANKED_FIGURES],
            worst_success=row["worst_attack_success_rate"],
            worst_attack=stage_texts(attacks[row["worst_attack"]]) if row["worst_attack"] else [],
            needs=row["needs"],
        )
        for row in rows
    ]


RANKED_FIGURES = ("clean_accuracy", "attack_success_rate", "robust_accuracy", "no_attack_accuracy")


def _figure_text(figure: Mapping[str, float] | None) -> FigureText:
    mean, _, interval = spread(figure).partition(" ")
    return FigureText(mean, interval)


def _matrix(document: Mapping[str, Any]) -> Matrix | None:
    """Attack success of every attack against every defense; None for fewer than two attacks."""
    attacked = [
        cell
        for cell in document["cells"]
        if cell["attack"] != UNATTACKED and cell[SUCCESS] is not None
    ]
    knows = {cell["attack"]: cell["knows"] for cell in attacked}
    if len(knows) < 2:
        return None
    names, labels = _defense_names(document), marked_attacks(document)
    success = means(attacked, ("attack", "defense"), SUCCESS)
    twins = means(attacked, ("attack",), "natural_success")
    untriggered = means(undefended(attacked), ("attack",), UNTRIGGERED)
    attacks = [
        AttackRates(
            stages=stage_texts(labels[attack]),
            knows=knows[attack],
            clean_twin=twins.get((attack,)),
            untriggered=untriggered.get((attack,)),
            success=[success.get((attack, defense)) for defense in names],
        )
        for attack in sorted(knows)
    ]
    return Matrix(attacks, list(names.values()))


def write(document: Mapping[str, Any], runs: Sequence[Run], store: Store, folder: Path) -> Path:
    """Write leaderboard.html, with the metrics by round that it draws from the store. Raises
    BadInput when it cannot be written.
    """
    drawn = with_curves(store, runs, curve_run_ids(document), CURVES)
    return write_text(folder / "leaderboard.html", page(document, drawn))
