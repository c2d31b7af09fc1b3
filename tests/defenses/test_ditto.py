"""Ditto: models against the reference, what the pull does, and that a backdoor reaches clients
through it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backstop.platform.contract import Part
from tests.keepers import ARENA_SHARE, arena, calm, experiment, slope
from tests.references import ditto as reference


@pytest.mark.parametrize("pull", [0.0, 1.0, 5.0])
def test_models_are_those_of_the_algorithm(pull: float) -> None:
    begun = experiment(calm(f"ditto(pull={pull})", "mlp").replace(local_epochs=2), rounds=3)
    fresh, built = experiment(begun.spec), begun.built
    wanted, own = reference.ditto(
        [slope(fresh, client) for client in range(4)],
        fresh.state.params.double().numpy(),
        np.array(built.sizes, dtype=float),
        lr=0.1,
        rounds=3,
        steps=2,
        pull=pull,
    )
    np.testing.assert_allclose(begun.state.params.numpy(), wanted, atol=2e-5)
    for client, model in enumerate(own):
        vectors = (begun.state.params, begun.state.buffers)
        params, _ = built.of_client(vectors, begun.state.kept[client])
        np.testing.assert_allclose(params.numpy(), model, atol=2e-5)


def test_the_global_model_is_fedavgs_bit_for_bit() -> None:
    """The model of their own is trained beside it, with draws of its own."""
    spec = calm("ditto", "mlp").replace(model=Part("cnn"))  # which is trained one by one anyway
    states = [
        experiment(spec.replace(defense=defense), rounds=2).state.params
        for defense in ((), spec.defense)
    ]
    assert torch.equal(*states)


def test_less_pull_is_less_backdoor() -> None:
    """The paper's λ trades robustness for what is learned together: measured 76 % at λ = 1."""
    strong, weak = (
        arena(ARENA_SHARE, f"ditto(pull={pull})", rounds=10, eval_every=10) for pull in (1.0, 0.01)
    )
    assert strong["final/attack_success_rate"] > weak["final/attack_success_rate"] + 0.1
    assert strong["final/global_success"] == weak["final/global_success"]
