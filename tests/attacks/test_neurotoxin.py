"""Neurotoxin: which coordinates are left alone, how many, and that real rows leave them alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.neurotoxin import _mask, neurotoxin
from backstop.platform.experiment import Experiment
from backstop.platform.optimizers import OPTIMIZERS
from backstop.platform.rounds.views import Presence
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from backstop.platform.threats.rehearsal import clean_gradient
from backstop.platform.training import network
from tests.arena import ARENA, Claim
from tests.views import attack_view

CLAIM = Claim(
    "badnets(share=0.2)+neurotoxin",
    effect=0.5,
    weaker="badnets(share=0.2)+neurotoxin(top=0.9)",
    bend=0.2,
)


def reference(gradient: Tensor, top: float) -> list[float]:
    """A coordinate is free where enough others are larger."""
    sizes = [abs(value) for value in gradient.tolist()]
    return [
        float(sum(other > size for other in sizes) >= round(top * len(sizes))) for size in sizes
    ]


@pytest.mark.parametrize("top", [0.01, 0.05, 0.3, 0.9])
def test_the_mask_leaves_out_the_stated_share_of_the_largest_magnitudes(top: float) -> None:
    gradient = torch.randn(200, generator=generator(0, "tests", "gradient")) - 0.5
    mask = _mask(gradient, top)
    assert mask.tolist() == reference(gradient, top) and (mask == 0).sum() == round(200 * top)
    assert torch.equal(mask, _mask(-gradient, top))  # magnitudes, not signed values
    assert (_mask(torch.zeros(200), top) == 0).sum() == round(200 * top)  # ties


def test_the_gradient_is_that_of_normalized_clean_data_of_this_rounds_members() -> None:
    built = Experiment(
        ARENA.replace(attack=to_chain("badnets+neurotoxin", "attack")), Path("unused"), "cpu"
    )
    view = built.views.attack(built.state, Presence(torch.tensor([1, 3]), 10, 0.2))
    fed, index = (
        built.built,
        torch.cat([built.built.shards[int(built.built.malicious[number])] for number in (1, 3)]),
    )
    assert fed.data.mean is not None and fed.data.std is not None and fed.data.std != (1.0,)
    params = fed.net.params.clone().requires_grad_()
    x = (network.to_unit_interval(fed.data.train.x[index]) - fed.data.mean[0]) / fed.data.std[0]
    logits = torch.func.functional_call(fed.net.module, network.split(params, fed.net.layout), (x,))
    (expected,) = torch.autograd.grad(
        cross_entropy(logits, fed.data.train.y[index], reduction="sum"), params
    )
    torch.testing.assert_close(clean_gradient(view), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(
        clean_gradient(replace(view, members=torch.tensor([0, 2]))), expected, rtol=1e-3, atol=1e-3
    )


def test_real_rows_are_zero_exactly_where_the_mask_is() -> None:
    experiment = Experiment(
        ARENA.replace(attack=to_chain("badnets+neurotoxin(top=0.2)", "attack")),
        Path("unused"),
        "cpu",
    )
    state, trained, _ = experiment._trained(experiment.state, experiment.built.malicious)
    mask = state.attack[1]
    assert (mask == 0).sum() == round(0.2 * len(mask))
    assert (trained.rows[:, mask == 0] == 0).all() and (
        trained.rows[:, mask == 1] != 0
    ).float().mean() > 0.5


@pytest.mark.parametrize(
    ("name", "options"), [("sgd", {"lr": 0.1, "momentum": 0.9}), ("adam", {"lr": 0.1})]
)
def test_masked_updates_are_those_of_masked_gradients(name: str, options: dict[str, float]) -> None:
    draws = generator(0, "tests", "quadratic")
    curved, start = torch.randn(12, 12, generator=draws), torch.randn(12, generator=draws)
    mask = _mask(curved @ start, 0.25)
    constrain = neurotoxin().constrain
    assert constrain is not None
    ends = []
    for masked_gradients in (True, False):
        optimizer, params = OPTIMIZERS[name](**options), start.clone()
        memory = optimizer.start(params)
        for step in range(1, 6):
            gradient = curved.T @ (curved @ params) / 12
            memory = optimizer.step(
                params, gradient * mask if masked_gradients else gradient, memory, 1.0
            )
            params = params if masked_gradients else start + constrain(mask, params - start, step)
        ends.append(params)
    assert not torch.allclose(ends[0], start)
    torch.testing.assert_close(ends[0], ends[1])


def test_without_data_nothing_is_known_to_matter() -> None:
    attack, view = neurotoxin(top=0.5), attack_view("table", malicious=0)
    assert attack.init is not None and attack.init(view).tolist() == [1.0] * 24
