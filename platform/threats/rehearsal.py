"""What an adversary takes for honest updates: those it sees, or those it can train itself."""

from __future__ import annotations

import torch
from torch import Tensor

from backstop.platform.contract import AttackView, Samples


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
