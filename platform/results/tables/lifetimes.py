"""How long backdoors take to come and how long they last, of the attacks that stop."""

from __future__ import annotations

from backstop.platform.results.figures.cells import SUCCESS
from backstop.platform.results.figures.names import Json, chain_names, document_chains
from backstop.platform.results.figures.wording import plural

LIFETIME_HEADS = ("attack", "defense", "rounds to the backdoor", "rounds that it lasted")
LIFETIME_NOTE = (
    "Over the clean twin: rounds from the attack's first until success is half-way from the twin's"
    " to 100 %, and rounds after its last in which half of the excess was left; + where some seed's"
    " was still active at the end. Means are over the seeds in which it came so far."
)


def lifetimes(document: Json) -> list[tuple[str, str, str, str]]:
    """A line for each attack and defense, in the order of :data:`LIFETIME_HEADS`; + says that the
    backdoor was still active when the last round of some seed was over.
    """
    chains = document_chains(document)
    cells = [cell for cell in document["cells"] if _says_how_long(cell, document["settings"])]
    attacks = chain_names({cell["attack"]: chains[cell["attack"]] for cell in cells})
    defenses = chain_names({cell["defense"]: chains[cell["defense"]] for cell in cells})
    lines = []
    for cell in cells:
        sign = "+" if cell["still_active"] else ""
        line = (
            str(attacks[cell["attack"]]),
            str(defenses[cell["defense"]]),
            _rounds(cell, "time_to_backdoor") or "never",
            _rounds(cell, "durability", sign) or "–",
        )
        lines.append(line)
    return lines


def _says_how_long(cell: Json, settings: Json) -> bool:
    stops = settings[cell["setting"]]["attack_stop"] is not None
    return stops and cell[SUCCESS] is not None and bool(cell["seeds"])


def _rounds(
    cell: Json,
    figure: str,
    sign: str = "",
) -> str:
    """The mean, and over how many seeds it is where not over all; empty where there is none."""
    if cell[figure] is None:
        return ""
    planted, seeds = cell["planted_seeds"], len(cell["seeds"])
    mean = f"{cell[figure]['mean']:.1f}{sign}"
    if planted < seeds:
        return f"{mean} ({planted} of {plural(seeds, 'seed')})"
    return mean
