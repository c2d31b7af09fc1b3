"""A small federation for defenses under which clients keep something of their own, and what a model
with one step a round does in it, by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.laws.arena import ARENA
from backstop.platform.rounds.finals import final
from backstop.platform.specs.part import to_chain
from tests.reference import Array
from tests.references.fedbn import Slope

NOWHERE = Path("unused")
KEEPERS = {
    "fedbn": Part("normed_mlp", {"hidden": 16}),
    "fedrep(head_epochs=2)": Part("mlp", {"hidden": 16}),
    "ditto": Part("mlp", {"hidden": 16}),
    "lockdown(anneal=0.1)": Part("mlp", {"hidden": 16}),
}
SMALL = Spec(
    clients=9,
    per_round=5,
    malicious=0.34,
    selection="fixed",
    rounds=3,
    batch=16,
    block=3,
    root_size=20,
    alpha=5.0,
    optimizer=Part("sgd", {"lr": 0.1, "momentum": 0.5}),
    attack=to_chain("badnets+model_replacement(strength=2)", "attack"),
)


def small(defense: str, **changes: Any) -> Spec:
    """Three attacked rounds under a defense of KEEPERS, alone or before others."""
    first = defense.partition("+")[0]
    chain = to_chain(defense, "defense")
    return SMALL.replace(model=KEEPERS[first], defense=chain, **changes)


def experiment(spec: Spec, rounds: int = 0) -> Experiment:
    """An experiment after some rounds."""
    begun = Experiment(spec, NOWHERE, "cpu")
    for _ in range(rounds):
        begun.round()
    return begun


def calm(defense: str, model: str) -> Spec:
    """Honest clients who are all there in each round, with one batch an epoch and plain steps."""
    return Spec(
        clients=4,
        per_round=4,
        malicious=0.0,
        rounds=3,
        batch=2000,
        block=4,
        alpha=2.0,
        optimizer=Part("sgd", {"lr": 0.1}),
        model=Part(model, {"hidden": 8}),
        defense=to_chain(defense, "defense"),
    )


def slope(begun: Experiment, client: int) -> Slope:
    """The gradient of a client's loss over all its samples, by autograd, as a function of plain
    vectors.
    """
    built = begun.built
    shard = built.shards[client]
    data = built.data.train
    x, y = data.x[shard], data.y[shard]

    def of(vector: Array) -> Array:
        params = torch.tensor(vector, dtype=torch.float32, requires_grad=True)
        replica = built.replica
        loaded = replica.params.clone(), replica.buffers.clone()
        replica.load(params.detach(), begun.built.net.buffers)
        replica.grad.zero_()
        torch.nn.functional.cross_entropy(replica(x), y).backward()
        found = replica.grad.double().numpy().copy()
        replica.load(*loaded)
        return np.asarray(found)

    return of


ARENA_SHARE = "badnets(share=0.2)"


def arena(attack: str, defense: str, model: str = "mlp", **changes: Any) -> dict[str, float]:
    """Final figures of the arena, measured by the clients."""
    from backstop.platform.experiment import run

    spec = ARENA.replace(
        attack=to_chain(attack, "attack"),
        defense=to_chain(defense, "defense"),
        model=Part(model),
        evaluate_by="clients",
        **changes,
    )
    return dict(final(list(run(spec, folder=NOWHERE, device="cpu"))))
