"""Attack success by the strength of an attack."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple

from backstop.platform import plugins
from backstop.platform.results.figures.names import (
    Chain,
    ChainName,
    chain_names,
    chain_of,
    document_chains,
)
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.report.marks import Line, best_per_family
from backstop.platform.results.tables.by_attack import mean_success
from backstop.platform.results.tables.frames import cells_frame
from backstop.platform.specs.part import Part, chain_text

FEWEST_STRENGTHS = 3  # that make a line worth drawing
ANY = "…"  # stands for a strength that varies; it needs no quotes


class StrengthGroup(NamedTuple):
    """Attacks that differ in the strength of one stage only."""

    text: str
    chain: Chain  # with … in place of the strength
    attacks: Mapping[float, str]  # strength → attack, from weak to strong


def strength_groups(document: Document) -> list[StrengthGroup]:
    """Attacks that differ in one stage's STRENGTH only, at least three of them."""
    chains: dict[str, Chain] = {}
    attacks: dict[str, dict[float, str]] = {}
    for cell in document["cells"]:
        attack = chain_of(cell["attack_stages"])
        for strength, chain in _without_strength(attack):
            text = chain_text(chain, "attack")
            chains[text] = chain
            attacks.setdefault(text, {})[strength] = cell["attack"]
    groups = [
        StrengthGroup(text, chains[text], dict(sorted(members.items())))
        for text, members in sorted(attacks.items())
    ]
    return [group for group in groups if len(group.attacks) >= FEWEST_STRENGTHS]


def _without_strength(chain: Chain) -> Iterator[tuple[float, Chain]]:
    """For each stage that has a strength: that, and the chain with … in its place."""
    for position, stage in enumerate(chain):
        knob = _strength_parameter(stage.name)
        if knob is None:
            continue
        strength = stage.params.get(knob)
        if isinstance(strength, (int, float)):
            blank = Part(stage.name, {**stage.params, knob: ANY})
            before, after = chain[:position], chain[position + 1 :]
            yield float(strength), (*before, blank, *after)


def _strength_parameter(attack: str) -> str | None:
    """The parameter that says how strong the attack is; None of an attack without one, and of one
    that is not installed here.
    """
    if not plugins.is_there("attacks", attack):
        return None
    return plugins.attack_facts(attack).strength


def lines_by_strength(document: Document) -> list[tuple[ChainName, list[Line]]]:
    """For each group of attacks its name and a line for the best of each family of defenses; points
    are (strength, attack success in percent).
    """
    groups = strength_groups(document)
    names = _names(document, groups)
    success = mean_success(cells_frame(document))
    drawn = []
    for group in groups:
        lines = _lines(document, group, success)
        if lines:
            drawn.append((names[group.text], lines))
    return drawn


def _names(document: Document, groups: list[StrengthGroup]) -> dict[str, ChainName]:
    """Names of the groups, with the parameters that tell them from their own attacks too."""
    chains = document_chains(document)
    named: dict[str, Chain] = {}
    for group in groups:
        named[group.text] = group.chain
        for attack in group.attacks.values():
            named[attack] = chains[attack]
    return chain_names(named)


def _lines(
    document: Document,
    group: StrengthGroup,
    success: Mapping[Hashable, float],
) -> list[Line]:
    lines = []
    for mark in best_per_family(document):
        points = _points(group, mark.row["defense"], success)
        if len(points) >= 2:
            lines.append(Line(mark, points))
    return lines


def _points(
    group: StrengthGroup,
    defense: str,
    success: Mapping[Hashable, float],
) -> list[tuple[float, float]]:
    """(strength, attack success in percent) of the attacks that the defense has met."""
    points = []
    for strength, attack in group.attacks.items():
        rate = success.get((attack, defense))
        if rate is not None:
            points.append((strength, 100 * rate))
    return points
