"""How many attackers does a defense bear: from one client in a thousand to one in five, in cohorts
that hold as many of them as is their share and in random ones.

The patch with model replacement on handwritten digits: 100 clients, of which 1, 5, 10 or 20 are
malicious, 20 a round. One in a thousand takes a thousand clients, for which made-up documents are
enough: the trigger phrase with model replacement, 50 a round, 1 or 10 malicious. Under random
cohorts a single one of them is there in one round of twenty. Defenses that assume a number are told
4, as many as a cohort holds at one in five. No download; some ten minutes on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid
from backstop.search_spaces._references import REFERENCES
from backstop.search_spaces.quickstart import BASE

SMALL = BASE.replace(clients=100, rounds=60)
LARGE = BASE.replace(
    dataset=Part("topics", {"samples": 20000}),
    model=Part("bag_of_words"),
    clients=1000,
    per_round=50,
    selection="random",
    rounds=60,
    optimizer=Part("sgd", {"lr": 0.5, "momentum": 0.9}),
)
FIXED = (0.05, 0.1, 0.2)  # a smaller share is no client of a cohort
RANDOM = (0.01, *FIXED)
FEW = (0.001, 0.01)
IMAGES = "badnets(share=0.2)+model_replacement(strength=3)"
TEXT = "phrase(share=0.3)+model_replacement(strength=3)"
RULES = ("invariant", "median", "multi_krum(f=4)", "flame", "foolsgold")
SEEDS = range(2)


def _shares(
    base: Spec,
    attack: str,
    shares: tuple[float, ...],
    norm: float,
) -> list[Spec]:
    """Every share × every defense × two seeds; ``norm`` clips longer honest updates."""
    defenses = [*REFERENCES, *RULES, f"norm_clip(norm={norm})"]
    return grid(base, malicious=shares, seed=SEEDS, attack=[attack], defense=defenses)


def attacker_share() -> list[Spec]:
    """Nine pairs of share and cohort × eight defenses × two seeds."""
    return [
        *_shares(SMALL.replace(selection="fixed"), IMAGES, FIXED, norm=0.2),
        *_shares(SMALL.replace(selection="random"), IMAGES, RANDOM, norm=0.2),
        *_shares(LARGE, TEXT, FEW, norm=1.0),
    ]
