"""AGSD: of two clusters of updates the one whose models stay undecided on adversarial inputs is
kept, but for clients whose trust has fallen below 0.

u'_i = u_i · M / ‖u_i‖,   a = M · Σ u'_j / ‖Σ u'_j‖,   M = median of ‖u_j‖
S_ij = cos(u'_i - a, u'_j - a) + cos(u_i, u_j), from 0 to 1;   two spectral clusters of S
x* = clip(x - ε Δ sign(∇_x mean(lin(-CE(f(x), y)) + lin(mean_c |f_c(x) - f̄_c|)))),   f of w + ū
s_i = mean over classes c of the deviation of [class of x* is c],   p_i = max_c of the mean
probability of c, both by the model w + u_i over all x*;   σ = softmax(s)
γ = lin(σ + exp((min σ - max σ) / (mean σ - min σ)) · softmax(-p))
T_i <- T_i + γ_i in the cluster with the larger mean of γ,   T_i - (1 - γ_i) in the other one
g = mean of u_i · M' / ‖u_i‖ over those of the first with T_i >= 0,   M' the median of their ‖u_i‖

with ū the plain mean of the updates, f̄ that of the outputs over the inputs, lin the scale from
smallest to largest as 0 to 1, and T_i = 0 of a client that was never seen. A backdoored model is
confident of its target on inputs that tell nothing.

Shapes: rows (n, d) → (n, d), of one length; equal weights, 0 for who is left out. History: a number
for each client ever seen.

Source: H. Ali, S. Nepal, S. S. Kanhere, S. Jha, "Adversarially Guided Stateful Defense Against
Backdoor Attacks in Federated Deep Learning", ACSAC 2024; formulas, ε = 0.3 and 50 held-out samples
are those of the authors' published code.

Deviations: in that code the inputs that the step begins with are noise, even over 5 % of the
range on either side of 0, of normalized data; of the held-out inputs only range and labels count,
and the step is clipped to the range of the noise. Here the noise is around the root set's mean of
each channel or feature. ``start="root"`` begins with the inputs themselves, as the abstract has it.
Noise of 1e-5 of a tensor's deviation on each kept row is left out. Spectral clusters come from
2-means with fixed starts (``platform/remedies/clusters.py``), there from draws; two rows, and rows
that are all alike, are one cluster. Clients are not drawn by trust, which that code has turned off.
1e-4 in the denominator of γ is there, too. Where all models answer alike, all rows are kept as they
are, there nothing moves. Where nobody is kept nothing moves: all rows become zero and keep their
weight. A model whose output is not finite is left out and loses 1; a gradient that is not finite
moves no input. Clients' models are judged with the server's BatchNorm statistics.

Checked: clusters, the step, trust index, trust and the aggregate against the authors' code (AGSD,
agsd_servers/agsd_id.py, agsd_attack.py and agsd_adv_attack.py at bc79729). The paper's text was out
of reach beyond its abstract.

Known to fail: nothing that was tried here got through whole, but some cluster is thrown out in
every round, attack or not.

Needs: history, model calls, a root set with labels, and each row from one client.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[1.0, -1.0], [1.1, -0.9], [0.9, -1.1], [-9.0, 9.0]]))
>>> after, trust = agsd().apply(given, {0: -3.0}, server_view())
>>> after.weight, round(trust[3])
(tensor([0., 1., 1., 0.]), -1)
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Updates, equal_weights, select
from backstop.platform.params import Range
from backstop.platform.remedies.clusters import spectral_halves

VERSION = 1
KINDS = ("image", "table")
NEEDS = ("history", "model", "root")
TAKES = "clients"

Start = Literal["noise", "root"]

_NOISE = 0.05  # on either side, of the inputs' range
_NEARLY = 1e-4  # added to what may be 0


def agsd(
    *,
    epsilon: Annotated[
        float,
        Range(0, 10, low_open=True, search=(0.03, 1.0), log=True),
        "length of the step, in ranges of the root set's inputs, ε",
    ] = 0.3,
    start: Annotated[Start, "what the step begins with: noise, or the root set's inputs"] = "noise",
) -> Defense[dict[int, float]]:
    """The trusted rows of the cluster with the larger trust index, at their median length."""

    def defended(
        updates: Updates,
        past: dict[int, float],
        view: ServerView,
    ) -> tuple[Updates, dict[int, float]]:
        rows, clients = updates.rows, updates.client.tolist()
        inputs = _adversarial(view, view.params + rows.mean(0), epsilon, start)
        answers = torch.stack([_answer(view, view.params + row, inputs) for row in rows])
        sound = answers.isfinite().flatten(1).all(1)
        gamma = torch.zeros(len(rows), dtype=torch.float64)
        gamma[sound] = _trust_index(answers[sound])
        if not gamma.any():
            return updates, past
        good = sound & _better(spectral_halves(_similarity(rows)), gamma)
        gained = gamma.where(good, gamma - 1).tolist()
        trust = {
            client: past.get(client, 0.0) + more
            for client, more in zip(clients, gained, strict=True)
        }
        good &= torch.tensor([trust[client] >= 0 for client in clients])
        return _mean_of(updates, good), {**past, **trust}

    return Defense(init=lambda view: {}, apply=defended)


def _adversarial(
    view: ServerView,
    params: Tensor,
    epsilon: float,
    start: Start,
) -> Tensor:
    """Inputs that a model (d,) is made undecided on, as many as the root set has."""
    x, y = view.root
    others = (0, *range(2, x.ndim))  # all but channel or feature
    extent = x.amax(others, keepdim=True) - x.amin(others, keepdim=True)
    if start == "noise":
        drawn = torch.rand(x.shape, generator=view.generator).to(x)
        x = x.mean(others, keepdim=True) + (2 * drawn - 1) * _NOISE * extent
    point = x.clone().requires_grad_()
    logits = view.model(params, point)
    known = -cross_entropy(logits, y, reduction="none")
    apart = (logits - logits.mean(0)).abs().mean(1)
    (gradient,) = torch.autograd.grad((_linear(known) + _linear(apart)).mean(), point)
    moved = x - epsilon * extent * gradient.nan_to_num(nan=0.0).sign()
    return moved.maximum(x.amin(others, keepdim=True)).minimum(x.amax(others, keepdim=True))


def _answer(
    view: ServerView,
    params: Tensor,
    inputs: Tensor,
) -> Tensor:
    """The logits of one model (b, classes), float64."""
    with torch.no_grad():
        return view.model(params, inputs).double().cpu()


def _trust_index(logits: Tensor) -> Tensor:
    """γ (n,) of n models from their logits (n, b, classes); 0 where all answer alike."""
    chosen = one_hot(logits.argmax(2), logits.shape[2]).double()
    spread = chosen.std(1, correction=0).mean(1).softmax(0)
    confidence = logits.softmax(2).mean(1).amax(1)
    low, high = spread.amin(), spread.amax()
    share = ((low - high) / (spread.mean() - low + _NEARLY)).exp()
    both = spread + share * (-confidence).softmax(0)
    return _linear(both) if both.amin() < both.amax() else torch.zeros_like(both)


def _linear(values: Tensor) -> Tensor:
    """From 0 to 1; 1 where all are equal."""
    low, high = values.amin(), values.amax()
    return (values - low) / (high - low) if low < high else values * 0 + 1


def _similarity(rows: Tensor) -> Tensor:
    """The sums of two cosines of all pairs, from 0 to 1 (n, n) float64."""
    length = robust.norms(rows).median()
    level = _at_length(rows, length)
    even = torch.full((1, len(rows)), 1 / len(rows), dtype=torch.float64)
    middle = _at_length(robust.mix(even, level), length)
    apart = robust.cosine_distances(rows) + robust.cosine_distances(level - middle)
    return _linear(-apart)


def _at_length(rows: Tensor, length: Tensor) -> Tensor:
    """All rows (n, d) at one length; a zero row stays."""
    own = robust.norms(rows)
    root = (length / own).where(own > 0, 0.0).sqrt().float().unsqueeze(1)
    # in two steps: a float32 holds the root of the factor for rows of any length
    return (rows * root).mul_(root)


def _better(second: Tensor, gamma: Tensor) -> Tensor:
    """Of two clusters, one of which is ``second`` (n,), the members of that with the larger mean of
    γ; everybody where it is empty.
    """
    if second.any() and gamma[second].mean() > gamma[~second].mean():
        return second
    return ~second


def _mean_of(updates: Updates, good: Tensor) -> Updates:
    """Those (n,) with equal weights, at their median length; zero rows where nobody is."""
    if not good.any():
        return updates._replace(rows=torch.zeros_like(updates.rows))
    rows = _at_length(updates.rows, robust.norms(updates.rows)[good].median())
    return equal_weights(select(updates._replace(rows=rows), good))
