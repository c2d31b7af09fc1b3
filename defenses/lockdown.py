"""Lockdown: each client trains within a mask of its own, which is pruned and grows back from round
to round, and the final model keeps what enough masks hold.

client i in round t, for each tensor l:
    m ← m ∪ the n_l places outside m with the largest |∇F_i(w ⊙ m)|      (as many as were pruned)
    w_i ← local training of w ⊙ m that moves m alone
    m' ← m without the ⌈ζ_t |m|⌉ places of the smallest |w_i|;   ζ_t = ζ/2 (1 + cos(π t/T))
    sends m' ⊙ (w_i - w) and m'
server:  w ← w + Σ_i p_i Δ_i;   at the end w_j ← 0 where fewer than θ of all masks hold j

Shapes: masks (d,) of 0 and 1; params (d,) → params (d,).

Source: T. Huang, S. Hu, K.-H. Chow, F. Ilhan, S. Tekin, L. Liu, "Lockdown: Backdoor Defense for
Federated Learning with Isolated Subspace Training", NeurIPS 2023, algorithms 1 and 2.

Deviations: θ is a share of the masks that the server has seen, half by default as 20 of 40; the
authors count the masks of all clients, also of those that have not trained yet. A client that
sends no mask counts as one where its row moves: a malicious one votes for all that it poisons. In
the authors' code malicious clients keep to masks of their own; here they do as they like. The
gradient that grows masks is that of the mean loss over the client's samples, in evaluation mode;
theirs adds up those of batches. Figures of the rounds are those of the unpruned model, ``final`` is
the pruned one's. The cosine ends after ``horizon`` rounds, whatever the experiment's number.

Checked: masks by the Erdős-Rényi kernel, of one seed for all, pruning, growth, its order, ζ = 1e-4,
density 0.25, θ = 20 of 40 and the rounding up against the authors' code (git-disl/Lockdown).

Needs: honest clients that train this way.

Example:
>>> import torch
>>> mask, weights = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([3.0, 0.1, -2.0, 9.0])
>>> _pruned(mask, weights, 1), _grown(mask, torch.tensor([5.0, 5.0, 5.0, 1.0]), 1)
(tensor([1., 0., 1., 0.]), tensor([1., 1., 1., 1.]))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform.contract import (
    Carry,
    ClientView,
    Defense,
    Local,
    LocalStep,
    RoundView,
    ServerView,
    Slot,
    Updates,
)
from backstop.platform.params import Range

VERSION = 1
NEEDS = ("clients", "history")
EXEMPT = ("adversarial",)  # rows pass unchanged: what the defense changes comes before and after

Masks = dict[int, Tensor]  # client → its last mask (d,) bool


class _Memory(NamedTuple):
    """What a client has in mind during a round."""

    mask: Tensor  # (d,) of 0 and 1
    params: Tensor  # (d,) that it was sent
    layout: tuple[Slot, ...]
    share: float  # of each tensor's mask that is pruned after training


def lockdown(
    *,
    density: Annotated[
        float, Range(0, 1, low_open=True, search=(0.05, 0.8)), "share of parameters in a mask"
    ] = 0.25,
    anneal: Annotated[
        float, Range(0, 1, search=(1e-4, 0.1)), "share that is pruned and grown at first, ζ"
    ] = 1e-4,
    threshold: Annotated[
        float, Range(0, 1, search=(0.1, 0.9)), "share of masks that holds what is kept, θ"
    ] = 0.5,
    horizon: Annotated[int, Range(1, 10**6), "rounds after which nothing is pruned, T"] = 200,
) -> Defense[Masks]:
    """Masked local training, and the final model cut to what masks agree on."""

    def first(view: RoundView) -> Tensor:
        dense = _densities(view.layout, density)
        marks = torch.zeros(len(view.params))
        for slot, share in zip(view.layout, dense, strict=True):
            order = torch.randperm(slot.size, generator=view.generator)
            marks[slot.span][order[: round(share * slot.size)]] = 1.0
        return marks.to(view.params)

    def prepare(view: ClientView) -> _Memory:
        assert view.carried is not None
        mask, wanted = view.carried, _densities(view.layout, density)
        missing = [
            round(share * slot.size) - int(mask[slot.span].sum())
            for slot, share in zip(view.layout, wanted, strict=True)
        ]
        if any(missing):
            grad = _gradient(view, view.params * mask)
            mask = mask.clone()
            for slot, count in zip(view.layout, missing, strict=True):
                mask[slot.span] = _grown(mask[slot.span], grad[slot.span], count)
        turn = min(view.round / horizon, 1.0)
        share = anneal / 2 * (1 + math.cos(math.pi * turn))
        return _Memory(mask, view.params, view.layout, share)

    return Defense(
        init=lambda _: {},
        apply=_remember,
        local=Local(
            prepare=prepare,
            step=_within,
            carry=Carry(first, lambda memory: memory.params * (memory.mask - 1.0), _finished),
        ),
        finish=lambda masks, view: _agreed(masks, view, threshold),
    )


def _within(memory: _Memory, step: LocalStep) -> tuple[Tensor, _Memory]:
    """A step that moves the mask alone."""
    return torch.where(memory.mask > 0, step.delta, step.before), memory


def _finished(memory: _Memory, delta: Tensor) -> tuple[Tensor, Tensor]:
    """What is sent, and the mask after pruning."""
    mask, weights = memory.mask.clone(), memory.params + delta
    for slot in memory.layout:
        held = mask[slot.span]
        count = math.ceil(memory.share * int(held.sum()))
        mask[slot.span] = _pruned(held, weights[slot.span], count)
    return mask * delta, mask


def _pruned(mask: Tensor, weights: Tensor, count: int) -> Tensor:
    """Without the smallest weights of it, the first among equals."""
    size = weights.abs().where(mask > 0, math.inf)
    left = mask.clone()
    left[size.argsort(stable=True)[:count]] = 0.0
    return left


def _grown(mask: Tensor, grad: Tensor, count: int) -> Tensor:
    """With the largest gradients outside of it, the first among equals."""
    size = grad.abs().where(mask == 0, -1.0)
    grown = mask.clone()
    grown[size.argsort(descending=True, stable=True)[: max(count, 0)]] = 1.0
    return grown


def _gradient(view: ClientView, params: Tensor) -> Tensor:
    """Of the mean loss over the client's samples."""
    leaf = params.detach().requires_grad_()
    loss = cross_entropy(view.model(leaf, view.data.x), view.data.y)
    return torch.autograd.grad(loss, leaf)[0]


