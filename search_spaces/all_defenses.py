"""Every defense there is against one strong backdoor, on real digits: the table that
docs/defenses.md explains.

Each defense faces no attack and a patch backdoor with model replacement, for two seeds. A new file
in defenses/ joins by itself, with its defaults; those whose defaults are in other units than this
task's, or that assume a number of attackers, are set in _defense_settings.py. No download; some
ten minutes on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.platform.specs.change import grid
from backstop.search_spaces._defense_settings import defense_settings
from backstop.search_spaces.quickstart import BASE

ATTACKS = ["none", "badnets(share=0.2)+model_replacement(strength=3)"]


def all_defenses() -> list[Spec]:
    """Two attacks × every defense × two seeds."""
    return grid(BASE, seed=range(2), attack=ATTACKS, defense=defense_settings().values())
