"""FedGame: its twin on small linear models, its claim in a small federation, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.fedgame import _Images, fedgame
from backstop.platform.contract import Samples, ServerView, Updates
from backstop.platform.examples import server_view
from backstop.platform.remedies import inversion
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import fedgame as twin

CLASSES, SIDE = 3, 4
LENGTH = CLASSES * SIDE * SIDE
ATTACK = "badnets(share=0.2)"


def linear(params: Tensor, x: Tensor) -> Tensor:
    return x.flatten(1) @ params.reshape(CLASSES, -1).T


def view(**changes: Any) -> ServerView:
    draws = generator(0, "tests", "fedgame")
    root = Samples(torch.rand(30, 1, SIDE, SIDE, generator=draws), torch.arange(30) % CLASSES)
    known: dict[str, Any] = {"root": root, "model": linear, "classes": CLASSES} | changes
    return replace(server_view(torch.zeros(LENGTH)), **known)


def weighed(rows: Tensor, seen: ServerView | None = None, weight: Tensor | None = None) -> Updates:
    n = len(rows)
    given = Updates(rows, torch.ones(n) if weight is None else weight, torch.arange(n))
    return fedgame(steps=20).apply(given, None, seen or view())[0]


def rows(n: int, case: str) -> Tensor:
    found = torch.randn(n, LENGTH, generator=generator(0, "tests", case, n))
    if case == "tied":
        return found[:1].expand(n, -1).clone()
    if case == "zero":
        return torch.zeros_like(found)
    if case == "bent":  # some models send everything to a class
        found[: n // 3, :SIDE] += 40
    return found


@pytest.mark.parametrize("case", ["random", "tied", "zero", "bent"])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_agrees_with_the_reference(case: str, n: int) -> None:
    given, seen = rows(n, case), view()
    weight = torch.arange(1.0, n + 1)
    triggers = inversion.invert(
        linear,
        given.mean(0),
        seen.root.x,
        torch.arange(CLASSES),
        steps=20,
        cost=0.01,
        up=1.0,
    )
    sizes = [mask.sum().item() for mask in triggers.mask]
    target = int(np.argmin(sizes))
    trigger = (triggers.mask[target].double().numpy(), triggers.pattern[target].double().numpy())
    models = [partial(numpy_model, row.double().numpy()) for row in given]
    wanted = twin.fedgame(
        models, seen.root.x.double().numpy(), trigger, target, weight.double().numpy()
    )
    after = weighed(given, weight=weight)
    assert torch.equal(after.rows, given)
    assert after.weight.tolist() == pytest.approx(wanted)


def numpy_model(params: Any, image: Any) -> Any:
    return params.reshape(CLASSES, -1) @ image.reshape(-1)


def test_where_every_model_follows_the_trigger_weights_stay() -> None:
    always = view(model=lambda params, x: torch.zeros(len(x), CLASSES) + params.sum() * 0)
    weight = torch.tensor([3.0, 5.0])
    assert torch.equal(weighed(torch.ones(2, LENGTH), always, weight).weight, weight)


def test_a_model_without_finite_outputs_has_no_weight() -> None:
    given = rows(5, "random")
    given[3] = 3e38
    after = weighed(given)
    assert after.weight[3] == 0 and after.rows.isfinite().all()


def test_a_table_is_a_row_of_pixels_between_the_roots_values() -> None:
    x = torch.tensor([[-4.0, 1.0], [6.0, 1.0], [1.0, 1.0]])
    seen = view(root=Samples(x, torch.tensor([0, 1, 0])), model=lambda params, x: x, classes=2)
    images = _Images(seen)
    assert images.x.shape == (3, 1, 1, 2)
    torch.testing.assert_close(images.logits(torch.zeros(1), images.x), x)
    assert images.x.amin() == 0 and images.x.amax() == 1


def test_it_lowers_the_success_of_a_patch() -> None:
    undefended, defended = figures(ATTACK), figures(ATTACK, defense="fedgame")
    assert undefended["final/attack_success_rate"] > 0.6
    assert defended["final/attack_success_rate"] < 0.45
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.06
