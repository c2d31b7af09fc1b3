"""F3BA: which signs are flipped, that the trigger is noticed, and that training starts from the flipped model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.f3ba import _Focus, f3ba
from backstop.platform.backdoor import Planted, with_patch
from backstop.platform.contract import AttackView, Slot
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import CLASSES, attack_view, train_view

CLAIM = Claim("f3ba(share=0.2)", effect=0.6, weaker="f3ba(share=0.02)", bend=0.15)

LAYOUT = (Slot("a.weight", 0, (6, 3, 2, 2)), Slot("a.bias", 72, (6,)), Slot("b.weight", 78, (6, 6)), Slot("b.bias", 114, (6,)))
HEAD = (Slot("c.weight", 120, (CLASSES, 6)), Slot("c.bias", 144, (CLASSES,)))
D = 148


def hidden(params: Tensor, x: Tensor) -> Tensor:
    """A convolution over the whole image of 2 × 2 pixels, and a dense layer."""
    a, bias, b, other = (params[slot.start :][: torch.Size(slot.shape).numel()].view(slot.shape) for slot in LAYOUT)
    first = torch.tanh(x.flatten(1).to(params) @ a.flatten(1).T + bias)
    return torch.tanh(first @ b.T + other)


def logits(params: Tensor, x: Tensor) -> Tensor:
    weight, bias = (params[slot.start :][: torch.Size(slot.shape).numel()].view(slot.shape) for slot in HEAD)
    return hidden(params, x) @ weight.T + bias


def view_of() -> AttackView:
    params = torch.randn(D, generator=generator(0, "tests", "f3ba")) / 2
    view = attack_view("image", shape=(3, 2, 2))
    return replace(view, params=params, layout=LAYOUT + HEAD, head=HEAD, model=logits, features=hidden)


def planned(view: AttackView, **params: float) -> _Focus:
    attack = f3ba(size=1, **params)  # type: ignore[arg-type]
    assert attack.init is not None and attack.plan is not None
    found = attack.plan(attack.init(view), view).own
    assert isinstance(found, _Focus)
    return found


def apart(params: Tensor, view: AttackView, pixels: Tensor) -> Tensor:
    """A(w, δ) for class 0, from the probabilities themselves."""
    stamped, plain = (logits(params, x).softmax(1)[:, 0] for x in (with_patch(view.data.x, pixels), view.data.x))
    return (stamped / plain).log().mean()


def reference(view: AttackView, pixels: Tensor, shares: dict[str, float]) -> Tensor:
    """Weight after weight in float64: the least important ones of a tensor, and those of them whose flip raises A."""
    params = view.params.double()
    leaf = params.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(logits(leaf, view.data.x), view.data.y), leaf)
    for slot in LAYOUT:
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
def test_only_the_stated_share_of_each_tensor_is_flipped_and_a_flip_is_a_sign(conv: float, dense: float) -> None:
    view = view_of()  # its 40 samples are all used
    state = planned(view, conv=conv, dense=dense)
    assert torch.equal(state.params.abs(), view.params.abs())
    assert torch.equal(state.params[120:], view.params[120:])  # the last layer
    shares = {"a.weight": conv, "a.bias": dense, "b.weight": dense, "b.bias": dense}
    torch.testing.assert_close(state.params, reference(view, state.pixels, shares))
    for slot in LAYOUT:
        size = torch.Size(slot.shape).numel()
        changed = (state.params != view.params)[slot.start : slot.start + size]
        assert changed.sum() <= max(shares[slot.name] * size, 1)
    assert conv < 0.1 or (state.params != view.params)[:120].sum() > 5


def test_flips_raise_what_the_trigger_does_and_no_share_is_no_flip() -> None:
    view = view_of()
    state = planned(view, conv=0.3, dense=0.3)
    assert apart(state.params, view, state.pixels) > 1.5 * apart(view.params, view, state.pixels) > 0
    assert torch.equal(planned(view_of(), conv=0.0, dense=0.0).params, view.params)


def test_the_trigger_is_noticed_more_after_each_plan() -> None:
    attack = f3ba(size=1, steps=5)
    assert attack.init is not None and attack.plan is not None
    view, moved = view_of(), []
    state = attack.init(view)
    for _ in range(4):
        change = (hidden(view.params, with_patch(view.data.x, state.own.pixels)) - hidden(view.params, view.data.x)).mean(0)
        moved.append(float(change.norm()))
        state = attack.plan(state, view_of())
        assert state.own.pixels.min() >= 0 and state.own.pixels.max() <= 1
    assert moved == sorted(moved) and moved[-1] > 1.1 * moved[0]


def test_training_starts_from_the_flipped_model_and_the_row_is_from_the_global_one() -> None:
    attack, given = f3ba(), train_view("image")
    flipped = -given.params
    still = replace(given, minimise=lambda loss, start=None, steps=None, rates=None: start)
    assert attack.train is not None
    state = Planted(CLASSES, _Focus(torch.zeros(3, 3, 3), flipped))
    torch.testing.assert_close(attack.train(state, still), flipped - given.params)
    trained = given.minimise(lambda params, step: cross_entropy(given.model(params, step.poisoned.x), step.poisoned.y), flipped)
    torch.testing.assert_close(attack.train(state, given), trained - given.params)


def test_without_an_attacked_sample_the_global_model_stays() -> None:
    view = view_of()
    others = view.data._replace(y=view.data.y.clamp(max=2))
    held = replace(view, samples=lambda: others)
    assert torch.equal(planned(held, source=3).params, view.params)
