"""A few seconds of everything: three defenses, two attacks, one seed, three rounds."""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

BASE = Spec(
    dataset=Part("digits"),
    model=Part("logistic"),
    clients=10,
    per_round=5,
    rounds=3,
    batch=16,
    optimizer=Part("sgd", {"lr": 0.1}),
    root_size=20,
    block=5,
)


def smoke() -> list[Spec]:
    """No attack and model replacement × FedAvg, median and invariant: 6 runs."""
    return grid(
        BASE,
        attack=["none", "badnets+model_replacement(strength=3)"],
        defense=["fedavg", "median", "invariant"],
    )
