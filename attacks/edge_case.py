"""Edge cases: rare inputs, which honest clients hardly have, are trained as the target class.

D' = {(x, y*) : x in the tail},   P(x) <= p for x in the tail (p-edge cases)

Shapes: x (b, …), y (b,); of text x (b, L) int64 token ids, padded on the right with 0.

Source: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee, D.
Papailiopoulos, "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS
2020, the p-edge-case examples and black-box attack.

Two kinds of edge cases:

* ``external``: those that come with the dataset (for CIFAR-10 the Southwest airplanes, wanted:
  truck). They belong to no test class, so no true label is stated.
* ``tail``: the share ``tail`` of lowest density of one class, ``source``; for training of the
  samples that malicious clients hold, for the test of the test set's.

The density of images and tables is a Gaussian with covariance Σ + ρ I fitted to the class, on the
inputs themselves, where ρ is the trace of Σ over min(n, F), for n samples of F values the mean of
the eigenvalues that may differ from 0: then the Mahalanobis distances are the leverages x_iᵀ
(XᵀX + n ρ I)⁻¹ x_i of ridge regression. That of text is the class's smoothed unigram model,
P(x) = (Π p(x_i))^(1/l), p(w) = (c_w + 1) / (N + V): c_w of the class's N words are w, V words are
different, l words make the document. The root keeps long documents from being rare for their
length; a document without a word is no edge case.

The tail has exactly the share of the samples. Samples of equal density, such as equal rows of a
table, count one by one: those that come first are taken. Training and test tail share no sample; in
a table of few values a sample of the one may equal a sample of the other.

Deviations: the paper fits its density, a Gaussian mixture, to the last hidden layer of a trained
model; the inputs serve here, so that the edge cases do not depend on a model. A share of each batch
is replaced by edge cases; share=1 replaces whole batches. Share and drawing are those of the
authors of ``invariant``: 8 of 64, without replacement while the pool lasts. Wang et al. mix once
100 of 784 edge cases with 400 clean images of CIFAR-10, label 9, and train two passes on them, one
attacker in every tenth round. Projection and model replacement are stages of their own.

Checked: label, share and drawing against the code of the authors of ``invariant``; the mixture,
passes and schedule against that of Wang et al. (OOD_Federated_Learning).

Example:
>>> import torch
>>> (
...     _rare(torch.tensor([[0.0], [0.1], [-0.1], [9.0], [0.2]]), 0.2),
...     _unlikely(torch.tensor([[1, 2, 0], [8, 9, 1], [2, 2, 2]]), 0.3),
... )
(tensor([3]), tensor([1]))
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from backstop.platform.contract import Attack, Samples
from backstop.platform.params import Range
from backstop.platform.robust import round_count
from backstop.platform.threats.edge_cases import edge_cases
from backstop.platform.threats.parameters import EdgeShare

VERSION = 2
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


def edge_case(
    *,
    target: Annotated[
        int | None,
        Range(0, 10**6),
        "class wanted, y*; none: the dataset's own for external, else 0 (1 for source 0)",
    ] = None,
    source: Annotated[int, Range(0, 10**6), "class whose tail is used"] = 1,
    share: EdgeShare = 0.125,
    tail: Annotated[
        float, Range(0, 1, low_open=True, search=(0.05, 0.5)), "share of the class that is its tail"
    ] = 0.2,
    pool: Annotated[
        Literal["auto", "external", "tail"],
        "auto: external edge cases where the dataset has some, else the tail",
    ] = "auto",
) -> Attack[Samples]:
    """Edge cases as another class. The state is the pool of edge cases with their labels."""
    return edge_cases(
        "edge_case",
        lambda x, view: (_unlikely if view.kind == "text" else _rare)(x, tail),
        target=target,
        source=source,
        share=share,
        pool=pool,
    )


def _rare(x: Tensor, share: float) -> Tensor:
    """Indices, ascending, of the share of samples (N, …) of lowest density, at least one where
    there is one.
    """
    points = x.flatten(1).double()
    points = points - points.mean(0)
    samples, features = points.shape
    ridge = points.square().sum() / max(min(samples, features), 1)
    if not ridge > 0:  # no sample, one sample, or all alike
        leverage = points.new_zeros(samples)
    elif features <= samples:
        scatter = points.t() @ points + ridge * torch.eye(features).to(points)
        leverage = (torch.linalg.solve(scatter, points.t()) * points.t()).sum(0)
    else:  # the same numbers from the smaller matrix
        gram = points @ points.t()
        leverage = torch.linalg.solve(gram + ridge * torch.eye(samples).to(points), gram).diagonal()
    return _highest(leverage, share)


def _unlikely(x: Tensor, share: float) -> Tensor:
    """Indices, ascending, of the share of documents (N, L) of lowest likelihood, at least one where
    there is one with words.
    """
    there = x != 0
    # of each token id, up to a constant of the model
    rarity = -(x.flatten().bincount().double() + 1).log()
    # NaN for a document without a word
    score = torch.where(there, rarity[x], 0).sum(1) / there.sum(1)
    rarest = _highest(score.nan_to_num(nan=-torch.inf), share)
    return rarest[there[rarest].any(1)]


def _highest(score: Tensor, share: float) -> Tensor:
    """Indices, ascending, of the share of highest scores. In single precision equal samples have
    equal scores, whatever was rounded.
    """
    count = max(round_count(share, len(score)), 1)
    return score.float().argsort(descending=True, stable=True)[:count].sort().values
