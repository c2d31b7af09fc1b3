"""Every defense there is against one strong backdoor, on real digits: the table that
docs/defenses.md explains.

Each defense faces a patch backdoor with model replacement, and none while it is dormant, for two
seeds. A new file in defenses/ joins by itself, with its defaults; those whose defaults are in other
units than this task's are set in _defense_settings.py. No server knows the number of attackers, so
those that assume one are told half of it and double, too. A defense that looks at BatchNorm
statistics stands in a federation of its own, whose model has some. No download; some twenty minutes
on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Spec
from backstop.platform.plugins import find
from backstop.platform.specs.change import grid
from backstop.search_spaces._defense_settings import (
    ATTACKERS,
    BATCH_NORM,
    defense_settings,
    federation_for,
)
from backstop.search_spaces.quickstart import BASE

ATTACK = "badnets(share=0.2)+model_replacement(strength=3)"
TOLD = (ATTACKERS // 2, ATTACKERS, 2 * ATTACKERS)  # to a defense that assumes a number


def _settings(name: str, usual: str) -> list[str]:
    """The ways in which a defense stands in the table."""
    if "f" in find("defenses", name).parameters:
        return [f"{name}(f={told})" for told in TOLD]
    return [usual]


def _stands_in(name: str, base: Spec) -> bool:
    """Whether a defense is put into a federation; the one that learns nothing into both."""
    return name == "frozen" or federation_for(name) == base


def all_defenses() -> list[Spec]:
    """One attack × every defense × two seeds."""
    found = defense_settings().items()
    specs = []
    for base in (BASE, BATCH_NORM):
        here = [(name, usual) for name, usual in found if _stands_in(name, base)]
        settings = [setting for name, usual in here for setting in _settings(name, usual)]
        specs += grid(base, seed=range(2), attack=[ATTACK], defense=settings)
    return specs