def _densities(layout: Sequence[Slot], density: float) -> list[float]:
    """Of each tensor: in proportion to the sum of its sides over their product, the whole having
    the density that is asked for; tensors for which that is more than all are whole.
    """
    raw = [sum(slot.shape) / max(slot.size, 1) for slot in layout]
    whole: set[int] = set()
    while True:
        rest = [index for index in range(len(layout)) if index not in whole]
        owed = density * sum(slot.size for slot in layout)
        owed -= sum(layout[index].size for index in whole)
        scale = max(owed, 0.0) / max(sum(raw[index] * layout[index].size for index in rest), 1e-12)
        most = max((raw[index] for index in rest), default=0.0)
        if most * scale <= 1:
            return [1.0 if index in whole else scale * raw[index] for index in range(len(layout))]
        whole |= {index for index in rest if raw[index] == most}


def _remember(updates: Updates, masks: Masks, view: ServerView) -> tuple[Updates, Masks]:
    """The rows as they are, and the masks of their clients."""
    known: Mapping[int, Tensor] = view.told
    new = {
        client: known[client] > 0 if client in known else row != 0
        for client, row in zip(updates.client.tolist(), updates.rows, strict=True)
    }
    return updates, masks | new


def _agreed(masks: Masks, view: ServerView, threshold: float) -> Tensor:
    """The model where enough masks hold it, else 0."""
    if not masks:
        return view.params
    votes = torch.stack(list(masks.values())).double().mean(0)
    return view.params.where(votes >= threshold, 0.0)
