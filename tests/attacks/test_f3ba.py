"""F3BA: which signs are flipped, that the trigger is noticed, and that training starts from the
flipped model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.f3ba import _Focus, f3ba
from backstop.platform.contract import AttackView, Samples, Slot, Step, TrainView
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted, with_square
from tests.arena import Claim
from tests.views import CLASSES, attack_view, train_view

CLAIM = Claim("f3ba(share=0.2)", effect=0.6, weaker="f3ba(share=0.02)", bend=0.15)

LAYOUT = (
    Slot("a.weight", 0, (6, 3, 2, 2)),
    Slot("a.bias", 72, (6,)),
    Slot("b.weight", 78, (6, 6)),
    Slot("b.bias", 114, (6,)),
)
HEAD = (Slot("c.weight", 120, (CLASSES, 6)), Slot("c.bias", 144, (CLASSES,)))
D = 148


def hidden(params: Tensor, x: Tensor) -> Tensor:
    """A convolution over the whole image of 2 × 2 pixels, and a dense layer."""
    a, bias, b, other = (
        params[slot.start :][: torch.Size(slot.shape).numel()].view(slot.shape) for slot in LAYOUT
    )
    first = torch.tanh(x.flatten(1).to(params) @ a.flatten(1).T + bias)
    return torch.tanh(first @ b.T + other)


def logits(params: Tensor, x: Tensor) -> Tensor:
    weight, bias = (
        params[slot.start :][: torch.Size(slot.shape).numel()].view(slot.shape) for slot in HEAD
    )
    return hidden(params, x) @ weight.T + bias


def view_of() -> AttackView:
    params = torch.randn(D, generator=generator(0, "tests", "f3ba")) / 2
    view = attack_view("image", shape=(3, 2, 2), malicious=1)
    return replace(
        view, params=params, layout=LAYOUT + HEAD, head=HEAD, model=logits, features=hidden
    )


def planned(view: AttackView, **params: float) -> _Focus:
    attack = f3ba(size=1, **params)  # type: ignore[arg-type]
    assert attack.init is not None and attack.plan is not None
    found = attack.plan(attack.init(view), view).own
    assert isinstance(found, _Focus)
    return found


def apart(params: Tensor, view: AttackView, pixels: Tensor) -> Tensor:
    """A(w, δ) for class 0, from the probabilities themselves."""
    stamped, plain = (
        logits(params, x).softmax(1)[:, 0]
        for x in (with_square(view.data.x, pixels, 3, 23), view.data.x)
    )
    return (stamped / plain).log().mean()


def reference(view: AttackView, pixels: Tensor, shares: dict[str, float]) -> Tensor:
    """Weight after weight in float64: the least important ones of a tensor, and those of them whose
    flip raises A.
    """
    params = view.params.double()
    leaf = params.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(logits(leaf, view.data.x), view.data.y), leaf)
    for slot in LAYOUT:
        if not shares.get(slot.name):
            continue
        places = range(slot.start, slot.start + torch.Size(slot.shape).numel())
        least = sorted(places, key=lambda place: -float(grad[place] * view.params[place]))
        leaf = params.clone().requires_grad_()
        (slope,) = torch.autograd.grad(apart(leaf, view, pixels), leaf)
        params = params.clone()
        for place in least[: max(int(shares[slot.name] * len(places) + 1e-9), 1)]:
            if params[place] * slope[place] < 0:
                params[place] = -params[place]
    return params.float()


@pytest.mark.parametrize(("conv", "dense"), [(0.25, 0.5), (0.02, 0.001), (1.0, 1.0)])
def test_only_the_stated_share_of_each_weight_tensor_is_flipped_and_a_flip_is_a_sign(
    conv: float, dense: float
) -> None:
    view = view_of()  # its 40 samples are all used
    state = planned(view, conv=conv, dense=dense)
    (params,) = state.params
    assert torch.equal(params.abs(), view.params.abs())
    assert torch.equal(params[120:], view.params[120:])  # the last layer
    assert torch.equal(params[72:78], view.params[72:78])  # a bias
    shares = {"a.weight": conv, "b.weight": dense}
    torch.testing.assert_close(params, reference(view, state.pixels[0], shares))
    for slot in LAYOUT:
        size, share = torch.Size(slot.shape).numel(), shares.get(slot.name, 0.0)
        changed = (params != view.params)[slot.start : slot.start + size]
        assert changed.sum() <= max(share * size, share > 0)
    assert conv < 0.1 or (params != view.params)[:120].sum() > 5


def test_flips_raise_what_the_trigger_does_and_no_share_is_no_flip() -> None:
    view = view_of()
    state = planned(view, conv=0.3, dense=0.3)
    assert apart(state.params[0], view, state.pixels[0]) > 1.5 * apart(
        view.params, view, state.pixels[0]
    )
    assert torch.equal(planned(view_of(), conv=0.0, dense=0.0).params[0], view.params)


def test_dense_layers_are_flipped_in_one_attacked_round_of_three() -> None:
    attack = f3ba(size=1, conv=0.3, dense=0.3)
    assert attack.init is not None and attack.plan is not None
    view = view_of()
    state, dense = attack.init(view), []
    for _ in range(5):
        state = attack.plan(state, view_of())
        changed = state.own.params[0] != view.params
        assert changed[:72].any()
        dense.append(bool(changed[78:114].any()))
    assert dense == [True, False, False, True, False]


def noticed(pixels: Tensor, view: AttackView) -> float:
    """How far a patch moves the mean of the first convolution over samples and channels."""
    x = view.data.x
    filters = view.params[:72].view(6, -1)
    plain, stamped = (
        (images.flatten(1) @ filters.T).mean() for images in (x, with_square(x, pixels, 3, 23))
    )
    return float((stamped - plain).square())


def test_the_trigger_is_noticed_more_after_each_plan() -> None:
    attack = f3ba(size=1, passes=5)
    assert attack.init is not None and attack.plan is not None
    view, moved = view_of(), []
    state = attack.init(view)
    for _ in range(4):
        moved.append(noticed(state.own.pixels[0], view))
        state = attack.plan(state, view_of())
        assert state.own.pixels.min() >= 0 and state.own.pixels.max() <= 1
    assert moved == sorted(moved) and moved[-1] > 1.05 * moved[0]


def test_a_step_goes_up_the_gradient_of_the_first_convolution_by_hand() -> None:
    """One sample, one step: δ + 0.1 · ∂D/∂δ, D the square of the mean activation's change."""
    view = view_of()
    one = Samples(view.data.x[:1], view.data.y[:1] * 0 + 1)
    view = replace(view, samples=lambda: one, sizes=(1,))
    attack = f3ba(size=1, passes=1)
    assert attack.init is not None and attack.plan is not None
    start = attack.init(view)
    (before,), (after,) = start.own.pixels, attack.plan(start, view).own.pixels
    # in an image of 2 x 2 the patch is the last pixel
    mean = view.params[:72].view(6, 3, 2, 2).mean(0)[:, 1, 1]
    change = (mean * (before.flatten() - one.x[0, :, 1, 1])).sum()
    wanted = (before.flatten() + 0.1 * 2 * change * mean).clamp(0, 1)
    torch.testing.assert_close(after.flatten(), wanted)
    assert not torch.equal(before, after)


