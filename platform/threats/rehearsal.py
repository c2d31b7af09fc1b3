"""What an adversary takes for honest updates: those it sees, or those it can train itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform import robust
from backstop.platform.contract import AttackView, Samples, Updates
from backstop.platform.threats.collusion import own_batches

_PIECE = 256  # samples that are differentiated at once


def honest_rows(view: AttackView, count: int) -> Tensor:
    """``count`` updates (count, d) as honest clients might send them.

    They come from local training on clean data from the global model. Row i is trained on the data
    of malicious client i modulo their number: on all of it the first time, then on samples of it
    drawn with replacement, so that rows differ as clients' do. As many local trainings as rows: the
    cost of as many honest clients. Empty where the adversary has no data.
    """
    holders = [index for index, size in enumerate(view.sizes) if size]
    if not holders or not count:
        return view.params.new_zeros(0, len(view.params))
    rows = []
    for row in range(count):
        own = view.own(holders[row % len(holders)])
        if row >= len(holders):
            own = _resampled(own, view.generator)
        rows.append(view.train(view.params, own))
    return torch.stack(rows)


def clean_gradient(view: AttackView) -> Tensor:
    """Of the summed cross-entropy over the samples of this round's malicious clients (d,)."""
    total = torch.zeros_like(view.params)
    for _, (x, y) in own_batches(view, _PIECE):
        params = view.params.clone().requires_grad_()
        loss = cross_entropy(view.model(params, x), y, reduction="sum")
        total += torch.autograd.grad(loss, params)[0]
    return total


def cohort_of(
    honest: Tensor,
    own: Tensor,
    view: AttackView,
) -> Updates:
    """Rehearsed honest rows (k, d) and the members' own (m, d) as a round's updates of equal
    weight. A client has the same id in all rounds, honest ones from 0 on, malicious ones after as
    many as a cohort has.
    """
    rows = torch.cat([honest, own])
    client = torch.cat([torch.arange(len(honest)), view.total + view.members]).to(rows.device)
    weight = torch.ones(len(rows), device=rows.device)
    return Updates(rows, weight, client)


def step_of(after: Updates) -> Tensor:
    """The weighted mean of what a defense leaves; zero where it leaves nothing."""
    left = after.weight > 0
    if not left.any():
        return after.rows.new_zeros(after.rows.shape[1])
    weight = after.weight[left].double()
    return robust.mix(weight[None] / weight.sum(), after.rows[left])[0]


def replaced(
    memory: Any,
    old: Tensor,
    new: Tensor,
) -> Any:
    """What a defense remembers, with ``new`` wherever it holds ``old`` to the bit.

    >>> replaced(({"last": torch.ones(2)}, 3), torch.ones(2), torch.zeros(2))
    ({'last': tensor([0., 0.])}, 3)
    """
    if isinstance(memory, Tensor):
        return new if torch.equal(memory, old) else memory
    if isinstance(memory, dict):
        return {key: replaced(value, old, new) for key, value in memory.items()}
    if isinstance(memory, (list, tuple)):
        values = [replaced(value, old, new) for value in memory]
        named = hasattr(memory, "_fields")  # a NamedTuple takes its values one by one
        return type(memory)(*values) if named else type(memory)(values)
    return memory


def _resampled(samples: Samples, generator: torch.Generator) -> Samples:
    """As many samples, drawn with replacement."""
    count = len(samples.y)
    drawn = torch.randint(count, (count,), generator=generator).to(samples.y.device)
    return Samples(samples.x[drawn], samples.y[drawn])


def benign_rows(rows: Tensor, view: AttackView) -> Tensor:
    """The honest rows (k, d) that the server will accept.

    Where the adversary sees none, they are the rows (m, d) of its own clients.
    """
    if view.honest is not None:
        finite = view.honest.amax(1).isfinite() & view.honest.amin(1).isfinite()
        if finite.any():
            return view.honest if finite.all() else view.honest[finite]  # no copy without need
    return rows.nan_to_num()
