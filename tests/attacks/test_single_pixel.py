"""Single pixel: exactly one pixel changes, in its place, and it bites."""

from __future__ import annotations

import pytest
import torch

from backstop.attacks.single_pixel import single_pixel
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import CLASSES

CLAIM = Claim(
    "single_pixel+model_replacement(strength=2)",
    effect=0.45,
    weaker="single_pixel(share=0.05)+model_replacement(strength=2)",
    bend=0.2,
)


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((3, 32, 32), (3, 23)),  # as in the authors' code
        ((1, 8, 8), (3, 6)),  # next to the last where the image ends before
        ((1, 1, 1), (0, 0)),
        ((2, 1, 4), (0, 2)),
        ((1, 5, 2), (3, 0)),
    ],
)
def test_one_pixel_changes(shape: tuple[int, ...], place: tuple[int, int]) -> None:
    attack, x = single_pixel(), torch.full((2, *shape), 0.25)
    assert attack.trigger is not None
    stamped = attack.trigger(Planted(CLASSES), x, torch.Generator())
    white = torch.zeros(shape[1:], dtype=torch.bool)
    white[place] = True
    assert torch.equal(stamped, torch.where(white, 1.0, x))
