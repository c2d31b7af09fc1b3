"""Neurotoxin: malicious clients leave alone the parameters that honest clients move most, so that
the backdoor lasts.

u_j = 0  for j in top_k(|g|),   g = gradient of the clean loss at the global model

Shapes: delta (d,) or (k, d); g and the mask (d,).

Source: Z. Zhang, A. Panda, L. Song, Y. Yang, M. W. Mahoney, J. E. Gonzalez, K. Ramchandran, P.
Mittal, "Neurotoxin: Durable Backdoors in Federated Learning", ICML 2022, algorithm 1: gradients are
projected onto what lies outside the top-k% coordinates of g.

Deviations: the paper's g is the last global update; here it is the gradient on the clean data of
this round's malicious clients, which needs no earlier round and holds no malicious updates. The
authors' code takes a gradient too, on the data of 30 honest clients. The top-k% are taken of all
coordinates together, as in algorithm 1; another common definition takes them in each layer. The
update is masked after each step: the same as masked gradients for an optimizer that treats
coordinates apart.

Durability is what the attack is for, and it is not reproduced here (docs/attacks.md has figures).
Most of the published runs compare more than the mask: the attacker's rate is 0.02 with it and 0.003
without on CIFAR-10 and CIFAR-100, 0.12 and 0.02 for an LSTM on Reddit. Both are equal on IMDB and
on EMNIST by class. The honest rate is at its floor of 1e-4 when the attack on CIFAR-10 ends, and
all along on EMNIST, so that hardly anything unlearns either backdoor. The server clips norms
throughout.

Checked: against the authors' code: mask (grad_mask_cv), rates and rounds (train_cv,
run_backdoor_cv_task.sh, run_NLP_tasks.sh).

Cost: the gradient of the clean loss over the data of this round's malicious clients, once a round.

Example:
>>> import torch
>>> # the largest magnitudes are the second and the fourth
>>> _mask(torch.tensor([0.3, -0.9, 0.1, 0.5]), 0.5)
tensor([1., 0., 1., 0.])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack
from backstop.platform.params import Range
from backstop.platform.robust import round_count
from backstop.platform.threats.rehearsal import clean_gradient

VERSION = 1
KNOWS = "own"
STRENGTH = None
TRIGGER = False


def _mask(gradient: Tensor, top: float) -> Tensor:
    """0 on the share ``top`` of the coordinates (d,) of largest magnitude, 1 on the others; of
    equals the first count as larger.
    """
    order = gradient.abs().argsort(descending=True, stable=True)
    return torch.ones_like(gradient).index_fill(0, order[: round_count(top, len(gradient))], 0.0)


def neurotoxin(
    *,
    top: Annotated[
        float,
        Range(0, 1, low_open=True, high_open=True, search=(0.01, 0.5)),
        "share of the coordinates left alone, k%",
    ] = 0.05,
) -> Attack[Tensor]:
    """Updates without the coordinates that matter to the clean loss. The state is the mask."""
    return Attack(
        init=lambda view: torch.ones_like(view.params),
        plan=lambda _, view: _mask(clean_gradient(view), top),
        constrain=lambda mask, delta, _: delta * mask,
    )
