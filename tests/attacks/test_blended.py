"""Blended injection: the blend is the formula, one noise image serves everyone, and it bites."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backstop.attacks.blended import blended
from backstop.platform.contract import Attack
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import CLASSES, attack_view, samples

CLAIM = Claim(
    "blended(alpha=0.4, share=0.2)", effect=0.5, weaker="blended(alpha=0.1, share=0.2)", bend=0.5
)


def pattern(
    attack: Attack, *, malicious: int = 3, seed: int = 0, shape: tuple[int, ...] = (3, 8, 8)
) -> Tensor:
    view = replace(
        attack_view("image", malicious=malicious, shape=shape),
        generator=generator(seed, "tests", "attack"),
    )
    assert attack.init is not None
    found: Tensor = attack.init(view).own
    return found


def reference(x: Tensor, t: Tensor, alpha: float) -> Tensor:
    found = torch.zeros(x.shape, dtype=torch.float64)
    for n, image in enumerate(x.double()):
        for place in torch.cartesian_prod(*(torch.arange(side) for side in t.shape)).tolist():
            found[n][tuple(place)] = (1 - alpha) * image[tuple(place)].item() + alpha * t.double()[
                tuple(place)
            ].item()
    return found


@pytest.mark.parametrize("alpha", [0.2, 0.55, 1.0])
def test_the_blend_is_the_formula(alpha: float) -> None:
    attack, (x, y) = blended(alpha=alpha, share=1.0), samples("image", 3, shape=(2, 3, 5))
    t = pattern(attack, shape=(2, 3, 5))
    assert attack.trigger is not None and attack.poison is not None
    found = attack.trigger(Planted(CLASSES, t), x, torch.Generator())
    torch.testing.assert_close(found.double(), reference(x, t, alpha), rtol=0, atol=1e-7)
    # one trigger for training and test
    assert torch.equal(attack.poison(Planted(CLASSES, t), x, y, 2, torch.Generator())[0], found)


def test_the_pattern_is_uniform_noise_over_every_channel_and_pixel() -> None:
    t = pattern(blended(), shape=(3, 32, 32)).flatten()
    assert len(t.unique()) > 0.99 * len(t)
    quantiles = torch.linspace(0, 1, len(t))
    # Kolmogorov's bound for 3,072 draws at p = 0.001
    assert (t.sort().values - quantiles).abs().max() < 0.035


def test_the_pattern_is_named_by_the_seed_and_needs_no_malicious_client() -> None:
    attack = blended()
    assert torch.equal(pattern(attack), pattern(attack))
    assert not torch.equal(pattern(attack), pattern(attack, seed=1))
    assert torch.equal(pattern(attack, malicious=0), pattern(attack))
