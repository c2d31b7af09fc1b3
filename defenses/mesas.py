"""MESAS: six measures of every local model, whole and layer by layer; while the two sides of one
about its median differ, the smaller of its two clusters is pruned.

u_i = w_i - w,   and of the whole model, then of each of its parameter tensors:
cos_i = 1 - cos(w_i, w),   eucl_i = ‖u_i‖,   count_i = #{k : u_ik > 0},   var_i = variance of u_i,
min_i = min {|u_ik| : u_ik ≠ 0},   max_i = max_k |u_ik|
of these measures x in this order: x is uneven if |x_i - median(x)| above and below the median
differ by a t, Levene or Kolmogorov-Smirnov test, or some x_i is 3 deviations or more from the mean
the smaller of two clusters of the first uneven x (Ward's) is pruned; with the others it begins
anew, until none is uneven

Shapes: rows (n, d) → (n, d), unchanged; the weights of pruned rows become 0.

Source: T. Krauß, A. Dmitrienko, "MESAS: Poisoning Defense for Federated Learning Resilient against
Adaptive Attackers", CCS 2023: the metrics, the statistical tests, clustering and the pruning loop
(remembered).

Deviations: no code of the authors was there to compare with, and the paper's text was out of reach
beyond its abstract. The order of the measures, the whole model before its layers, and beginning
anew after each step are as others wrote them down. The t test is Student's and the level 0.01, as
in the code of CrowdGuard, which has an author in common; others have Welch's, 0.05 and 0.0001. A
step is not taken that would leave no more than half of the round, nor where both clusters are of
one size. Measures count in billionths of the largest one. Buffers are not measured. Whatever else
the paper does to the aggregate is not here; sample counts weigh the kept rows.

Known to fail: in a cohort of ten. None of ten values can be 3 deviations from the mean, and tests
at 0.01 do not tell two of five from five; of twenty, four attackers are seen in most rounds.
Without an attack honest clients are pruned, since so many measures are tested.

Checked: measures (the variance is the update's), tests and the loop against public
reimplementations, which differ from each other: one, for updates of low rank, has this loop; the
one in AGSD's code keeps who passes all tests at 0.0001, and then the larger of two clusters of all
measures.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> rows = torch.cat([torch.arange(1.0, 12.0), torch.tensor([90.0])])[:, None]
>>> after, _ = mesas().apply(updates(rows * torch.tensor([0.1, -0.1])), None, server_view())
>>> after.weight
tensor([1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 0.])
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range
from backstop.platform.remedies.clusters import smaller_of_two_values
from backstop.platform.remedies.deviations import MARGIN
from backstop.platform.remedies.significance import differ

VERSION = 1
EXEMPT = ("adversarial",)  # three of ten rows are too few for its tests

_WHOLE = 1e9  # measures count in as many parts of the largest: ties do not depend on rounding
_DEVIATIONS = 3


def mesas(
    *,
    level: Annotated[
        float,
        Range(0, 1, low_open=True, search=(1e-4, 0.1), log=True),
        "level of the tests",
    ] = 0.01,
    parts: Annotated[
        Literal["layers", "model"],
        "what is measured: the model and each of its tensors, or the model alone",
    ] = "layers",
) -> Defense:
    """The rows that no measure parts from the others keep their weight."""

    def filtered(updates: Updates, view: ServerView) -> Updates:
        spans = [slice(None)]
        if parts == "layers":
            spans += [slot.span for slot in view.layout]
        table = torch.stack([_measures(row, view.params, spans) for row in updates.rows], dim=1)
        return select(updates, _kept(table, level))

    return Defense(apply=lambda updates, state, view: (filtered(updates, view), state))


def _measures(
    row: Tensor,
    params: Tensor,
    spans: list[slice],
) -> Tensor:
    """The measures of all parts of one local model (parts · 6,), float64."""
    measures = []
    for span in spans:
        moved, first = row[span].double().cpu(), params[span].double().cpu()
        local, size = first + moved, moved.abs()
        cosine = (local @ first / (local.norm() * first.norm())).nan_to_num(nan=0.0)
        measures += [
            1 - cosine,
            moved.norm(),
            (moved > 0).sum().double(),
            moved.var(correction=0),
            size[size > 0].amin() if size.any() else size.sum(),
            size.amax(),
        ]
    return torch.stack(measures)


def _kept(table: Tensor, level: float) -> Tensor:
    """The row numbers that are left, from a line of n for each measure (k, n)."""
    left = torch.arange(table.shape[1])
    pruned = True
    while pruned:
        pruned = False
        for measure in table[:, left]:
            values = (measure / (measure.abs().amax() or 1.0) * _WHOLE).round()
            smaller = smaller_of_two_values(values)
            remain = len(left) - int(smaller.sum())
            if 2 * remain > table.shape[1] and smaller.any() and _uneven(values, level):
                left, pruned = left[~smaller], True
                break
    return left


def _uneven(values: Tensor, level: float) -> bool:
    """Whether the two sides of values (n,) about their median differ, or one is far away; some
    differ.
    """
    apart, deviation = values - values.quantile(0.5), values.std(correction=0)
    far = (values - values.mean()).abs() >= _DEVIATIONS * MARGIN * deviation
    return bool(far.any()) or differ(apart[apart > 0], -apart[apart < 0], level)
