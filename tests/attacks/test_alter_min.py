"""Alternating minimization: the turns are the authors', and the stealth loss has a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.attacks.alter_min import alter_min
from backstop.platform.contract import Attack, Memory, Slot, Step, TrainView
from backstop.platform.specs.part import to_chain
from tests.arena import ARENA, Claim, first_rows, last_metrics
from tests.views import CLASSES, FEATURES, train_view, two_poisoned

CLAIM = Claim(
    "badnets(share=0.2)+alter_min",
    effect=0.65,
    weaker="badnets(share=0.2)+alter_min(boost=1)",
    bend=0.35,
)

Order = Literal["stealth_first", "target_first"]
Batches = list[list[Any]]  # of each step x and y, clean and poisoned


def train(attack: Attack, view: TrainView) -> Tensor:
    assert attack.train is not None
    return attack.train(None, view)


MATRIX = 20  # parameters 0 … 19 are a matrix, the other four a bias
LAYOUT = (Slot("weight", 0, (5, 4)), Slot("bias", MATRIX, (4,)))


def reference(view: TrainView, boost: float, rho: float, ratio: int, order: Order) -> np.ndarray:
    """In float64, the gradients by hand, for the linear model and the plain descent at rate 0.1 of
    the view.
    """
    matrix = np.arange(FEATURES * CLASSES) < MATRIX

    def descend(
        w: np.ndarray, x: np.ndarray, y: np.ndarray, pull: np.ndarray | None = None
    ) -> np.ndarray:
        z = x @ w.reshape(FEATURES, CLASSES)
        share = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        gradient = (x.T @ (share - np.eye(CLASSES)[y]) / len(y)).ravel()
        if pull is not None:
            gradient += rho * (w - pull) * matrix
        return np.asarray(w - 0.1 * gradient)

    def boosted(w: np.ndarray, turn: Batches) -> np.ndarray:
        aim_x, aim_y = (
            np.concatenate([px[:2] for _, _, px, _ in turn]),
            np.concatenate([py[:2] for _, _, _, py in turn]),
        )
        return np.asarray(w + np.where(matrix, boost, 1) * (descend(w, aim_x, aim_y) - w))

    batches = [
        [
            part.double().numpy() if part.is_floating_point() else part.numpy()
            for part in (*s.clean, *s.poisoned)
        ]
        for s in view.steps
    ]
    start = view.params.double().numpy()
    benign = start
    for x, y, _, _ in batches:
        benign = descend(benign, x, y)
    w = start
    for first in range(0, len(batches), ratio):
        turn = batches[first : first + ratio]
        if order == "target_first":
            w = boosted(w, turn)
        for x, y, _, _ in turn:
            w = descend(w, x, y, benign)
        if order == "stealth_first":
            w = boosted(w, turn)
    return np.asarray(w - start)


@pytest.mark.parametrize("order", ["stealth_first", "target_first"])
@pytest.mark.parametrize("ratio", [1, 2, 10])
def test_turns_by_hand(ratio: int, order: Order) -> None:
    view = replace(train_view("table", two_poisoned), layout=LAYOUT)
    found = train(alter_min(boost=5.0, rho=0.5, ratio=ratio, order=order), view)
    np.testing.assert_allclose(
        found.numpy(), reference(view, 5.0, 0.5, ratio, order), rtol=1e-4, atol=1e-5
    )


def test_each_kind_of_step_goes_on_with_its_own_momentum() -> None:
    given: list[tuple[int, Memory | None]] = []
    view = replace(train_view("table", two_poisoned), layout=LAYOUT)

    def minimise(
        loss: Callable[[Tensor, Step], Tensor],
        start: Tensor | None = None,
        steps: Sequence[Step] | None = None,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        given.append((len(view.steps if steps is None else steps), memory))
        return view.minimise(loss, start, steps, rates, memory)

    train(alter_min(ratio=2), replace(view, minimise=minimise))
    (honest, none), *turns = given
    assert (honest, none) == (3, None)  # the honest update has a training of its own
    # two stealth steps, a boosted one; then what is left
    assert [count for count, _ in turns] == [2, 1, 1, 1]
    stealth, aim = (memory for _, memory in turns[:2])
    assert stealth is not None and aim is not None and stealth is not aim
    assert all(memory is (stealth, aim)[number % 2] for number, (_, memory) in enumerate(turns))


def test_without_a_poisoned_sample_it_trains_as_honest_clients_do() -> None:
    view = train_view("table", lambda x, y, index, draws: (x, y))
    honest = view.minimise(
        lambda params, step: torch.nn.functional.cross_entropy(
            view.model(params, step.clean.x), step.clean.y
        )
    )
    torch.testing.assert_close(train(alter_min(rho=0.0, ratio=2), view), honest - view.params)


def test_the_boosted_step_ends_the_update() -> None:
    """So no stealth step undoes it: the same federation loses its backdoor in the other order."""
    spec = ARENA.replace(rounds=6, eval_every=6)

    def success(order: Order) -> float:
        stages = to_chain(f"badnets(share=0.2)+alter_min(order={order})", "attack")
        defense = to_chain("norm_clip(norm=0.2)", "defense")
        return last_metrics(spec.replace(attack=stages, defense=defense))[
            "round/attack_success_rate"
        ]

    assert success("stealth_first") > success("target_first") + 0.2


def test_the_stealth_loss_draws_real_rows_to_an_honest_update() -> None:
    _, honest = first_rows("none")

    def distance(rho: float) -> Tensor:
        stage = f"alter_min(rho={rho}, ratio=5, order=target_first)"
        _, rows = first_rows(f"badnets(share=0.2)+{stage}")
        apart: Tensor = (rows - honest).norm(dim=1)
        return apart

    far = [distance(rho) for rho in (0.0, 0.3, 1.0)]
    assert (far[0] > 1.2 * far[1]).all() and (far[1] > 1.2 * far[2]).all()
