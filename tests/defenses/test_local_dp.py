"""Local differential privacy: steps of bounded length, and noise of the stated size that is each
client's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.local_dp import local_dp
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from backstop.platform.training import local_sgd
from backstop.platform.training.local_sgd import Trained
from backstop.search_spaces.quickstart import BASE
from tests.references import local_dp as reference

RATE = 0.1
ONE_STEP = BASE.replace(
    clients=8,
    per_round=4,
    malicious=0.0,
    rounds=1,
    local_epochs=1,
    batch=1000,
    block=4,
    optimizer=Part("sgd", {"lr": RATE}),
)


def changed(grad: Tensor, draws: Tensor, clip: float, noise: float) -> Tensor:
    local = local_dp(clip=clip, noise=noise).local
    assert local
    assert local.gradient
    return local.gradient(grad, torch.zeros_like(grad), lambda: draws)


def trained(spec: Spec, defense: str) -> Trained:
    fed = Experiment(
        spec.replace(defense=to_chain(defense, "defense")), Path("unused"), "cpu"
    ).built
    return local_sgd.train(fed, 0, range(4), fed.net.params, fed.net.buffers, None, attacked=False)


@pytest.mark.parametrize(("clip", "noise"), [(1.0, 0.01), (0.3, 2.0), (1e6, 0.0)])
def test_it_agrees_with_the_reference(clip: float, noise: float) -> None:
    draws = generator(0, "tests", "local_dp")
    grads, noises = torch.randn(5, 7, generator=draws), torch.randn(5, 7, generator=draws)
    grads[2] = 0.0
    wanted = reference.local_dp(grads.double().numpy(), noises.double().numpy(), clip, noise)
    block = changed(grads, noises, clip, noise)
    np.testing.assert_allclose(block.numpy(), wanted, rtol=1e-5, atol=1e-6)
    # the loop engine hands over one row at a time
    for row, grad, draw in zip(block, grads, noises, strict=True):
        assert torch.equal(changed(grad, draw, clip, noise), row)


def test_a_huge_gradient_is_clipped_all_the_same() -> None:
    # its square overflows float32
    found = changed(torch.full((4,), 1e30), torch.zeros(4), 2.0, 0.5)
    torch.testing.assert_close(found, torch.ones(4))


def test_a_step_is_no_longer_than_the_clip() -> None:
    plain, clipped = (
        trained(ONE_STEP, "fedavg").rows,
        trained(ONE_STEP, "local_dp(clip=0.1, noise=0)").rows,
    )
    assert (plain.norm(dim=1) > 0.1 * RATE).all()
    torch.testing.assert_close(
        clipped, plain * (0.1 * RATE / plain.norm(dim=1, keepdim=True)), rtol=1e-3, atol=1e-7
    )


def test_the_noise_is_each_clients_own_and_of_the_stated_size() -> None:
    noise = (
        trained(ONE_STEP, "local_dp(clip=0.1, noise=3)").rows
        - trained(ONE_STEP, "local_dp(clip=0.1, noise=0)").rows
    )
    torch.testing.assert_close(
        noise.std(dim=1), torch.full((4,), 3 * 0.1 * RATE), rtol=0.05, atol=0
    )
    assert (torch.corrcoef(noise) - torch.eye(4)).abs().max() < 0.1
    assert torch.equal(
        trained(ONE_STEP, "local_dp(noise=3)").rows, trained(ONE_STEP, "local_dp(noise=3)").rows
    )


def test_without_clip_and_noise_it_is_fedavg() -> None:
    assert torch.equal(
        trained(BASE, "local_dp(clip=1e6, noise=0)").rows, trained(BASE, "fedavg").rows
    )
