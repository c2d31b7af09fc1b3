"""Sign flip: how far it turns an average round, and that it bites."""

from __future__ import annotations

import pytest
import torch

from backstop.attacks.sign_flip import sign_flip
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view

CLAIM = Claim(
    "sign_flip(strength=4)", effect=0.55, weaker="sign_flip(strength=1)", bend=0.5, untargeted=True
)


@pytest.mark.parametrize(("strength", "left"), [(1.0, 0.6), (4.0, 0.0), (9.0, -1.0)])
def test_what_is_left_of_an_average_of_like_updates_with_a_fifth_malicious(
    strength: float, left: float
) -> None:
    craft, update = (
        sign_flip(strength=strength).craft,
        torch.randn(1, 50, generator=generator(0, "tests", "update")),
    )
    assert craft is not None
    sent = torch.cat([update.repeat(8, 1), craft(None, update.repeat(2, 1), attack_view("table"))])
    torch.testing.assert_close(sent.mean(0), left * update[0], atol=1e-6, rtol=0)


def test_the_largest_numbers_stay_finite() -> None:
    craft, large = sign_flip(strength=1e4).craft, torch.finfo(torch.float32).max
    assert craft is not None
    assert craft(None, torch.tensor([[3e38, -3e38]]), attack_view("table")).tolist() == [
        [-large, large]
    ]
