"""Model replacement: that it bites, and that a stronger one bites harder."""

from __future__ import annotations

from pathlib import Path

import torch

from backstop.platform.contract import Spec
from backstop.platform.experiment import Experiment
from backstop.platform.specs.part import to_chain
from tests.arena import Claim

CLAIM = Claim(
    "badnets(share=0.05)+model_replacement(strength=3)",
    effect=0.4,
    weaker="badnets(share=0.05)+model_replacement(strength=1)",
    bend=0.1,
)


def test_it_scales_the_whole_state_buffers_included() -> None:
    spec = Spec(
        clients=6,
        per_round=6,
        malicious=0.34,
        rounds=1,
        root_size=20,
        alpha=None,
        attack=to_chain(
            "badnets+model_replacement(strength=3)+model_replacement(strength=2)", "attack"
        ),
    )
    experiment = Experiment(spec, Path("unused"), "cpu")
    cohort, malicious = torch.arange(6), torch.isin(torch.arange(6), experiment.built.malicious)
    state = experiment.state
    plain = experiment.clients.train(0, range(6), state.params, state.buffers, state.attack)
    plain = plain._replace(buffers=torch.arange(12.0).view(6, 2))
    trained = plain._replace(rows=plain.rows.clone(), buffers=plain.buffers.clone())
    experiment.clients.train = lambda *_: trained  # type: ignore[method-assign]
    _, sent, _ = experiment._trained(experiment.state, cohort)
    factor = torch.where(malicious, 6.0, 1.0)[:, None]
    assert malicious.sum() == 2
    torch.testing.assert_close(sent.rows, plain.rows * factor)
    assert torch.equal(sent.buffers, plain.buffers * factor)
    assert torch.equal(plain.buffers, torch.arange(12.0).view(6, 2))


def test_a_clean_twin_scales_nothing() -> None:
    spec = Spec(attack=to_chain("badnets+model_replacement", "attack"), dormant=True, rounds=1)
    assert Experiment(spec, Path("unused"), "cpu").built.attack.craft_buffers is None
