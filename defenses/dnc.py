"""DnC, divide and conquer: the updates that stand out along the direction of largest variance are
left out.

Repeated: u_i restricted to b random coordinates, c_i = u_i - mean(u), v = top right singular vector
of c, s_i = ⟨c_i, v⟩²; the c·f rows with the largest s_i are bad. What is good in every repetition
is kept.

Shapes: rows (n, d) → (n, d); the weights of the others become 0.

Source: V. Shejwalkar, A. Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning
Attacks and Defenses for Federated Learning", NDSS 2021, algorithm 2; one repetition, c = 1 and
b = 10,000 are the settings of its experiments.

Deviations: kept rows are averaged by sample counts, as all defenses here, where the paper takes the
plain mean. c·f is rounded down, and at least one row is good in a repetition; where no row is good
in all of them, those are kept that are good most often. Scores that agree in nine digits are ties,
and the smaller client id is the better one. Without ``f`` it is the largest with 2f + 2 < n, as for
Krum.

Checked: projections, scores and the number that is left out against public re-implementations. One
repetition, c = 1 and b = 10,000 are remembered.

Needs: the assumed number of attackers f.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[0.0], [1.0], [1.5], [90.0]]))
>>> view = server_view()
>>> dnc(f=1).apply(given, None, view)[0].weight.tolist()
[1.0, 1.0, 1.0, 0.0]
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, select
from backstop.platform.params import Range
from backstop.platform.remedies.parameters import KrumMinority

VERSION = 2
NEEDS = ("f",)


def _scores(rows: Tensor) -> Tensor:
    """⟨c_i, v⟩² of all rows, as whole numbers of billionths of the largest: the eigenvectors of the
    products of all c are c·v.
    """
    values, vectors = torch.linalg.eigh(robust.centred_products(robust.distances(rows)))
    scores: Tensor = values[-1] * vectors[:, -1].square()
    scores = (scores / scores.max() * 1e9).round()
    return scores.nan_to_num()  # equal rows: all scores are 0


def dnc(
    *,
    f: KrumMinority = None,
    repetitions: Annotated[
        int, Range(1, 100, search=(1, 10)), "random subsets of coordinates looked at"
    ] = 1,
    coordinates: Annotated[
        int, Range(1, 10**9, log=True, search=(10**3, 10**5)), "coordinates in a subset, b"
    ] = 10_000,
    factor: Annotated[
        float, Range(0, 100, search=(0.5, 2.0)), "rows left out for each assumed attacker, c"
    ] = 1.0,
) -> Defense:
    """The rows that are good in most repetitions keep their weights."""

    def good(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        n, d = updates.rows.shape
        assumed = max((n - 3) // 2, 0) if f is None else f
        left = max(n - robust.floor_count(factor, assumed), 1)
        times = torch.zeros(n, device=updates.rows.device)
        for _ in range(repetitions):
            subset = torch.randperm(d, generator=view.generator)[:coordinates]
            scores = _scores(updates.rows[:, subset.to(updates.rows.device)])
            times[scores.argsort(stable=True)[:left]] += 1
        return select(updates, times == times.max()), state

    return Defense(apply=good)
