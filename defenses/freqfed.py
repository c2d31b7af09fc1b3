"""FreqFed: updates are told apart by the low frequencies of their weights; the largest cluster is
kept.

V = DCT-II(W) of each weight W (H, W), along both axes
F_i = V_ab for a <= H/2, b <= W/2, a + b <= (H + W)/4, of all weights
c_ij = 1 - cos(F_i, F_j),   g = mean of u_i over the largest cluster of HDBSCAN(c)

with the weights W of the local models w + u_i, or those of the updates u_i.

Shapes: rows (n, d) → (n, d); rows outside the cluster get weight 0. A convolution's weight (O, I,
K, K) is a matrix (O, I · K · K).

Source: H. Fereidooni, A. Pegoraro, P. Rieger, A. Dmitrienko, A.-R. Sadeghi, "FreqFed: A Frequency
Analysis-Based Approach for Mitigating Poisoning Attacks in Federated Learning", NDSS 2024, the
frequency analysis, filtering and clustering; clusters of at least two rows, and a density by the
nearest other row, are those of the implementation in SecretFlow.

Deviations: SecretFlow's implementation transforms local models, and so does this; the paper speaks
of model updates, too, which ``compared=updates`` transforms. It looks at the last layer's weight
alone (``layers=head``), here every weight counts. Numbers of coefficients are rounded down,
but at least one along each axis counts. An outlier is in no cluster, where that implementation
lets outliers be the largest cluster; without any cluster all rows are kept. Of clusters of one
size the tighter is kept. There are two clusters or more, attack or not, as in that implementation;
so honest rows are left out, too. Distances count in millionths of the largest. Up to two rows are
kept, and all where they are alike.

Known to fail: attackers that stay nearer to the middle than honest clients, as with
``alie_backdoor``, are in the largest cluster.

Checked: transform, filter, distance, HDBSCAN and mean by sample counts against SecretFlow's
agg_freqfed.py (examples/security/h_bd at 9d72928), which is not the authors'; their code was not
found and the paper's text was out of reach.

Example:
>>> import torch
>>> from dataclasses import replace
>>> from backstop.platform.contract import Slot
>>> from backstop.platform.examples import server_view, updates
>>> view = replace(server_view(torch.zeros(16)), layout=(Slot("weight", 0, (4, 4)),))
>>> smooth, rough = torch.ones(16), torch.tensor([1.0, -1.0]).repeat(8)
>>> rows = [smooth + 0.1 * rough, smooth, smooth - 0.1 * rough, -smooth, -smooth + rough]
>>> freqfed().apply(updates(torch.stack(rows)), None, view)[0].weight  # high ones do not count
tensor([1., 1., 1., 0., 0.])
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from backstop.platform import robust
from backstop.platform.contract import Defense, ServerView, Slot, Updates, select
from backstop.platform.remedies.clusters import MILLIONTHS, hdbscan

VERSION = 1


def _cosines(values: Tensor) -> Tensor:
    """The first half of the orthonormal DCT-II (…, max(N // 2, 1)) of the last axis (…, N)."""
    n = values.shape[-1]
    frequencies = torch.arange(max(n // 2, 1), device=values.device)
    # the even places, then the odd ones backwards, have a Fourier transform that holds the cosines
    folded = torch.cat([values[..., ::2], values[..., 1::2].flip(-1)], dim=-1)
    turned = torch.fft.fft(folded)[..., : len(frequencies)]
    waves = turned * torch.exp(-0.5j * math.pi * frequencies.double() / n)
    cosines: Tensor = waves.real * math.sqrt(2 / n)
    return cosines * torch.where(frequencies == 0, math.sqrt(0.5), 1.0)


def _low(matrix: Tensor) -> Tensor:
    """The low frequencies of a weight (H, W) as one vector, float64."""
    height, width = matrix.shape
    spectrum = _cosines(_cosines(matrix.double()).t()).t()
    down, right = (torch.arange(size, device=matrix.device) for size in spectrum.shape)
    return spectrum[down[:, None] + right <= (height + width) // 4]


def _weights(view: ServerView, layers: str) -> list[Slot]:
    """The tensors with two axes or more of the model or of its head; all, where it has none."""
    slots = view.head if layers == "head" else view.layout
    return [slot for slot in slots if len(slot.shape) > 1] or list(slots)


def _largest(distance: Tensor) -> Tensor:
    """Which rows are in the largest cluster (n,), by their distances (n, n); of several the
    tightest; all rows, where there is none.
    """
    everybody = torch.ones(len(distance), dtype=torch.bool)
    if len(distance) <= 2 or not distance.any():
        return everybody
    # in millionths of the largest: of local models all are small
    distance = (distance / distance.max() * MILLIONTHS).round()
    label = hdbscan(distance, smallest=2, samples=2, single=False)
    members = [label == cluster for cluster in range(int(label.max()) + 1)]
    return max(
        members,
        key=lambda those: (int(those.sum()), -distance[those][:, those].sum().item()),
        default=everybody,
    )


def freqfed(
    *,
    layers: Annotated[
        Literal["all", "head"], "weights whose frequencies are compared: all, or the output layer's"
    ] = "all",
    compared: Annotated[
        Literal["models", "updates"], "what is transformed: local models, or updates"
    ] = "models",
) -> Defense:
    """The rows of the largest cluster by low frequencies keep their weight."""

    def filtered(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        slots = _weights(view, layers)
        spectra = []
        for row in updates.rows:
            vector = (row + view.params).nan_to_num() if compared == "models" else row
            low = [_low(slot.of(vector).reshape(*slot.shape[:1], -1)) for slot in slots]
            spectra.append(normalize(torch.cat(low), dim=0).float())
        distance = robust.cosine_distances(torch.stack(spectra)).cpu()
        return select(updates, _largest(distance)), state

    return Defense(apply=filtered)
