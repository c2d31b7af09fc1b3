"""PFedBA: the distance of gradients and a step down it, both stages, where the patch is, that
alignment is what it lives by.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.attacks.pfedba import _gap, _moved, _put, pfedba
from backstop.platform.contract import AttackView, Samples
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim, figures
from tests.patterns import model, view_of_patterns
from tests.references import softmax
from tests.views import attack_view, with_data

CLAIM = Claim(
    "pfedba(part=0.25, share=0.5)",
    effect=0.3,
    weaker="pfedba(part=0.25, share=0.02)",
    bend=0.15,
)


@cache
def view() -> AttackView:
    """An adversary with a network that has learned four noisy patterns of 6 x 6 pixels."""
    return view_of_patterns("pfedba")


def planned(
    state: Planted | None = None, seen: AttackView | None = None, **params: object
) -> Planted:
    """The state after a plan, from the first one unless given."""
    attack = pfedba(**params)  # type: ignore[arg-type]
    seen = replace(seen or view(), generator=generator(0, "tests", "attack"))
    assert attack.init is not None and attack.plan is not None
    found: Planted = attack.plan(state or attack.init(seen), seen)
    return found


def linear(params: Tensor, x: Tensor) -> Tensor:
    """Weights (pixels, 3)."""
    flat = x.flatten(1)
    return flat @ params.view(flat.shape[1], 3)


def distance(pixel: float, x: np.ndarray, y: list[int], goal: list[int], w: np.ndarray) -> float:
    """The distance of the two gradients where the patch is the last pixel of each line."""
    stamped = x.copy()
    stamped[:, -1] = pixel
    apart = softmax.in_weights(stamped, w, goal) - softmax.in_weights(x, w, y)
    return float(np.sqrt((apart**2).sum()))


@pytest.mark.parametrize("case", ["random", "tied", "zero", "single"])
def test_a_step_goes_down_the_distance_of_the_gradients(case: str) -> None:
    draws = generator(0, "tests", "gap", case)
    for _ in range(10):
        n = 1 if case == "single" else 6
        x = torch.rand(n, 4, generator=draws) * (case != "zero")
        x = x[:1].repeat(n, 1) if case == "tied" else x
        y, goal = (torch.randint(3, (n,), generator=draws) for _ in range(2))
        pixel, weight = torch.rand(1, generator=draws), torch.randn(4, 3, generator=draws)
        # lines of one row and four columns: the patch, one pixel wide, is moved to column 1
        lines = x[:, [0, 3, 1, 2]].view(n, 1, 1, 4)
        rows = weight[[0, 3, 1, 2]].flatten()
        loss = partial(_gap, linear, rows, Samples(lines, y), goal)
        known = partial(
            distance,
            x=x.double().numpy(),
            y=y.tolist(),
            goal=goal.tolist(),
            w=weight.double().numpy(),
        )
        at = pixel.item()
        assert loss(pixel.view(1, 1, 1)).item() == pytest.approx(known(at), abs=1e-5)
        slope = (known(at + 1e-5) - known(at - 1e-5)) / 2e-5
        found = _moved(pixel.view(1, 1, 1), loss, 0.3).item()
        assert found == pytest.approx(float(np.clip(at - 0.3 * slope, 0, 1)), abs=1e-3)


def test_the_patch_is_from_ten_to_twenty_of_28_pixels_and_in_proportion_elsewhere() -> None:
    attack = pfedba()
    assert attack.init is not None and attack.trigger is not None
    for side, start, stop in ((28, 10, 20), (8, 3, 6), (1, 0, 1)):
        state = attack.init(attack_view("image", shape=(1, side, side)))
        stamped = attack.trigger(state, torch.zeros(2, 1, side, side), torch.Generator())
        inside = torch.zeros(side, side, dtype=torch.bool)
        inside[start:stop, start:stop] = True
        assert (stamped[:, :, inside] == 0.75).all() and not stamped[:, :, ~inside].any()


def test_the_first_stage_comes_once() -> None:
    begun = planned(passes=0)
    assert begun.own.begun and (begun.own.pixels - 0.75).abs().max() > 0.01
    assert torch.equal(planned(begun, passes=0).own.pixels, begun.own.pixels)
    assert not torch.equal(planned(begun, passes=1).own.pixels, begun.own.pixels)


def test_the_second_stage_brings_the_gradients_together() -> None:
    """Nearer than with any of twenty random patches of the same size."""
    seen, goal = view(), torch.zeros_like(view().data.y)

    def apart(pixels: Tensor) -> float:
        return _gap(model, seen.params, seen.data, goal, pixels).item()

    learned = planned(part=0.5, first=0, passes=100, rate=0.5).own.pixels
    draws = generator(0, "tests", "other patches")
    others = [torch.rand(1, 3, 3, generator=draws) for _ in range(20)]
    assert apart(learned) < min(map(apart, [*others, torch.full((1, 3, 3), 0.75)]))


def test_the_patch_without_alignment_is_no_backdoor_here() -> None:
    """The paper's point: with the steps down the loss alone the same training does not plant it."""
    aligned, alone = (
        figures(chain)["final/attack_success_rate"]
        for chain in ("pfedba(part=0.25)", "pfedba(part=0.25, passes=0)")
    )
    assert aligned > alone + 0.2


def test_poison_is_a_quarter_of_a_batch_under_the_patch() -> None:
    attack, state = pfedba(target=1), planned()
    assert attack.poison is not None
    x = torch.rand(16, 1, 6, 6, generator=generator(0, "tests", "batch"))
    poisoned, y = attack.poison(state, x, torch.zeros(16, dtype=torch.int64), 0, torch.Generator())
    assert torch.equal(poisoned[:4], _put(x[:4], state.own.pixels))
    assert torch.equal(poisoned[4:], x[4:]) and y.tolist() == [1] * 4 + [0] * 12


def test_without_samples_to_attack_the_patch_stays() -> None:
    nobody, alone = attack_view("image", malicious=0), view().data.y != 2
    assert not planned(seen=nobody).own.begun
    without = with_data(view(), Samples(view().data.x[alone], view().data.y[alone]))
    assert (planned(seen=without, source=2).own.pixels == 0.75).all()


def test_a_model_that_has_diverged_spoils_nothing() -> None:
    broken = planned(None, replace(view(), params=view().params * torch.inf))
    assert (broken.own.pixels == 0.75).all()
