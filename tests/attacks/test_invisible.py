"""Invisible sample-specific triggers: bounded, each image's own, the same wherever it is made, and
that they bite.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from backstop.attacks.invisible import _Encoder, invisible
from backstop.platform.contract import Attack
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import attack_view, samples

CLAIM = Claim(
    "invisible(epsilon=0.2)+model_replacement(strength=2)",
    effect=0.6,
    weaker="invisible(epsilon=0.05)+model_replacement(strength=2)",
    bend=0.4,
)


def started(attack: Attack, shape: tuple[int, ...]) -> Planted:
    assert attack.init is not None
    state: Planted = attack.init(attack_view("image", shape=shape))
    return state


def stamped(attack: Attack, state: Planted, x: torch.Tensor) -> torch.Tensor:
    assert attack.trigger is not None
    return attack.trigger(state, x, torch.Generator())


def reference(image: np.ndarray, encoder: _Encoder, epsilon: float) -> np.ndarray:
    """One image (C, H, W) in float64, one pair of channels after the other."""
    planes = np.concatenate([2 * image - 1, encoder.message.double().numpy()])
    for weights in (encoder.first.double().numpy(), encoder.second.double().numpy()):
        planes = np.stack(
            [
                np.tanh(
                    sum(
                        correlate2d(np.pad(p, 3), w, "valid")
                        for p, w in zip(planes, row, strict=True)
                    )
                )
                for row in weights
            ]
        )
    return np.clip(image + epsilon * planes, 0, 1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 5), (3, 8, 8)])
def test_it_is_the_formula(shape: tuple[int, ...]) -> None:
    attack, x = invisible(epsilon=0.3), samples("image", 3, "x", shape).x
    state = started(attack, shape)
    wanted = [reference(image.double().numpy(), state.own, 0.3) for image in x]
    np.testing.assert_allclose(stamped(attack, state, x).numpy(), np.stack(wanted), atol=1e-5)


def test_no_value_moves_by_more_than_epsilon_and_most_move_by_nearly_as_much() -> None:
    attack, x = invisible(), 0.1 + 0.8 * samples("image", 20, "x").x  # clipping does not help
    change = (stamped(attack, started(attack, (3, 8, 8)), x) - x).abs()
    assert change.max() <= 0.05 + 1e-6 and change.median() > 0.04


def test_each_image_is_changed_in_its_own_way() -> None:
    attack, x = invisible(), 0.1 + 0.8 * samples("image", 20, "x").x
    change = (stamped(attack, started(attack, (3, 8, 8)), x) - x).flatten(1)
    # the energy that is not common to all
    assert change.var(0, unbiased=False).sum() > 0.3 * change.square().mean(0).sum()
    assert (torch.corrcoef(change) - torch.eye(20)).max() < 0.9


def test_it_carries_the_message() -> None:
    attack, x = invisible(), 0.1 + 0.8 * samples("image", 20, "x").x
    state = started(attack, (3, 8, 8))
    assert state.own.message.unique().tolist() == [-1, 1]
    other = state._replace(own=state.own._replace(message=-state.own.message))
    assert (stamped(attack, state, x) - stamped(attack, other, x)).abs().mean() > 0.02


def test_an_image_is_changed_alike_in_any_batch() -> None:
    attack, x = invisible(), samples("image", 20, "x").x
    state = started(attack, (3, 8, 8))
    torch.testing.assert_close(
        stamped(attack, state, x)[7:8], stamped(attack, state, x[7:8]), atol=1e-6, rtol=0
    )
