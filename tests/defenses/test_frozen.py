"""Frozen: the model of the start, whatever anybody sends, and nothing to complain of."""

from __future__ import annotations

from pathlib import Path

import torch

from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.rounds.finals import final, unmoved
from backstop.platform.specs.part import to_chain

NOWHERE = Path("unused")
SPEC = Spec(
    clients=12,
    per_round=6,
    malicious=0.34,
    selection="fixed",
    rounds=3,
    batch=16,
    block=4,
    root_size=20,
    optimizer=Part("sgd", {"lr": 0.1}),
    attack=to_chain("badnets+model_replacement(strength=4)", "attack"),
)


def test_it_ends_where_it_starts_and_stops_every_attack() -> None:
    frozen = Experiment(SPEC.replace(defense=(Part("frozen"),)), NOWHERE, "cpu")
    start = frozen.state.params.clone()
    records = [record for record in (frozen.round() for _ in range(3)) if record]
    assert torch.equal(frozen.state.params, start)
    figures = final(records)
    assert figures["final/clean_accuracy"] == figures["final/start_accuracy"]
    assert figures["final/masked_fraction"] == 1.0
    assert not unmoved(records)  # it is meant so
    undefended = Experiment(SPEC, NOWHERE, "cpu")
    undefended.round()
    assert not torch.equal(undefended.state.params, start)
