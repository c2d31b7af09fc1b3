"""Min-max: malicious clients go as far as they can without being farther from any honest client
than honest ones are from each other.

u_i <- μ + γ p,   γ = max {γ : max_j ‖μ + γ p - u_j‖ <= max_{j,k} ‖u_j - u_k‖}

with j, k over the honest clients, μ the mean of their updates and p the direction of the harm, at
length 1: minus the standard deviation of each coordinate (std), minus the mean (unit), or minus
the signs of the mean (sign). In closed form, with a_j = u_j - μ,

γ = min_j (a_jᵀp + √((a_jᵀp)² + max_{k,l} ‖u_k - u_l‖² - ‖a_j‖²))

Shapes: rows (m, d) → (m, d), all alike; honest (n - m, d).

Source: V. Shejwalkar, A. Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning
Attacks and Defenses for Federated Learning", NDSS 2021, the Min-Max attack, one of the two that
know no aggregation rule.

Deviations: the authors look for γ by halving steps, from 10 lengths of the direction and so up to
20 of them; here it is exact up to rounding to float32 and has no upper end. Which direction is
worst depends on data and defense: the authors run std on CIFAR-10, sign on FEMNIST; the default is
std. Where the worst is asked, try all three. Where no honest client takes part, the malicious
clients' own rows stand for the honest ones.

Checked: against the authors' code (our_attack_dist in the notebooks for CIFAR-10 and FEMNIST):
bound, directions and which of them is run on which data.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> view = attack_view(honest=torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
>>> min_max(direction="unit").craft(None, torch.zeros(1, 2), view)  # 2 from the farther
tensor([[1., 0.]])
"""

from __future__ import annotations

from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Attack, AttackView
from backstop.platform.threats.collusion import all_alike, harmful_direction
from backstop.platform.threats.parameters import Direction
from backstop.platform.threats.rehearsal import benign_rows

VERSION = 2
KNOWS = "all"
STRENGTH = None
TRIGGER = False
UNTARGETED = True


def min_max(
    *,
    direction: Direction = "std",
) -> Attack:
    """The honest mean moved as far as the largest distance allows."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        benign = benign_rows(rows, view)
        values = benign.double()
        mean = values.mean(0)
        p = harmful_direction(values, direction)
        away = values - mean
        along = away @ p
        room = (robust.distances(benign).max() - away.square().sum(1)).clamp_min(0)
        reach = (along + (along.square() + room).sqrt()).min()
        return all_alike(mean + reach * p, rows)

    return Attack(craft=craft)
