"""How long backdoors take to come and how long they last, of the attacks that stop."""

from __future__ import annotations

from typing import NamedTuple

from backstop.platform.results.figures.cells import SUCCESS
from backstop.platform.results.figures.names import Json, chain_names, document_chains
from backstop.platform.results.figures.wording import plural, spread

LIFETIME_HEADS = (
    "attack",
    "defense",
    "rounds to the backdoor",
    "rounds that it lasted",
    "rounds over one half",
    "excess after the attack",
)
LIFETIME_NOTE = (
    "Over the clean twin: rounds from the attack's first until success is half-way from the twin's"
    " to 100 %, rounds after its last in which half of the excess was left, and the mean excess of"
    " the evaluated rounds after its last. Rounds over one half are those after its last before"
    " success itself is below 50 %, whatever the twin has. + where some seed's backdoor was still"
    " there at the end, – where it never was, or nothing was evaluated after the attack. Means are"
    " over the seeds in which it came so far, of the excess over all. Where every k-th round is"
    " evaluated, numbers of rounds are up to k − 1 too large."
)


class LifetimeLine(NamedTuple):
    """A line of the table, in the order of :data:`LIFETIME_HEADS`."""

    attack: str
    defense: str
    to_backdoor: str
    lasted: str
    over_half: str
    excess: str


def lifetimes(document: Json) -> list[LifetimeLine]:
    """A line for each attack and defense; + says that the backdoor was still there when the last
    round of some seed was over.
    """
    chains = document_chains(document)
    cells = [cell for cell in document["cells"] if _says_how_long(cell, document["settings"])]
    attacks = chain_names({cell["attack"]: chains[cell["attack"]] for cell in cells})
    defenses = chain_names({cell["defense"]: chains[cell["defense"]] for cell in cells})
    lines = []
    for cell in cells:
        line = LifetimeLine(
            attack=str(attacks[cell["attack"]]),
            defense=str(defenses[cell["defense"]]),
            to_backdoor=_rounds(cell, "time_to_backdoor") or "never",
            lasted=rounds_lasted(cell),
            over_half=rounds_over_half(cell),
            excess=spread(cell["excess_after_stop"]),
        )
        lines.append(line)
    return lines


def rounds_lasted(cell: Json) -> str:
    """Rounds after the attack's last in which half of its excess was left; a dash without any."""
    return _rounds(cell, "durability", cell["still_active"]) or "–"


def rounds_over_half(cell: Json) -> str:
    """Rounds after the attack's last before success is below one half; a dash where it never was
    more.
    """
    return _rounds(cell, "lifespan", cell["still_over_half"]) or "–"


def _says_how_long(cell: Json, settings: Json) -> bool:
    stops = settings[cell["setting"]]["attack_stop"] is not None
    return stops and cell[SUCCESS] is not None and bool(cell["seeds"])


def _rounds(
    cell: Json,
    figure: str,
    still_there: int | None = None,
) -> str:
    """The mean, and over how many seeds it is where not over all; empty where there is none.
    ``still_there``: in how many seeds the backdoor was not gone at the end.
    """
    if cell[figure] is None:
        return ""
    known, seeds = cell[figure]["n"], len(cell["seeds"])
    mean = f"{cell[figure]['mean']:.1f}{'+' if still_there else ''}"
    if known < seeds:
        return f"{mean} ({known} of {plural(seeds, 'seed')})"
    return mean
