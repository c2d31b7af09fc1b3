"""The two knobs of the invariant aggregator: a heat map of AND-mask threshold × trim fraction under
one strong attack.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.platform.specs.change import grid
from backstop.search_spaces._references import REFERENCES
from backstop.search_spaces.quickstart import BASE

THRESHOLDS = (0.0, 0.2, 0.4, 0.6, 0.8)
TRIMS = (0.0, 0.1, 0.2, 0.3, 0.45)


def invariant_knobs() -> list[Spec]:
    """Twenty-five settings, among them the mask alone (no trimming) and the trimmed mean alone
    (threshold 0), and the two references × two seeds.
    """
    settings = [
        f"invariant(mask_threshold={threshold}, trim_fraction={trim})"
        for threshold in THRESHOLDS
        for trim in TRIMS
    ]
    return grid(
        BASE,
        seed=range(2),
        attack=["badnets+model_replacement(strength=3)"],
        defense=[*REFERENCES, *settings],
    )
