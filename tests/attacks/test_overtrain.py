"""Overtraining: the malicious rows are those of the stated epochs and rate, and the honest ones
stay.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from backstop.attacks.overtrain import overtrain
from backstop.platform.contract import Part
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.specs.part import to_chain
from backstop.platform.training import local_steps
from tests.arena import ARENA, Claim

CLAIM = Claim(
    "badnets(share=0.05)+overtrain",
    effect=0.65,
    weaker="badnets(share=0.05)+overtrain(epochs=2)",
    bend=0.2,
)


def reference(epochs: int, lr: float) -> tuple[Tensor, Tensor]:
    """The rows of a federation in which all clients train so."""
    return rows("none", local_epochs=epochs, optimizer=Part("sgd", {"lr": lr, "momentum": 0.9}))


def rows(attack: str, **changes: object) -> tuple[Tensor, Tensor]:
    """Malicious and honest rows of everybody's first round."""
    spec = ARENA.replace(attack=to_chain(attack, "attack"), per_round=20, **changes)
    experiment = Experiment(spec, Path("unused"), "cpu")
    found = experiment._trained(experiment.state, torch.arange(20))[1].rows
    bad = torch.isin(torch.arange(20), experiment.built.malicious)
    return found[bad], found[~bad]


@pytest.mark.parametrize(
    ("stage", "epochs", "lr"), [("overtrain", 6, 0.05), ("overtrain(epochs=none, lr=0.2)", 2, 0.2)]
)
def test_malicious_rows_are_those_of_a_federation_that_trains_so(
    stage: str, epochs: int, lr: float
) -> None:
    malicious, honest = rows(stage)
    expected, other = reference(epochs, lr)
    as_ever = reference(2, 0.05)
    torch.testing.assert_close(malicious, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(honest, as_ever[1], rtol=1e-3, atol=1e-5)
    assert (malicious - as_ever[0]).norm(dim=1).min() > 0.1 and (other - honest).norm(
        dim=1
    ).min() > 0.1


def test_the_number_of_steps_is_that_of_the_epochs() -> None:
    built = Experiment(
        ARENA.replace(attack=to_chain("overtrain(epochs=5)", "attack")), Path("unused"), "cpu"
    ).built
    client = int(built.malicious[0])
    each = -(-len(built.shards[client]) // 16)
    assert [
        len(local_steps.plan_steps(built, 0, client, attacking=attacking).sizes)
        for attacking in (True, False)
    ] == [5 * each, 2 * each]


def test_a_stage_that_changes_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="epochs=None and lr=None"):
        overtrain(epochs=None)
