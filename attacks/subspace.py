"""Subspace: malicious clients move only what honest ones do: within the mask of their own that the
protocol gives them, else within the parameters that the last round moved the most.

δ <- δ ⊙ m - w ⊙ (1 - m) after every local step,  row <- row ⊙ m     for a mask m of the protocol's
δ <- δ ⊙ m after every local step,  m_j = 1 for the ⌈q d⌉ largest |w_t - w_{t-1}|_j     without one

Where honest clients train within masks (``lockdown``), what is outside of them is cut at the end,
and a backdoor there with it. It is Neurotoxin turned around: that hides where nobody moves, this
stays where everybody does.

Shapes: delta (d,) or (k, d); m (d,).

Source: T. Huang, S. Hu, K.-H. Chow, F. Ilhan, S. Tekin, L. Liu, "Lockdown: Backdoor Defense for
Federated Learning with Isolated Subspace Training", NeurIPS 2023, its adaptive attack "fix_mask":
malicious clients keep to the mask that they began with.

Deviations: all malicious clients keep to the mask of the first of them; masks of one seed begin
alike. The parameters outside of it are 0 while they train, from their first step on. Where there
is no mask, the last step of the global model tells; in the first attacked round the largest parts
of what the malicious clients send together.

Checked: that such a client neither prunes nor grows its mask, and trains and sends within it,
against the authors' code (git-disl/Lockdown, ``src/agent_sparse.py``).

Example:
>>> import torch
>>> _largest(torch.tensor([0.5, -2.0, 0.0, 1.0]), 0.5)
tensor([False,  True, False,  True])
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.robust import ceil_count

VERSION = 1
KNOWS = "own"
STRENGTH = None
TRIGGER = False


class _Seen(NamedTuple):
    """What the adversary has seen of the global model."""

    params: Tensor  # (d,) of this attacked round
    mask: Tensor | None  # (d,) bool of the protocol's
    moved: Tensor | None  # (d,) bool: what changed the most since the attacked round before


def subspace(
    *,
    share: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.05, 0.9)),
        "share of parameters that move where the protocol gives no mask, q",
    ] = 0.25,
) -> Attack:
    """Local training within the parameters that everybody moves."""

    def plan(seen: _Seen | None, view: AttackView) -> _Seen:
        if view.carried is not None and len(view.carried) == len(view.params):
            return _Seen(view.params, view.carried > 0, None)
        moved = None if seen is None else _largest(view.params - seen.params, share)
        return _Seen(view.params, None, moved)

    def cut(seen: _Seen, rows: Tensor, _: AttackView) -> Tensor:
        if seen.mask is not None:
            return rows * seen.mask
        moved = _largest(rows.sum(0), share) if seen.moved is None else seen.moved
        return rows * moved

    return Attack(plan=plan, constrain=_within, craft=cut)


def _within(seen: _Seen, delta: Tensor, _: int) -> Tensor:
    if seen.mask is not None:
        return torch.where(seen.mask, delta, -seen.params)
    return delta if seen.moved is None else delta * seen.moved


def _largest(step: Tensor, share: float) -> Tensor:
    """Where a step (d,) is largest, the first among equals."""
    order = step.abs().argsort(descending=True, stable=True)
    chosen = torch.zeros_like(step, dtype=torch.bool)
    chosen[order[: ceil_count(share, len(step))]] = True
    return chosen
