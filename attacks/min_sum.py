"""Min-sum: malicious clients go as far as they can while their squared distances to honest ones add
up to no more than an honest client's.

u_i <- μ + γ p,   γ = max {γ : Σ_j ‖μ + γ p - u_j‖² <= min_k Σ_j ‖u_k - u_j‖²}

with j, k over the honest clients, μ the mean of their updates and p the direction of the harm, at
length 1: minus the standard deviation of each coordinate (std), minus the mean (unit), or minus
the signs of the mean (sign). In closed form, since the u_j - μ add up to zero,

γ = min_k ‖u_k - μ‖

so that malicious rows lie as far from the honest mean as the nearest honest one. With
``bound=largest`` both minima over k are maxima: as far as the farthest.

Shapes: rows (m, d) → (m, d), all alike; honest (n - m, d).

Source: V. Shejwalkar, A. Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning
Attacks and Defenses for Federated Learning", NDSS 2021, the Min-Sum attack, one of the two that
know no aggregation rule.

Deviations: the authors look for γ by halving steps, from 10 lengths of the direction and so up to
20 of them; here it is exact up to rounding to float32 and has no upper end. Their code bounds by
the smallest honest sum, the paper's formula by the largest (remembered): the default is the
code's, the other does more harm and is easier to see. Which direction is worst depends on data and
defense: the authors run std on CIFAR-10, sign on FEMNIST; the default is std. Where the worst is
asked, try all three. Where no honest client takes part, the malicious clients' own rows stand for
the honest ones.

Checked: against the authors' code (our_attack_score in the notebooks for CIFAR-10 and FEMNIST):
bound, directions and which of them is run on which data.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> view = attack_view(honest=torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]]))
>>> min_sum(direction="unit").craft(None, torch.zeros(1, 2), view)  # 4 + 0 + 4: no room
tensor([[3., 0.]])
>>> far = min_sum(direction="unit", bound="largest")
>>> far.craft(None, torch.zeros(1, 2), view)  # 0 + 4 + 16, as of the first and of the last
tensor([[1., 0.]])
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.threats.collusion import all_alike, harmful_direction
from backstop.platform.threats.parameters import Direction
from backstop.platform.threats.rehearsal import benign_rows

VERSION = 2
KNOWS = "all"
STRENGTH = None
TRIGGER = False
UNTARGETED = True


def min_sum(
    *,
    direction: Direction = "std",
    bound: Annotated[Literal["smallest", "largest"], "whose sum is the bound"] = "smallest",
) -> Attack:
    """The honest mean moved as far as an honest client's sum of squared distances allows."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        benign = benign_rows(rows, view)
        values = benign.double()
        mean = values.mean(0)
        p = harmful_direction(values, direction)
        apart = (values - mean).square().sum(1)
        reach = (apart.min() if bound == "smallest" else apart.max()).sqrt()
        return all_alike(mean + reach * p, rows)

    return Attack(craft=craft)
