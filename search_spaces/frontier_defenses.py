"""The newest defenses as they stand in ``all_defenses``, beside its references, the invariant
aggregator and the median: what docs/defenses.md has of them until that table is made anew. No
download; some ten minutes on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.search_spaces.all_defenses import all_defenses

NEWEST = frozenset(
    {
        *("agsd", "alignins", "baffle", "bnguard", "crowdguard", "ditto", "fedbn", "fedcpa"),
        *("fedgame", "fedrep", "flshield", "freqfed", "leadfl", "lockdown", "mars", "masa"),
        *("mesas", "multi_metrics", "snowball"),
    }
)
BESIDE = frozenset({"frozen", "invariant", "median"})


def frontier_defenses() -> list[Spec]:
    """What ``all_defenses`` has of the newest defenses."""
    wanted = NEWEST | BESIDE
    return [spec for spec in all_defenses() if wanted.issuperset(_names(spec))]


def _names(spec: Spec) -> set[str]:
    return {stage.name for stage in spec.defense}
