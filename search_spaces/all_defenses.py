"""Every defense there is against one strong backdoor, on real digits: the table that
docs/defenses.md explains.

Each defense faces no attack and a patch backdoor with model replacement, for two seeds. A new file
in defenses/ joins by itself, with its defaults; those whose defaults are in other units than this
task's, or that assume a number of attackers, are set in SETTINGS. No download; some ten minutes on
two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.platform.plugins import find, names
from backstop.platform.specs.change import grid
from backstop.search_spaces.quickstart import BASE

ATTACKS = ["none", "badnets(share=0.2)+model_replacement(strength=3)"]
ATTACKERS = 4  # of the 20 clients in a round; what a defense that assumes a number is told
# honest updates of this task are 0.2 to 0.7 long, the model 5 at first and 9 at the end
SETTINGS = {
    "centered_clipping": "centered_clipping(radius=0.2)",
    "crfl": "crfl(norm=8.0, noise=0.002)",
    "norm_clip": "norm_clip(norm=0.2)",
    "sparsefed": "sparsefed(norm=0.2)",
    "weak_dp": "weak_dp(norm=0.2, noise=0.002)",
}


def _setting(name: str) -> str:
    if name in SETTINGS:
        return SETTINGS[name]
    return f"{name}(f={ATTACKERS})" if "f" in find("defenses", name).parameters else name


def all_defenses() -> list[Spec]:
    """Two attacks × every defense × two seeds."""
    return grid(
        BASE, seed=range(2), attack=ATTACKS, defense=[_setting(name) for name in names("defenses")]
    )
