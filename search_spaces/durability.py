"""How long does a backdoor last: attacks that stop after round 20 of 80, on undefended FedAvg.

The page's table of lifetimes holds the rounds until the backdoor is there, those that it lasts and
what is left of it on average, over what the same inputs achieve when nobody attacks, and the rounds
before success is below one half. No download; a few minutes on two cores.

Depth of planting counts for more than the method, so each method meets the patch alone at its own
factor or rate: ``anticipate`` at a factor of 5, ``neurotoxin`` at the honest rate, 0.05, and at
0.0075, a ratio near the one of 0.02 to 0.003 by which its authors' rates with and without the mask
differ.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.platform.specs.change import grid
from backstop.search_spaces.quickstart import BASE

PATCH = "badnets(share=0.2)"
ATTACKS = [
    PATCH,
    f"{PATCH}+model_replacement(strength=3)",
    f"{PATCH}+neurotoxin+model_replacement(strength=3)",
    f"{PATCH}+overtrain(epochs=10, lr=0.0075)",
    f"{PATCH}+neurotoxin+overtrain(epochs=10, lr=0.0075)",
    f"{PATCH}+overtrain(epochs=10, lr=0.05)",
    f"{PATCH}+neurotoxin+overtrain(epochs=10, lr=0.05)",
    f"{PATCH}+chameleon(epochs=3)",
    f"{PATCH}+chameleon(epochs=3, rate=1, head_epochs=1, head_rate=1)",
    f"{PATCH}+model_replacement(strength=5)",
    f"{PATCH}+anticipate",
    f"{PATCH}+anticipate+model_replacement(strength=5)",
    "a3fl(size=2)",
]


def durability() -> list[Spec]:
    """Thirteen attacks × three seeds, evaluated in every round."""
    base = BASE.replace(rounds=80, attack_start=10, attack_stop=20, eval_every=1)
    return grid(base, seed=range(3), attack=ATTACKS)
