"""Every defense there is against one strong backdoor, on real digits: the table that
docs/defenses.md explains.

Each defense faces a patch backdoor with model replacement, and none while it is dormant, for two
seeds. A new file in defenses/ joins by itself, with its defaults; those whose defaults are in other
units than this task's are set in _defense_settings.py. No server knows the number of attackers, so
those that assume one are told half of it and double, too. A defense that looks at BatchNorm
statistics stands in a federation of its own, whose model has some; defenses under which clients
keep a part of the model are measured by the clients, each beside FedAvg measured so. No download;
some twenty minutes on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.platform.plugins import find
from backstop.platform.specs.change import grid
from backstop.search_spaces._defense_settings import (
    ATTACKERS,
    FEDERATIONS,
    defense_settings,
    federation_for,
)

ATTACK = "badnets(share=0.2)+model_replacement(strength=3)"
TOLD = (ATTACKERS // 2, ATTACKERS, 2 * ATTACKERS)  # to a defense that assumes a number


def _settings(name: str, usual: str) -> list[str]:
    """The ways in which a defense stands in the table."""
    if "f" in find("defenses", name).parameters:
        return [f"{name}(f={told})" for told in TOLD]
    return [usual]


def all_defenses() -> list[Spec]:
    """One attack × every defense × two seeds; in each federation one that stands still."""
    specs = []
    for federation in FEDERATIONS:
        here = {
            name: usual
            for name, usual in defense_settings().items()
            if name == "frozen" or federation_for(name) == federation
        }
        settings = [setting for name, usual in here.items() for setting in _settings(name, usual)]
        specs += grid(federation, seed=range(2), attack=[ATTACK], defense=settings)
    return specs
