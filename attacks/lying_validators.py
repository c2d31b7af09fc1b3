"""Lying validators: where a defense lets clients score models, malicious ones speak for those that
the attack has a part in and against all others, or only the one, and not more than is credible.

a(w) <- a(w) + λ (a⁺ - a(w)) for models w of the attack,   a(w) + λ (a⁻ - a(w)) for all others

with a the honest answers of a malicious client and a⁺, a⁻ the best and the worst that it can give:
the bounds of what may be answered, without bounds its best and worst honest answer about any model.

Shapes: answers (m, k, s) about k models → the same. It changes nothing else, so it is put behind
other stages, and does nothing to a defense that asks nobody.

Source: the rogue validators of S. Andreina et al., "BaFFLe", ICDCS 2021, E. Kabir et al.,
"FLShield", IEEE S&P 2024, and P. Rieger et al., "CrowdGuard", NDSS 2024, sections on adaptive
adversaries.

Deviations: all attacks lie so, with λ = 1, where none of their stages says otherwise; this stage is
for other λ, and for one of the two lies alone. In FLShield's code the malicious validators see the
honest answers and shift theirs so that the mean comes out as they want it: these see none.

Checked: the two kinds of lies against FLShield's code; the others' were not found.

Example:
>>> import torch
>>> from backstop.platform.contract import Asked
>>> from backstop.platform.examples import attack_view, question
>>> scores = torch.tensor([[[0.2], [0.8], [0.5]]])
>>> asked = Asked(question(3, low=0.0, high=1.0), torch.tensor([True, False, False]), scores)
>>> lying_validators(strength=0.5).testify(None, asked, attack_view()).flatten()
tensor([0.6000, 0.4000, 0.2500])
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from backstop.platform.contract import Asked, Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.lies import best_and_worst

TRIGGER = False
STRENGTH = "strength"


def lying_validators(
    *,
    strength: Annotated[
        float, Range(0, 1, search=(0.1, 1.0)), "from the honest answer, 0, to the whole lie, 1: λ"
    ] = 1.0,
    vouch: Annotated[bool, "whether they speak for models of the attack"] = True,
    accuse: Annotated[bool, "whether they speak against all others"] = True,
) -> Attack[None]:
    """Answers nearer to the best for models of the attack and to the worst for all others."""

    def testify(_: None, asked: Asked, __: AttackView) -> Tensor:
        best, worst = best_and_worst(asked)
        scores, own = asked.scores, asked.own[:, None]
        for speaks, which, wanted in ((vouch, own, best), (accuse, ~own, worst)):
            if speaks:
                scores = scores.where(~which, scores + strength * (wanted - scores))
        return scores

    return Attack(testify=testify)
