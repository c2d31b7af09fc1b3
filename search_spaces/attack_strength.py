"""At which strength does a defense break: three attacks, each from weak to strong, against FedAvg
and the invariant aggregator.

Model replacement (factor on the update), PGD (radius of the ball that the update stays in, here
with long training that fills it) and ``sign_aligned``, which knows the invariant aggregator's
threshold and trim fraction. The page draws attack success over strength. No download; a few minutes
on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.platform.specs.change import grid
from backstop.search_spaces._references import REFERENCES
from backstop.search_spaces.quickstart import BASE

ATTACKS = [
    *(
        f"badnets(share=0.2)+model_replacement(strength={strength})"
        for strength in (1, 2, 3, 5, 10, 30)
    ),
    *(
        f"badnets(share=0.2)+overtrain(epochs=10)+pgd(radius={radius})"
        for radius in (0.1, 0.3, 1, 3, 10, 30)
    ),
    *(
        f"badnets(share=0.2)+sign_aligned(strength={strength})"
        for strength in (0.3, 1, 2, 3, 10, 30)
    ),
]
DEFENSES = [*REFERENCES, "invariant"]


def attack_strength() -> list[Spec]:
    """Eighteen attacks × two defenses × three seeds."""
    return grid(BASE, seed=range(3), attack=ATTACKS, defense=DEFENSES)
