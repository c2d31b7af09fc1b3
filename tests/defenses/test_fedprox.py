"""FedProx: the penalty has a slope, and it holds clients back as soon as they take more than one
step.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backstop.defenses.fedprox import fedprox
from backstop.platform.contract import Local, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.specs.part import to_chain
from backstop.search_spaces.quickstart import BASE
from tests.references import fedprox as reference

HONEST = BASE.replace(clients=8, per_round=4, malicious=0.0, rounds=1)


def local(mu: float) -> Local:
    found = fedprox(mu=mu).local
    assert found
    return found


def moved(spec: Spec, defense: str) -> torch.Tensor:
    """What one round moves the global model by."""
    experiment = Experiment(
        spec.replace(defense=to_chain(defense, "defense")), Path("unused"), "cpu"
    )
    start = experiment.state.params
    experiment.round()
    return experiment.state.params - start


def test_the_update_shrinks_with_mu() -> None:
    plain = moved(HONEST, "fedavg")
    norms = [moved(HONEST, f"fedprox(mu={mu})").norm().item() for mu in (0.01, 0.1, 1.0)]
    assert torch.equal(moved(HONEST, "fedprox(mu=0)"), plain)
    assert plain.norm().item() > norms[0] > norms[1] * 1.01
    assert norms[1] > norms[2] * 1.1


def test_one_local_step_is_fedavg() -> None:
    one = HONEST.replace(local_epochs=1, batch=1000, block=4)
    assert torch.equal(moved(one, "fedprox(mu=1)"), moved(one, "fedavg"))
    assert not torch.equal(
        moved(one.replace(local_epochs=2), "fedprox(mu=1)"),
        moved(one.replace(local_epochs=2), "fedavg"),
    )


@pytest.mark.parametrize("mu", [0.0, 0.01, 1.0])
def test_it_descends_the_penalized_objective(mu: float) -> None:
    curvature, aim, start = (
        np.array([1.0, 4.0, 0.5]),
        np.array([1.0, -2.0, 3.0]),
        np.array([0.5, 0.0, -1.0]),
    )
    wanted = reference.fedprox(
        lambda w: float((curvature * (w - aim) ** 2).sum() / 2), start, lr=0.1, steps=6, mu=mu
    )
    change = local(mu).gradient
    assert change
    w = torch.tensor(start)
    for _ in range(6):
        w = w - 0.1 * change(
            torch.tensor(curvature) * (w - torch.tensor(aim)),
            w - torch.tensor(start),
            lambda: torch.zeros(3),
        )
    np.testing.assert_allclose((w - torch.tensor(start)).numpy(), wanted, rtol=1e-6)
