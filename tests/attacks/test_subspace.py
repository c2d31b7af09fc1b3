"""Subspace: within the mask that the protocol gives, within what moves the most without one, and
that it gets past what cuts everything else.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from backstop.attacks.subspace import subspace
from backstop.platform.specs.part import to_chain
from tests.arena import Claim, first_rows
from tests.views import attack_view

LOCKDOWN = to_chain("lockdown", "defense")
CLAIM = Claim(
    "badnets(share=0.2)+subspace",
    effect=0.25,
    weaker="badnets(share=0.2)",
    bend=0.0,
    defense="lockdown",
)


def test_rows_stay_within_the_mask() -> None:
    _, rows = first_rows("badnets(share=0.2)+subspace", defense=LOCKDOWN)
    outside = (rows == 0).all(0)
    assert 0.7 < outside.double().mean() < 0.85  # 0.25 is in the mask, some of it sees no input
    _, free = first_rows("badnets(share=0.2)", defense=LOCKDOWN)
    assert (free == 0).all(0).double().mean() < 0.4


def test_without_a_mask_the_last_step_tells() -> None:
    attack, view = subspace(share=0.25), attack_view("image", d=8)
    assert attack.plan
    assert attack.constrain
    first = attack.plan(None, view)
    delta = torch.ones(2, 8)
    assert torch.equal(attack.constrain(first, delta, 1), delta)
    assert attack.craft
    rows = torch.tensor([[1.0, 0.0, 9.0, 0.0, -9.0, 0.0, 0.0, 0.0]])
    assert attack.craft(first, rows, view).tolist() == [[0.0, 0.0, 9.0, 0.0, -9.0, 0.0, 0.0, 0.0]]
    step = torch.tensor([0.0, 3.0, -5.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    second = attack.plan(first, replace(view, params=view.params + step))
    held = attack.constrain(second, delta, 1)
    assert held.tolist() == [[0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]] * 2


def test_with_a_mask_the_rest_is_off_while_it_trains() -> None:
    attack, view = subspace(), attack_view("image", d=4)
    assert attack.plan
    assert attack.constrain
    assert attack.craft
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0])
    state = attack.plan(None, replace(view, carried=mask))
    delta = attack.constrain(state, torch.ones(4), 1)
    assert torch.equal((view.params + delta) * (1 - mask), torch.zeros(4))
    assert torch.equal(attack.craft(state, delta[None], view)[0], mask)
