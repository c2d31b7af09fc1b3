"""DeepSight, client by client; the clusterings are scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
import numpy.typing as npt
from sklearn.cluster import HDBSCAN

from backstop.platform.contract import Slot

Array = npt.NDArray[np.float64]

LAW = False  # needs the models' scores


def deepsight(
    rows: Array, head: Sequence[Slot], scores: Sequence[Array], base: Sequence[Array]
) -> tuple[list[int], Array]:
    """The kept rows' numbers and all rows clipped; per set of inputs the local scores (n, M, P) and
    the global ones (M, P).
    """
    n = len(rows)
    shares, exceedings = [], []
    for row in rows:
        energy = []
        for neuron in range(head[0].shape[0]):
            total = 0.0
            for slot in head:
                width = int(np.prod(slot.shape[1:]))
                total += np.abs(
                    row[slot.start + neuron * width : slot.start + (neuron + 1) * width]
                ).sum()
            energy.append(total**2)
        share = [one / sum(energy) for one in energy]
        shares.append(share)
        exceedings.append(sum(one > max(0.01, 1 / len(share)) * max(share) for one in share))
    by_set = []
    for local, whole in zip(scores, base, strict=True):
        ratios = [
            [
                np.mean([local[k, m, i] / whole[m, i] for m in range(len(whole))])
                for i in range(whole.shape[1])
            ]
            for k in range(n)
        ]
        by_set.append(apart(euclidean(np.array(ratios))))
    last = rows[:, head[-1].start : head[-1].start + int(np.prod(head[-1].shape))]
    cosine = np.array(
        [
            [1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other) for other in last]
            for one in last
        ]
    )
    label = clusters(
        (apart(euclidean(np.array(shares))) + sum(by_set) / len(by_set) + apart(np.abs(cosine))) / 3
    )
    suspicious = [one <= median(exceedings) / 2 for one in exceedings]
    kept = []
    for k in range(n):
        members = [j for j in range(n) if label[j] == label[k]] if label[k] >= 0 else [k]
        if 3 * sum(suspicious[j] for j in members) < len(members):
            kept.append(k)
    lengths = [float(np.linalg.norm(row)) for row in rows]
    limit = median(lengths)
    clipped = np.array(
        [row * min(1, limit / length) for row, length in zip(rows, lengths, strict=True)]
    )
    return kept or [k for k in range(n) if exceedings[k] >= median(exceedings)], clipped


def euclidean(points: Array) -> Array:
    """Distances of all pairs."""
    return np.array([[np.linalg.norm(one - other) for other in points] for one in points])


def apart(distance: Array) -> Array:
    """1 for two rows that are not in one cluster."""
    label = clusters(distance)
    n = len(label)
    return np.array(
        [
            [float(i != j and (label[i] != label[j] or label[i] < 0)) for j in range(n)]
            for i in range(n)
        ]
    )


def clusters(distance: Array) -> list[int]:
    """Cluster numbers, -1 for outliers."""
    neighbors = min(3, len(distance) - 1)  # others
    model = HDBSCAN(
        min_cluster_size=3,
        min_samples=neighbors + 1,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,
    )
    found: list[int] = model.fit_predict(distance).tolist()
    return found
