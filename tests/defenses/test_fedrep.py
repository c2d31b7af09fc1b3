"""FedRep: the order of its epochs against the reference; a plain backdoor stays in the attackers'
own heads, and BapFL's reaches everybody's.
"""

from __future__ import annotations

import numpy as np
import torch

from tests.keepers import ARENA_SHARE, arena, calm, experiment, slope
from tests.references import fedrep as reference


def test_models_are_those_of_the_algorithm() -> None:
    begun = experiment(calm("fedrep(head_epochs=3)", "mlp").replace(local_epochs=2), rounds=2)
    fresh, built = experiment(begun.spec), begun.built
    assert built.keeping is not None
    private = built.keeping.withheld
    assert private is not None
    wanted = reference.fedrep(
        [slope(fresh, client) for client in range(4)],
        fresh.state.params.double().numpy(),
        private.double().numpy(),
        np.array(built.sizes, dtype=float),
        lr=0.1,
        rounds=2,
        head_steps=3,
        steps=2,
    )
    for client, model in enumerate(wanted):
        vectors = (begun.state.params, begun.state.buffers)
        params, _ = built.of_client(vectors, begun.state.kept[client])
        np.testing.assert_allclose(params.numpy(), model, atol=2e-5)
        assert not torch.equal(params[private], begun.state.params[private])


def test_a_plain_backdoor_stays_with_the_attackers_and_bapfl_does_not() -> None:
    """The claim of T. Ye et al.; measured 10 % and 96 %, and 99 % in the attackers' own models."""
    plain = arena(ARENA_SHARE, "fedrep(head_epochs=3)")
    assert plain["final/attack_success_rate"] < 0.3
    assert plain["final/malicious_success"] > 0.9
    adapted = arena(f"{ARENA_SHARE}+bapfl", "fedrep(head_epochs=3)")
    assert adapted["final/attack_success_rate"] > 0.8
    assert adapted["final/untriggered_target_rate"] < 0.1
    assert min(plain["final/clean_accuracy"], adapted["final/clean_accuracy"]) > 0.85
