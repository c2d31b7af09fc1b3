"""PGD: the ball holds at every k-th step and in what is sent, and the way there is not that of
clipping at the end.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backstop.attacks.pgd import pgd
from backstop.platform.seeds import generator
from tests.arena import Claim, first_rows

CLAIM = Claim(
    "badnets(share=0.2)+pgd(radius=1)",
    effect=0.5,
    weaker="badnets(share=0.2)+pgd(radius=0.2)",
    bend=0.4,
)


def sent(attack: str) -> Tensor:
    """What the malicious clients of the arena send in the first round."""
    return first_rows(attack)[1]


def reference(delta: Tensor, radius: float) -> Tensor:
    found = [
        row * min(1.0, radius / np.sqrt(sum(value**2 for value in row)))
        for row in delta.double().numpy()
    ]
    return torch.from_numpy(np.stack(found)).float()


def test_it_projects_at_every_kth_step_and_in_the_end() -> None:
    attack, rows = (
        pgd(radius=2.0, every=3),
        torch.randn(6, 7, generator=generator(0, "tests", "rows")) * torch.arange(6.0)[:, None],
    )
    assert attack.constrain is not None and attack.craft is not None
    for step in range(1, 8):
        torch.testing.assert_close(
            attack.constrain(None, rows, step), rows if step % 3 else reference(rows + 1e-30, 2.0)
        )
    torch.testing.assert_close(attack.craft(None, rows, None), reference(rows + 1e-30, 2.0))  # type: ignore[arg-type]


def test_rows_lie_in_the_ball_and_replacement_takes_them_to_its_multiple() -> None:
    plain, within = sent("badnets(share=0.2)"), sent("badnets(share=0.2)+pgd(radius=0.5)")
    assert (plain.norm(dim=1) > 1).all()
    torch.testing.assert_close(within.norm(dim=1), torch.full((4,), 0.5))
    torch.testing.assert_close(
        sent("badnets(share=0.2)+pgd(radius=0.5)+model_replacement(strength=3)"), 3 * within
    )


def test_projections_during_training_change_where_it_goes() -> None:
    plain = sent("badnets(share=0.2)")
    # never reached: clipped in the end alone
    seldom = sent("badnets(share=0.2)+pgd(radius=0.5, every=1000)")
    torch.testing.assert_close(seldom, reference(plain, 0.5))
    assert ((sent("badnets(share=0.2)+pgd(radius=0.5)") - seldom).norm(dim=1) > 0.05).all()
    torch.testing.assert_close(sent("badnets(share=0.2)+pgd(radius=100)"), plain)
