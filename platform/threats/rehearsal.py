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
        x, y = view.own(holders[row % len(holders)])
        if row >= len(holders):
            drawn = torch.randint(len(y), (len(y),), generator=view.generator).to(y.device)
            x, y = x[drawn], y[drawn]
        rows.append(view.train(view.params, Samples(x, y)))
    return torch.stack(rows)


def benign_rows(rows: Tensor, view: AttackView) -> Tensor:
    """The honest rows (k, d) that the server will accept.

    Where the adversary sees none, they are the rows (m, d) of its own clients.
    """
    honest = rows[:0] if view.honest is None else view.honest[view.honest.isfinite().all(1)]
    return honest if len(honest) else rows.nan_to_num()
