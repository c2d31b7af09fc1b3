"""The newest attacks as they stand in ``all_attacks``, against FedAvg, a model that stands still
and the invariant aggregator: what docs/attacks.md has of them until that table is made anew. No
download; some ten minutes on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.search_spaces.all_attacks import all_attacks

NEWEST = frozenset(
    {
        *("bad_pfl", "bapfl", "darkfed", "fcba", "honest_buffers", "lp_adaptive", "lp_attack"),
        *("lying_validators", "mirage", "pfedba", "poisonedfl", "sdba", "soda", "subspace"),
        "venomancer",
    }
)


AGAINST = frozenset({"frozen", "invariant"})


def frontier_attacks() -> list[Spec]:
    """What ``all_attacks`` has of the newest attacks."""
    return [
        spec
        for spec in all_attacks()
        if NEWEST & {stage.name for stage in spec.attack}
        and AGAINST.issuperset(stage.name for stage in spec.defense)
    ]
