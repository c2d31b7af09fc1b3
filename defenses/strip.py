"""STRIP: the final model is asked about each input blended with clean ones; where it stays sure of
one label whatever is blended in, it keeps quiet.

H(x) = (1/N) Σ_n -Σ_c p_c log₂ p_c,   p = softmax(f(min(x + x_n, 1)))
at test: the label argmax_c f(x)_c where H(x) >= μ + σ Φ⁻¹(β), none elsewhere

x_1 … x_N are drawn from the root set, with replacement; μ and σ are the mean and the deviation of
H over the root set. A patch is still there in a blend, so that a backdoored model's answer hardly
changes, while a clean input's does.

Shapes: rows pass unchanged; logits (N, classes) → labels (N,), -1 where rejected.

Source: Y. Gao, C. Xu, D. Wang, S. Chen, D. C. Ranasinghe, S. Nepal, "STRIP: A Defence Against
Trojan Attacks on Deep Neural Networks", ACSAC 2019: superimposed inputs, normalized entropy
(equation 4) and the boundary from a preset false rejection rate β; N = 100.

Deviations: all inputs meet the same N draws, where the authors draw for each input anew. The
boundary comes from the root set, some tens of samples blended with each other, where theirs comes
from 2,000 held-out inputs; β is 1 % in most of their tables and 5 % here, since so small a set says
little about its tails. Inputs are blended by addition, cut to the range, as their code does with
photographs.

Known to fail: what has no patch that outlives a blend. On digits it rejects 92 % of inputs with a
patch, 99 % of F3BA's and 82 % of IBA's, at 8 % of clean ones, and none of those that ``wanet``
warps or that ``semantic`` and ``edge_case`` take as they are.

Checked: remembered; neither the paper's text nor its code was looked at again.

Needs: a root set and calls of the model at test, 1 + N for each input; images.

Example: the second input wins every blend.
>>> import torch
>>> from backstop.platform.contract import PredictView, Samples
>>> x = torch.tensor([[0.1, 0.0], [0.0, 0.9]]).view(2, 1, 1, 2)
>>> def model(params, x): return 20 * x.flatten(1)
>>> def scores(params, change=None): return model(params, change(x) if change else x)
>>> root = Samples(torch.tensor([[0.2, 0.1], [0.1, 0.2]]).view(2, 1, 1, 2), torch.tensor([0, 1]))
>>> view = PredictView(torch.zeros(1), scores, torch.Generator(), model, root)
>>> strip(blends=8).predict(view).label
tensor([ 0, -1])
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log
from statistics import NormalDist
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Defense, Prediction, PredictView
from backstop.platform.params import Range

VERSION = 1
KINDS = ("image",)
NEEDS = ("model", "root")
TAKES = "row"
PREDICTS = "blends"
EXEMPT = ("adversarial",)  # rows pass unchanged: what the defense rejects are inputs


def strip(
    *,
    blends: Annotated[
        int, Range(0, 10**4, search=(10, 200), log=True), "clean inputs blended in, N; 0: none"
    ] = 100,
    refused: Annotated[
        float,
        Range(0, 1, low_open=True, high_open=True, search=(0.005, 0.2), log=True),
        "share of clean inputs that may be rejected, β",
    ] = 0.05,
) -> Defense:
    """Inputs whose blends all have one sure label are given none."""

    def predict(view: PredictView) -> Prediction:
        assert view.root is not None
        assert view.model is not None
        model, clean = view.model, view.root.x
        drawn = torch.randint(len(clean), (blends,), generator=view.generator)
        others = clean[drawn.to(clean.device)]
        usual = _entropy(lambda change: model(view.params, change(clean)), others)
        spread = usual.std(correction=0)
        boundary = usual.mean() + spread * NormalDist().inv_cdf(refused)
        unsure = _entropy(lambda change: view.scores(view.params, change), others) >= boundary
        return Prediction(view.scores(view.params).argmax(1).where(unsure, -1))

    return Defense(predict=predict if blends else None)


def _entropy(
    answer: Callable[[Callable[[Tensor], Tensor]], Tensor],
    others: Tensor,
) -> Tensor:
    """H (N,) float64 of inputs, from what a model answers once they are changed, over all inputs
    (n, …) that are blended in.
    """
    bits = []
    for other in others:
        logits = answer(partial(_blended, other)).double()
        bits.append(-(logits.softmax(1) * logits.log_softmax(1)).sum(1) / log(2))
    return torch.stack(bits).mean(0)


def _blended(other: Tensor, x: Tensor) -> Tensor:
    return (x + other).clamp_max(1)
