"""TrojanNN: which units are driven, what the patch becomes, when it is made, and that it bites."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from backstop.attacks.trojannn import _made, _Patch, _strongest, trojannn
from backstop.platform.contract import AttackView, Samples, Slot
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted, with_patch
from tests.arena import Claim
from tests.views import CLASSES, attack_view, with_data

CLAIM = Claim(
    "trojannn(share=0.4, size=2)",
    effect=0.35,
    weaker="trojannn(share=0.05, size=2)",
    bend=0.2,
    changes={"attack_start": 5},  # the patch is made once, for a model that has learned something
)
HIDDEN, PIXELS = 12, 36


def features(params: Tensor, x: Tensor) -> Tensor:
    return torch.relu(x.flatten(1) @ params[: PIXELS * HIDDEN].view(PIXELS, HIDDEN))


def model(params: Tensor, x: Tensor) -> Tensor:
    return features(params, x) @ params[PIXELS * HIDDEN :].view(CLASSES, HIDDEN).T


@cache
def view() -> AttackView:
    """An adversary with a network that has learned four noisy patterns of 6 x 6 pixels."""
    draws = generator(0, "tests", "trojannn")
    y = torch.arange(80) % CLASSES
    x = (
        torch.rand(CLASSES, 1, 6, 6, generator=draws)[y] * 0.7
        + torch.rand(80, 1, 6, 6, generator=draws) * 0.3
    ).clamp(0, 1)
    params = torch.randn((PIXELS + CLASSES) * HIDDEN, generator=draws) / 6
    for _ in range(150):
        leaf = params.clone().requires_grad_()
        params = (
            params
            - 0.1
            * torch.autograd.grad(torch.nn.functional.cross_entropy(model(leaf, x), y), leaf)[0]
        )
    assert (model(params, x).argmax(1) == y).float().mean() > 0.9
    head = (Slot("head.weight", PIXELS * HIDDEN, (CLASSES, HIDDEN)),)
    return replace(
        with_data(attack_view("image"), Samples(x, y)),
        params=params,
        model=model,
        features=features,
        head=head,
    )


def start(given: AttackView | None = None, **params: object) -> tuple[Planted, Planted]:
    """The state before and after the plan of the first attacked round."""
    attack = trojannn(**params)  # type: ignore[arg-type]
    assert attack.init is not None and attack.plan is not None
    seen = replace(given or view(), generator=generator(0, "tests", "attack"))
    state = attack.init(seen)
    return state, attack.plan(state, seen)


def reference(weight: Tensor, value: float) -> Tensor:
    """Where the pixels end for linear units that cannot reach the value: white where one more bit
    of a pixel raises the units.
    """
    return torch.tensor([[float(sum(value * weight[pixel]) > 0) for pixel in range(len(weight))]])


@pytest.mark.parametrize("units", [1, 3])
def test_the_patch_is_the_one_that_linear_units_answer_most(units: int) -> None:
    draws = generator(0, "tests", "linear units")
    weight, x = torch.randn(20, units, generator=draws), torch.rand(5, 1, 1, 20, generator=draws)
    found = _made(
        torch.rand(1, 1, 20, generator=draws),
        lambda stamped: stamped.flatten(1) @ weight,
        x,
        value=1e5,
        steps=100,
    )
    assert torch.equal(found[0], reference(weight, 1e5))


def test_units_stop_at_the_value_where_they_can_reach_it() -> None:
    found = _made(
        torch.full((1, 2, 2), 0.5),
        lambda stamped: stamped.flatten(1).sum(1, keepdim=True),
        torch.zeros(3, 1, 2, 2),
        value=3,
        steps=200,
    )
    assert found.sum().item() == pytest.approx(3, abs=0.01)


def test_units_are_those_of_the_largest_outgoing_weights_in_sum() -> None:
    """W = [[1, -9], [2, 0]]: the second unit, though it speaks against target 0; the first with
    favor=target.
    """
    weight = torch.tensor([[1.0, -9.0], [2.0, 0.0]])
    head = (Slot("w", 0, (2, 2)),)
    driven: list[Tensor] = []

    def units(params: Tensor, x: Tensor) -> Tensor:
        made = x.flatten(1)[:, :2] * torch.tensor([1.0, 0.0]) + x.flatten(1)[:, 1:3] * torch.tensor(
            [0.0, 1.0]
        )
        driven.append(made)
        return made

    data = Samples(torch.full((8, 1, 1, 3), 0.5), torch.ones(8, dtype=torch.int64))
    seen = replace(
        with_data(view(), data), params=weight.flatten(), features=units, head=head, classes=2
    )
    for favor, white in (("outgoing", 2), ("target", 0)):
        _, after = start(seen, target=0, size=3, value=9.0, favor=favor)
        before, _ = start(seen, target=0, size=3, value=9.0, favor=favor)
        moved = (after.own.pixels - before.own.pixels).flatten().abs() > 1e-6
        assert moved.nonzero().flatten().tolist() == [white]
        assert after.own.pixels.flatten()[white] == 1


def test_units_of_a_target_are_those_of_the_largest_weight_to_it() -> None:
    weight = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.1, -9.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    seen = replace(
        view(),
        params=torch.cat([torch.full((7,), 50.0), weight.flatten(), torch.full((4,), 50.0)]),
        head=(Slot("w", 7, (4, 3)),),
    )
    assert _strongest(seen, 0, 1).tolist() == [1]
    assert _strongest(seen, 1, 2).tolist() == [0, 1]  # a negative weight speaks against the target
    # for no class in particular: 10, against 4 and 2.1
    assert _strongest(seen, "next", 1).tolist() == [2]
    assert sorted(_strongest(seen, 3, 99).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("target", [0, 1, 2, 3])
def test_the_learned_patch_drives_its_unit_and_fools_the_model_more_than_others_of_its_norm(
    target: int,
) -> None:
    before, after = start(target=target, favor="target")
    seen, learned = view(), after.own.pixels
    (unit,) = _strongest(seen, target, 1).tolist()

    def driven(pixels: Tensor) -> float:
        return features(seen.params, with_patch(seen.data.x, pixels))[:, unit].mean().item()

    def margin(pixels: Tensor) -> float:
        return (
            model(seen.params, with_patch(seen.data.x, pixels))
            .log_softmax(1)[:, target]
            .mean()
            .item()
        )

    assert driven(learned) > driven(before.own.pixels)
    draws = generator(0, "tests", "other patches")
    others = [
        learned.flatten()[torch.randperm(9, generator=draws)].view(1, 3, 3) for _ in range(20)
    ]
    assert driven(learned) >= max(map(driven, others))
    assert margin(learned) > sum(map(margin, others)) / len(others)


def test_the_patch_is_made_once_unless_asked() -> None:
    for replan in (False, True):
        attack, (_, after) = (
            trojannn(replan=replan, favor="target"),
            start(replan=replan, favor="target"),
        )
        assert attack.plan is not None
        again = attack.plan(
            after,
            replace(view(), params=-view().params, features=lambda params, x: features(-params, x)),
        )
        assert (again.own is after.own) is not replan
        assert torch.equal(again.own.pixels, after.own.pixels) is not replan


def test_without_data_the_patch_stays_unmade() -> None:
    attack, nobody = trojannn(), attack_view("image", malicious=0)
    assert attack.init is not None and attack.plan is not None
    state = attack.init(nobody)
    assert attack.plan(state, nobody) == state and not state.own.made


def test_a_model_that_has_diverged_spoils_nothing() -> None:
    before, after = start(replace(view(), params=view().params * torch.inf))
    assert torch.equal(after.own.pixels, before.own.pixels)


def test_the_patch_of_the_state_is_what_is_stamped() -> None:
    attack, state = (
        trojannn(size=2),
        Planted(CLASSES, _Patch(torch.tensor([[[0.1, 0.2], [0.3, 0.4]]]), made=True)),
    )
    assert attack.trigger is not None
    found = attack.trigger(state, torch.zeros(1, 1, 4, 4), torch.Generator())
    torch.testing.assert_close(
        found[0, 0],
        torch.tensor([[0.0, 0, 0, 0], [0, 0.1, 0.2, 0], [0, 0.3, 0.4, 0], [0, 0, 0, 0]]),
    )
