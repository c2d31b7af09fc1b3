"""Lying validators: they bring in what honest voters would leave out."""

from __future__ import annotations

import pytest
import torch

from backstop.attacks.lying_validators import lying_validators
from backstop.platform.contract import Asked
from backstop.platform.examples import question
from backstop.platform.threats.lies import lies
from tests.arena import Claim
from tests.views import attack_view

# with nearly half of the voters, against clients that vote; FLShield leaves out who lies alone
CLAIM = Claim(
    "badnets(share=0.5)+model_replacement(strength=3)+lying_validators",
    effect=0.5,
    weaker="badnets(share=0.5)+model_replacement(strength=3)+lying_validators(strength=0)",
    bend=0.4,
    changes={"malicious": 0.5, "rounds": 4, "eval_every": 4},
    defense="flshield",
)


@pytest.mark.parametrize("bounds", [(-torch.inf, torch.inf), (0.0, 1.0)])
def test_the_whole_lie_is_what_all_attacks_say(bounds: tuple[float, float]) -> None:
    scores = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(0)).double()
    asked = Asked(question(5, *bounds), torch.tensor([True, False, False, True, False]), scores)
    view = attack_view("table")
    for strength in (0.0, 0.25, 1.0):
        testify = lying_validators(strength=strength).testify
        assert testify is not None
        said = testify(None, asked, view)
        torch.testing.assert_close(said, scores + strength * (lies(asked) - scores))
