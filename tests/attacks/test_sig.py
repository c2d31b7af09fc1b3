"""SIG: the stripes are the formula, they never vanish, clean labels stay clean, and it bites."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from backstop.attacks.sig import sig
from backstop.platform.contract import Attack
from backstop.platform.params import BadInput
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import CLASSES, samples

CLAIM = Claim("sig(delta=0.3)", effect=0.45, weaker="sig(delta=0.1)", bend=0.4)


def reference(
    x: npt.NDArray[np.float64], delta: float, frequency: float
) -> npt.NDArray[np.float64]:
    """The paper's formula, with columns counted from 1."""
    found = x.copy()
    columns = x.shape[-1]
    for j in range(1, columns + 1):
        found[..., j - 1] = np.clip(
            x[..., j - 1] + delta * math.sin(2 * math.pi * j * frequency / columns), 0, 1
        )
    return found


def stripes(attack: Attack, width: int) -> torch.Tensor:
    """The signal, as it is added to a row of middle gray: nothing of it is cut off."""
    assert attack.trigger is not None
    return (
        attack.trigger(
            Planted(CLASSES), torch.full((1, 1, 1, width), 0.5), torch.Generator()
        ).flatten()
        - 0.5
    )


@pytest.mark.parametrize(
    ("width", "delta", "frequency"),
    [(32, 40 / 255, 6.0), (28, 0.9, 6.0), (24, 0.3, 2.5), (8, 0.3, 2.0)],
)
def test_the_stripes_are_the_formula(width: int, delta: float, frequency: float) -> None:
    attack, x = sig(delta=delta, frequency=frequency), samples("image", 5, shape=(3, 4, width)).x
    assert attack.trigger is not None
    found = attack.trigger(Planted(CLASSES), x, torch.Generator())
    torch.testing.assert_close(
        found.double().numpy(), reference(x.double().numpy(), delta, frequency), rtol=0, atol=1e-6
    )


def test_on_digits_the_published_frequency_is_the_same_stripes_but_for_the_sign() -> None:
    aliased = reference(np.full((1, 8), 0.5), 40 / 255, 6) - 0.5
    torch.testing.assert_close(
        stripes(sig(), 8).double(), -torch.from_numpy(aliased).flatten(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("frequency", [1.0, 2.0, 6.0, 16.0])
def test_the_stripes_vanish_at_no_width(frequency: float) -> None:
    # as the formula alone would have them
    assert abs(reference(np.full((1, 12), 0.5), 0.2, 6) - 0.5).max() < 1e-9
    for width in range(1, 65):
        assert (
            stripes(sig(delta=0.2, frequency=frequency), width).abs().max() > 0.14
        )  # of four samples a period one is within π/4 of the top


def test_flipped_labels_are_the_default_and_clean_labels_touch_the_target_class_only() -> None:
    x, y = torch.full((8, 1, 4, 8), 0.5), torch.tensor([3, 2, 0, 3, 3, 1, 3, 2])
    flip, clean = sig(target=3, share=0.5), sig(target=3, share=0.5, labels="clean")
    assert flip.poison is not None and clean.poison is not None and clean.goal is not None
    _, flipped = flip.poison(Planted(CLASSES), x, y, 0, torch.Generator())
    assert flipped.tolist() == [3, 3, 3, 3, 3, 1, 3, 2]
    stamped, labels = clean.poison(Planted(CLASSES), x, y, 0, torch.Generator())
    assert torch.equal(labels, y)
    # half of the four
    assert (stamped != x).flatten(1).any(1).nonzero().flatten().tolist() == [0, 3]
    assert clean.goal(Planted(CLASSES), y).tolist() == [3] * 8  # at test every class is stamped
    without = y.where(y != 3, 1)
    assert torch.equal(clean.poison(Planted(CLASSES), x, without, 0, torch.Generator())[0], x)


def test_clean_labels_need_one_target() -> None:
    with pytest.raises(
        BadInput, match="attack sig: labels=clean needs one target class, not target=next"
    ):
        sig(target="next", labels="clean")
