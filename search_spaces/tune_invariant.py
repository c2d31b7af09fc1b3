"""AND-mask threshold and trim fraction of the invariant aggregator for the best defense
effectiveness rate (DER).
"""

from __future__ import annotations

from backstop.platform.contract import Part, Search
from backstop.platform.specs.part import to_chain
from backstop.search_spaces.quickstart import BASE


def tune_invariant() -> Search:
    """Twenty-four proposals, four at a time, judged by DER under a patch backdoor with model
    replacement on validation data; the best one is run again on fresh seeds and the test set.
    """
    return Search(
        base=BASE.replace(
            attack=to_chain("badnets+model_replacement(strength=3)", "attack"),
            defense=(Part("invariant"),),
        ),
        free=("defense.invariant.mask_threshold", "defense.invariant.trim_fraction"),
        objective="der",
        trials=24,
        width=4,
    )
