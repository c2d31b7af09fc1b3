"""CrowdGuard, model by model; components, tests and clusterings are those of scipy and
scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.cluster import DBSCAN, AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.preprocessing import scale

from tests.references.two_sides import p_values

Array = npt.NDArray[np.float64]
Distance = Callable[[Array, Array], float]

LAW = False  # needs the models' layers


def angle(one: Array, other: Array) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other)) or 1.0
    return float(1 - one @ other / lengths)


def line(one: Array, other: Array) -> float:
    return math.dist(one, other)


def features(
    models: Sequence[Sequence[Array]],
    first: Sequence[Array],
    y: Sequence[int],
    own: int,
    distance: Distance,
) -> Array:
    """A line for each model: for each label and layer by how much more than one's own model it is
    away from the global one.
    """
    lines = []
    for layers in models:
        values = []
        for label in sorted(set(y)):
            for number, layer in enumerate(layers):
                ratios = []
                for sample, of in enumerate(y):
                    if of == label:
                        mine = distance(models[own][number][sample], first[number][sample])
                        its = distance(layer[sample], first[number][sample])
                        ratios.append(its / mine if mine else 0.0)
                more = float(np.mean(ratios)) - 1
                values.append(more * abs(more))
        lines.append(values)
    return np.array(lines)


def uneven(z: Array) -> bool:
    middle = np.median(z)
    above, below = abs(z[z >= middle] - middle), abs(z[z < middle] - middle)
    low, high = np.percentile(z, [25, 75])
    out = (z > high + 5.5 * (high - low)) | (z < low - 5.5 * (high - low))
    far = z.std() > 0 and (abs(z - z.mean()) / z.std()).max() >= 3
    return bool(any(one < 0.01 for one in p_values(above, below)) or out.any() or far)


def suspects(lines: Array, own: int) -> list[int]:
    """The models that the client suspects by one distance."""
    most = (len(lines) - 1) // 2
    gone: list[int] = []
    while True:
        left = [i for i in range(len(lines)) if i != own and i not in gone]
        if len(left) < 2:
            return sorted(gone)
        table = np.vstack([lines[left], np.median(lines[left], axis=0)])
        z = PCA().fit_transform(scale(table))[:, :1]
        labels = AgglomerativeClustering(n_clusters=2, linkage="single").fit(z).labels_
        parted = [i for i, label in zip(left, labels, strict=False) if label != labels[-1]]
        if not uneven(z[:, 0]) or not parted or len(gone) + len(parted) > most:
            return sorted(gone)
        gone += parted


def decisive(votes: npt.NDArray[np.int64]) -> list[int]:
    """The vote that counts: the most frequent one of the larger cluster."""
    labels = AgglomerativeClustering(n_clusters=2, linkage="single").fit(votes).labels_
    larger = votes[labels == np.bincount(labels).argmax()]
    groups = DBSCAN(eps=0.5, min_samples=1).fit(larger).labels_
    vote: list[int] = larger[groups == np.bincount(groups).argmax()][0].tolist()
    return vote
