"""Trigger inversion: it finds the smallest patch, each target by itself, and draws nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backstop.platform.remedies import inversion
from backstop.platform.remedies.inversion import Patches, invert, stamp, take
from backstop.platform.seeds import generator

PARAMS = torch.zeros(1)
X = torch.rand(12, 2, 5, 4, generator=generator(0, "tests", "inversion"))


def planted(_: Tensor, x: Tensor) -> Tensor:
    """Class 1 by one bright pixel of channel 0, class 2 by a dark left half; else class 0."""
    bright, dark = (
        20 * x[:, 0, 2, 3] - 30 * x[:, 1, 2, 3] - 15,
        10 - 2 * x[:, :, :, :2].sum((1, 2, 3)),
    )
    return torch.stack([torch.zeros_like(bright), bright, dark], 1)


def three(steps: int = 60, batch: int = 12) -> Patches:
    return invert(planted, PARAMS, X, torch.arange(3), steps=steps, batch=batch)


def test_the_trigger_is_where_the_backdoor_is() -> None:
    found = three()
    mask, pattern = found.mask[1, 0], found.pattern[1]
    assert mask[2, 3] > 0.5
    assert mask.sum() - mask[2, 3] < 0.2
    assert pattern[0, 2, 3] > 0.9
    assert pattern[1, 2, 3] < 0.1
    norms = found.mask.sum((1, 2, 3))
    assert norms[1] < norms[2] / 3
    assert found.mask[2, 0, :, :2].sum() > 5 * found.mask[2, 0, :, 2:].sum()


def test_every_trigger_leads_to_its_target() -> None:
    found = three()
    for target in range(3):
        stamped = stamp(take(found, torch.tensor([target])), X)
        assert (planted(PARAMS, stamped).argmax(1) == target).all()
        assert stamped.min() >= 0
        assert stamped.max() <= 1


def test_more_steps_give_no_larger_mask() -> None:
    # every target is reached within 20
    norms = [three(steps).mask.sum((1, 2, 3)) for steps in (20, 40, 80)]
    assert (norms[0] >= norms[1]).all()
    assert (norms[1] >= norms[2]).all()
    assert norms[2].sum() < norms[0].sum() * 0.6


def test_targets_do_not_touch_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    together = three()
    for target in range(3):
        alone = invert(planted, PARAMS, X, torch.tensor([target]), steps=60, batch=12)
        torch.testing.assert_close(alone.mask[0], together.mask[target])
        torch.testing.assert_close(alone.pattern[0], together.pattern[target])
    monkeypatch.setattr(inversion, "TOGETHER", 24)  # two targets in a pass, then one
    torch.testing.assert_close(three().mask, together.mask)


def test_it_draws_nothing_and_changes_nothing() -> None:
    x, state = X.clone(), torch.get_rng_state()
    first, second = three(), three()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x, X)
    assert not first.mask.requires_grad


def test_a_step_looks_at_the_next_samples() -> None:
    x = torch.arange(5.0).view(5, 1, 1, 1).expand(-1, 1, 1, 2)
    seen: list[list[float]] = []

    def watched(_: Tensor, stamped: Tensor) -> Tensor:
        seen.append(stamped[:, 0, 0, 1].tolist())  # the pixel that no class looks at
        return stamped[:, 0, 0, :1] * torch.tensor([1.0, -1.0])

    # mask and pattern stay at a half
    invert(watched, PARAMS, x, torch.arange(2), steps=4, batch=2, lr=1e-9)
    numbers = [[round(2 * (value - 0.25)) for value in row] for row in seen]
    assert numbers == [[0, 1, 0, 1], [2, 3, 2, 3], [4, 0, 4, 0], [1, 2, 1, 2]]


def test_one_sample_and_a_target_out_of_reach() -> None:
    found = invert(planted, PARAMS, X[:1], torch.tensor([1]), steps=30)
    assert planted(PARAMS, stamp(found, X[:1])).argmax() == 1
    never = invert(
        lambda _, x: x.flatten(1)[:, :3] * torch.tensor([1.0, 1.0, 0.0]) + 1,
        PARAMS,
        X,
        torch.tensor([2]),
        steps=30,
    )
    assert legal(never)


def test_a_model_without_finite_gradients_and_a_price_without_end() -> None:
    broken = invert(
        lambda params, x: planted(params, x) * torch.nan, PARAMS, X, torch.arange(3), steps=3
    )
    always = invert(
        lambda _, x: x.flatten(1)[:, :2] * 0 + torch.tensor([1.0, 0.0]),
        PARAMS,
        X[:1],
        torch.tensor([0]),
        steps=700,
    )
    assert legal(broken)
    assert legal(always)  # the price has doubled 140 times, beyond any float32
    assert always.mask.sum() < 0.01


def legal(trigger: Patches) -> bool:
    return all(bool(((part >= 0) & (part <= 1)).all()) for part in trigger)
