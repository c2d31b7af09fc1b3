"""Honest buffers: what is sent, and that it gets a backdoor past a defense that looks at them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from backstop.attacks.honest_buffers import honest_buffers
from tests.arena import Claim, figures
from tests.views import attack_view

MODEL = "convnet(width=8, modules=2)"
CLAIM = Claim(
    "badnets(share=0.5)+honest_buffers",
    effect=0.7,
    weaker="badnets(share=0.5)+honest_buffers(blend=0.1)",
    bend=0.6,
    model=MODEL,
    defense="bnguard",
)


@pytest.mark.parametrize("blend", [0.25, 1.0])
def test_the_buffers_move_to_the_honest_ones(blend: float) -> None:
    craft = honest_buffers(blend=blend).craft_buffers
    assert craft is not None
    own, honest = torch.tensor([[4.0, 0.0], [0.0, 8.0]]), torch.tensor([[0.0, 4.0], [8.0, 8.0]])
    view = replace(attack_view("table", malicious=2), unpoisoned_buffers=lambda: honest)
    sent = craft(None, own.clone(), view)
    torch.testing.assert_close(sent, (1 - blend) * own + blend * honest)


def test_only_buffers_are_changed() -> None:
    assert honest_buffers().craft is None


def test_without_it_the_defense_that_it_evades_stops_the_backdoor() -> None:
    changes = (("model", MODEL),)
    stopped = figures("badnets(share=0.5)", changes, defense="bnguard")
    assert stopped["final/attack_success_rate"] < 0.1
    assert stopped["final/kept_weight_malicious"] < 0.1
    evaded = figures(CLAIM.attack, changes, defense="bnguard")
    assert evaded["final/kept_weight_malicious"] > 0.9
