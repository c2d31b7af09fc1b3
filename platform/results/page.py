"""The leaderboard for people: one page that needs nothing else.

``page.html`` and ``page.css`` beside this file are the page; what is here says what stands in them.
The page holds no script and loads nothing. Every value that comes from a run is escaped by Jinja2;
only our own drawings are markup.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import jinja2

from backstop.platform.results import illustrations
from backstop.platform.results.by_attack import BY_ATTACK_NOTE, attack_table
from backstop.platform.results.by_round import CURVES, Drawn, curve_run_ids
from backstop.platform.results.columns import cell_text, columns_in, ranked_rows
from backstop.platform.results.document import Document, write_text
from backstop.platform.results.lifetimes import LIFETIME_HEADS, LIFETIME_NOTE, lifetimes
from backstop.platform.results.marks import UNATTACKED
from backstop.platform.results.notes import footnotes, incomplete
from backstop.platform.results.runs import Run, with_curves
from backstop.platform.results.store import Store
from backstop.platform.results.wording import percent, plural


def page(document: Document, runs: Sequence[Drawn]) -> str:
    """The whole page. Runs need their curves only for :func:`curve_run_ids`."""
    experiment = str(document["experiment"])
    return _template().render(
        experiment=experiment,
        experiment_argument=shlex.quote(experiment),
        facts=_facts(document),
        missing_runs=incomplete(document),
        columns=columns_in("page"),
        cell_text=cell_text,
        ranking=ranked_rows(document),
        footnotes=footnotes(document),
        overview=illustrations.ranking_at_a_glance(document, runs),
        matrix=attack_table(document),
        matrix_note=BY_ATTACK_NOTE,
        lifetimes=lifetimes(document),
        lifetime_heads=LIFETIME_HEADS,
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


def _facts(document: Document) -> dict[str, str]:
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
    return write_text(folder / "leaderboard.html", page(document, drawn))
