"""The leaderboard for people: one page that needs nothing else.

``page.html``, ``page_detail.html``, ``page.css`` and ``page.js`` beside this file are the page;
what is here says what stands in them. The page loads nothing. Its one script is our own, named in
the page's policy by its digest, so that no other one runs; it reads what it needs from the page's
own elements, and all of them are there without it. Every value that comes from a run is escaped by
Jinja2; only our own drawings and our own script are markup.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import jinja2
from markupsafe import Markup

from backstop.platform.results.figures.names import task_names
from backstop.platform.results.figures.wording import percent, plural, spread
from backstop.platform.results.leaderboard.document import Document, write_text
from backstop.platform.results.report import illustrations
from backstop.platform.results.report.attack_stages import PICTURES_NOTE, attack_stages
from backstop.platform.results.report.by_round import CURVES, Drawn, curve_run_ids
from backstop.platform.results.report.choices import choices, setting_titles
from backstop.platform.results.report.details import SPARK, RunInStore, cell_columns, details
from backstop.platform.results.report.marks import UNATTACKED
from backstop.platform.results.report.measures import MEASURES, measure_of
from backstop.platform.results.report.page_boards import (
    first_direction,
    page_boards,
    page_rows,
    sort_value,
    untargeted_board,
)
from backstop.platform.results.tables.by_attack import BY_ATTACK_NOTE, attack_table
from backstop.platform.results.tables.columns import cell_text
from backstop.platform.results.tables.lifetimes import LIFETIME_HEADS, LIFETIME_NOTE, lifetimes
from backstop.platform.results.tables.notes import ends_note, footnotes, incomplete
from backstop.platform.results.tables.splits import SPLIT_HEADS, SPLIT_NOTE, split_lines
from backstop.platform.results.tracking.runs import Run, with_curves
from backstop.platform.results.tracking.store import Store

HERE = Path(__file__).parent
RANGES_NOTE = "Each figure with the range or interval that stands beside it."


class PageRun(Drawn, RunInStore, Protocol):
    """What the page needs of a run besides the document."""


def page(
    document: Document,
    runs: Sequence[PageRun],
    store_uri: str = "",
) -> str:
    """The whole page. Runs need their curves only for :func:`curve_run_ids`; the page leads to them
    where the store at ``store_uri`` is a server.
    """
    experiment = str(document["experiment"])
    behind = details(document, page_rows(document), runs, store_uri)
    boards = page_boards(document, behind)
    script = _text("page.js")
    return _template().render(
        experiment=experiment,
        experiment_argument=shlex.quote(experiment),
        facts=_facts(document),
        missing_runs=incomplete(document),
        choices=choices(document, behind),
        setting_titles=setting_titles(document),
        boards=boards,
        untargeted=untargeted_board(document, behind),
        ends=ends_note(document),
        cell_columns=cell_columns(document),
        cell_text=cell_text,
        sort_value=sort_value,
        first_direction=first_direction,
        measure_of=measure_of,
        measures=MEASURES,
        rows=boards[0].lines,
        behind=behind,
        spark=SPARK,
        ranges_note=RANGES_NOTE,
        footnotes=footnotes(document),
        overview=illustrations.ranking_at_a_glance(document, runs),
        matrix=attack_table(document),
        matrix_note=BY_ATTACK_NOTE,
        lifetimes=lifetimes(document),
        lifetime_heads=LIFETIME_HEADS,
        lifetime_note=LIFETIME_NOTE,
        splits=split_lines(document),
        split_heads=SPLIT_HEADS,
        split_note=SPLIT_NOTE,
        strength_curves=illustrations.by_strength(document),
        maps=illustrations.knob_maps(document),
        attack_stages=attack_stages(document),
        pictures_note=PICTURES_NOTE,
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=content_hash(script),
    )


def content_hash(text: str) -> str:
    """How a page's policy names an inline script."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    environment.filters["spread"] = spread
    return environment.get_template("page.html")


def _facts(document: Document) -> dict[str, str]:
    """Where the figures come from, in words."""
    cells = document["cells"]
    tasks = sorted(set(task_names(document).values()))
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


def write_page(
    document: Document,
    runs: Sequence[Run],
    store: Store,
    folder: Path,
) -> Path:
    """Write leaderboard.html, with the metrics by round that it draws from the store. Raises
    BadInput when it cannot be written.
    """
    drawn = with_curves(store, runs, curve_run_ids(document), CURVES)
    return write_text(folder / "leaderboard.html", page(document, drawn, store.uri))