def test_each_client_has_a_trigger_of_its_own_and_the_test_shows_their_mean() -> None:
    attack = f3ba(share=1.0, rate=50.0, passes=9)
    assert attack.init and attack.plan and attack.poison and attack.trigger
    view = replace(
        attack_view("image", shape=(3, 32, 32)), layout=(Slot("conv.weight", 0, (2, 3, 2, 2)),)
    )
    first = attack.init(view)
    assert torch.equal(first.own.pixels, first.own.pixels[:1, :1].expand(3, 3, 3, 3))
    state = attack.plan(first, replace(view, members=torch.tensor([0, 2])))
    assert not torch.equal(state.own.pixels[0], state.own.pixels[2])
    assert torch.equal(state.own.pixels[1], first.own.pixels[1])
    x, y = torch.zeros(2, 3, 32, 32), torch.ones(2, dtype=torch.int64)
    for index in range(3):
        stamped, _ = attack.poison(state, x, y, index, torch.Generator())
        assert torch.equal(stamped[0, :, 3:6, 23:26], state.own.pixels[index])
        stamped[..., 3:6, 23:26] = 0
        assert not stamped.any()
    shown = attack.trigger(state, x, torch.Generator())
    torch.testing.assert_close(shown[0, :, 3:6, 23:26], state.own.pixels.mean(0))


def test_training_starts_from_the_flipped_model_and_the_row_is_from_the_global_one() -> None:
    attack, given = f3ba(), train_view("image", index=1)
    flipped = torch.stack([given.params * 2, -given.params])
    still = replace(
        given, minimise=lambda loss, start=None, steps=None, rates=None, memory=None: start
    )
    assert attack.train is not None
    state = Planted(CLASSES, _Focus(torch.zeros(2, 3, 3, 3), 1, torch.tensor([0, 1]), flipped))
    torch.testing.assert_close(attack.train(state, still), -2 * given.params)
    mine = given.minimise(losses(given), -given.params) - given.params
    torch.testing.assert_close(attack.train(state, given), mine)


def losses(view: TrainView) -> Callable[[Tensor, Step], Tensor]:
    """0.6 of the loss on the batch as it was dealt, 0.4 of that on the poisoned one."""

    def loss(params: Tensor, step: Step) -> Tensor:
        clean, poisoned = (cross_entropy(view.model(params, part.x), part.y) for part in step)
        return 0.6 * clean + 0.4 * poisoned

    return loss


def test_without_an_attacked_sample_the_global_model_stays() -> None:
    view = view_of()
    others = view.data._replace(y=view.data.y.clamp(max=2))
    held = replace(view, samples=lambda: others)
    assert torch.equal(planned(held, source=3).params[0], view.params)
