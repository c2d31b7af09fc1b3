"""FedBN: models against the reference, who trains with whose statistics, and that a backdoor
reaches clients all the same.
"""

from __future__ import annotations

import numpy as np

from tests.keepers import ARENA_SHARE, arena, calm, experiment, slope
from tests.references import fedbn as reference


def test_models_are_those_of_the_algorithm() -> None:
    begun = experiment(calm("fedbn", "normed_mlp"), rounds=3)
    fresh, built = experiment(begun.spec), begun.built
    assert built.keeping is not None
    assert built.keeping.withheld is not None
    wanted = reference.fedbn(
        [slope(fresh, client) for client in range(4)],
        fresh.state.params.double().numpy(),
        built.keeping.withheld.double().numpy(),
        np.array(built.sizes, dtype=float),
        lr=0.1,
        rounds=3,
    )
    statistics = []
    for client, model in enumerate(wanted):
        vectors = (begun.state.params, begun.state.buffers)
        params, buffers = built.of_client(vectors, begun.state.kept[client])
        np.testing.assert_allclose(params.numpy(), model, atol=5e-5)
        statistics.append(buffers)
    assert (begun.state.buffers == fresh.state.buffers).all()  # the server has none of them
    assert all((one != statistics[0]).any() for one in statistics[1:])


def test_a_plain_backdoor_reaches_the_clients() -> None:
    """Digits have one kind of features for all; measured 91 %, where FedAvg has 93 %."""
    figures = arena(ARENA_SHARE, "fedbn", "normed_mlp", rounds=10, eval_every=10)
    assert figures["final/attack_success_rate"] > 0.5
    assert figures["final/clean_accuracy"] > 0.85
    assert figures["final/worst_tenth_success"] > figures["final/attack_success_rate"]
