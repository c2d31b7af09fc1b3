"""A benchmark whose attacks do not bite flatters every defense: each attack beats its clean twin,
and more strength is more effect.
"""

from __future__ import annotations

import importlib

import pytest

from backstop.platform import plugins
from backstop.platform.specs.part import to_chain
from tests.arena import Claim, effect


def claim(name: str) -> Claim:
    """The claim in tests/attacks/test_<name>.py; every attack has one."""
    found: Claim = importlib.import_module(f"tests.attacks.test_{name}").CLAIM
    return found


@pytest.mark.parametrize("name", plugins.names("attacks"))
def test_it_beats_its_clean_twin_and_strength_bends_the_curve(name: str) -> None:
    """Room for other processors is in the claim."""
    stated = claim(name)
    assert name in [stage.name for stage in to_chain(stated.attack, "attack")]
    strong, weak = effect(stated, stated.attack), effect(stated, stated.weaker)
    print(f"{stated.attack}: {strong:.3f}; {stated.weaker}: {weak:.3f}")
    assert stated.effect > 0 and strong >= stated.effect
    if plugins.attack_facts(name).strength is not None:
        assert stated.bend > 0 and strong - weak >= stated.bend
