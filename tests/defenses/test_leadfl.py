"""LeadFL: local training against the reference, where nothing is corrected, and what it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backstop.defenses.leadfl import _correction
from backstop.platform.contract import Slot
from tests.keepers import calm, experiment, slope
from tests.references import leadfl as reference

LAYOUT = (Slot("w", 0, (2, 2)), Slot("b", 4, (2,)))


@pytest.mark.parametrize(("weight", "bound"), [(0.4, 0.2), (5.0, 0.05)])
def test_a_client_trains_as_the_formula_says(weight: float, bound: float) -> None:
    defense = f"leadfl(weight={weight}, bound={bound}, rate=0.05)"
    spec = calm(defense, "mlp").replace(local_epochs=4, clients=1, per_round=1, rounds=1)
    begun, fresh = experiment(spec, rounds=1), experiment(spec)
    tensors = [
        range(slot.span.start, slot.span.stop)
        for slot in begun.built.net.layout
        if len(slot.shape) > 1
    ]
    wanted = reference.leadfl(
        slope(fresh, 0),
        fresh.state.params.double().numpy(),
        tensors,
        lr=0.1,
        steps=4,
        weight=weight,
        bound=bound,
        rate=0.05,
    )
    np.testing.assert_allclose(begun.state.params.numpy(), wanted, atol=1e-4)


def test_without_weight_or_a_second_step_it_is_fedavg() -> None:
    spec = calm("leadfl(weight=5, rate=0.1)", "mlp").replace(rounds=1)
    plain = experiment(spec.replace(defense=()), rounds=1).state.params
    torch.testing.assert_close(experiment(spec, rounds=1).state.params, plain)
    twice = spec.replace(local_epochs=2)
    other = experiment(twice, rounds=1).state.params
    assert not torch.allclose(other, experiment(twice.replace(defense=()), rounds=1).state.params)


def test_biases_and_a_tensor_that_stands_still_are_left_alone() -> None:
    nothing = torch.zeros(6)
    assert not _correction(nothing, nothing, LAYOUT, 0.0, 1.0, 1.0).any()
    found = _correction(torch.ones(6), nothing, LAYOUT, 0.0, 1.0, 0.3)
    assert found[:4].tolist() == pytest.approx([0.3] * 4)
    assert not found[4:].any()
