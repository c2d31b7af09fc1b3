"""Gaussian noise: malicious clients send noise in place of an update.

u_i <- N(0, σ² I)

Shapes: rows (m, d) → (m, d).

Source: P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent", NeurIPS 2017, the Gaussian Byzantine workers of the
experiments.

Deviations: the paper's σ = 200 is for gradients that the server multiplies by a learning rate; rows
here are whole updates, often with coordinates far below 1, so σ = 1 is the default. Noise that is
added to the update is another common definition; at a σ that does harm there is little between
them.

Checked: the draw against its formula in NumPy; the paper's σ = 200 is remembered.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> view = attack_view()
>>> row = gaussian(std=2.0).craft(None, torch.zeros(1, 10_000), view)
>>> f"mean {row.mean().abs():.1f}, standard deviation {row.std():.1f}"
'mean 0.0, standard deviation 2.0'
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range

VERSION = 1
KNOWS = "own"
STRENGTH = "std"
TRIGGER = False
UNTARGETED = True
DATA_FREE = True


def gaussian(
    *,
    std: Annotated[
        float,
        Range(0, 1e6, log=True, low_open=True, search=(1e-2, 1e2)),
        "standard deviation of every coordinate, σ",
    ] = 1.0,
) -> Attack:
    """Noise of mean 0, drawn anew for every row and round."""

    def craft(_: None, rows: Tensor, view: AttackView) -> Tensor:
        return torch.randn(rows.shape, generator=view.generator).to(rows) * std

    return Attack(craft=craft)
