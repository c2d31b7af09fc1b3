"""The pictures of the page, each with its title and its caption."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from markupsafe import Markup

from backstop.platform.results.figures.names import attack_names
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report.by_knobs import knob_map
from backstop.platform.results.report.by_round import (
    CURVES,
    Drawn,
    lines_by_round,
    strongest_attack,
)
from backstop.platform.results.report.by_strength import lines_by_strength
from backstop.platform.results.report.canvas import draw_svg
from backstop.platform.results.report.fronts import draw_front
from backstop.platform.results.report.measures import MEASURES, Measure
from backstop.platform.results.report.pictures import (
    draw_by_round,
    draw_by_strength,
    draw_heat_map,
)

FRONT_CAPTION = (
    "Down and left is better. No defense beats one on the line in attack success without costing"
    " more accuracy. Large points: best variant of each defense; small ones: its other variants."
    " In a crowd not every point has its name; the ranking has all."
)


class Illustration(NamedTuple):
    """A picture of the page."""

    title: str
    caption: str
    svg: Markup
    measure: str = ""  # mean or worst, where it shows one of the two


def ranking_at_a_glance(document: Document, runs: Sequence[Drawn]) -> list[Illustration]:
    """Cost against attack success, in the mean and at its worst, and accuracy and success by round
    under the strongest attack.
    """
    if not document["rows"]:
        return []
    fronts = [_front(document, measure) for measure in MEASURES]
    return [*fronts, *_by_round(document, runs)]


def _front(document: Document, measure: Measure) -> Illustration:
    title = f"Accuracy lost against {measure.key} attack success"
    svg = draw_svg(
        title,
        partial(draw_front, document=document, measure=measure),
        salt=f"front {measure.key}",
        height=4.0,
    )
    return Illustration(title, FRONT_CAPTION, svg, measure.key)


def _by_round(document: Document, runs: Sequence[Drawn]) -> list[Illustration]:
    scene = strongest_attack(document)
    if scene is None:
        return []
    attack = attack_names(document)[scene.attack]
    accuracy, success = CURVES
    captions = {
        success: (
            "Attack success by round",
            f"Strongest attack here: {attack}. Best variant of each defense, mean over seeds.",
        ),
        accuracy: ("Accuracy by round", f"On clean test data, under {attack}."),
    }
    illustrations = []
    for metric, (title, caption) in captions.items():
        lines = lines_by_round(document, runs, metric)
        if lines:
            draw = partial(draw_by_round, lines=lines)
            svg = draw_svg(title, draw, salt=metric, height=3.6)
            illustrations.append(Illustration(title, caption, svg))
    return illustrations


def by_strength(document: Document) -> list[Illustration]:
    """Attack success over attack strength: where does each defense break?"""
    illustrations = []
    for name, lines in lines_by_strength(document):
        attack = str(name)
        svg = draw_svg(
            f"Attack success by strength: {attack}",
            partial(draw_by_strength, lines=lines),
            salt=f"strength {attack}",
            height=3.4,
        )
        illustrations.append(Illustration(attack, "Mean over seeds.", svg))
    return illustrations


def knob_maps(document: Document) -> list[Illustration]:
    """Attack success and accuracy over the two parameters of ``invariant``."""
    illustrations = []
    for metric, title, palette in (
        ("attack_success_rate", "Attack success (%)", "Oranges"),
        ("clean_accuracy", "Accuracy (%)", "Blues"),
    ):
        cells = knob_map(document, metric)
        if cells:
            svg = draw_svg(
                f"{title} by mask threshold and trim fraction",
                partial(draw_heat_map, cells=cells, palette=palette),
                salt=f"map {metric}",
                height=3.4,
            )
            illustrations.append(Illustration(title, "Mean over attacks and seeds.", svg))
    return illustrations
