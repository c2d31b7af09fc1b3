from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import sklearn.cluster
import torch
from torch import Tensor

from backstop.defenses.deepsight import _energies, _ratios, _together, deepsight
from backstop.platform import robust
from backstop.platform.contract import Samples, ServerView, Slot, Updates
from backstop.platform.seeds import generator
from tests.references import deepsight as twin
from tests.views import model, server_view

CLASSES = 8


def view(**changes: Any) -> ServerView:
    """The whole row is an output layer of 8 neurons with one weight and one bias each; all models
    predict the same.
    """
    head = (Slot("head.weight", 0, (CLASSES, 1)), Slot("head.bias", CLASSES, (CLASSES,)))
    return replace(
        server_view(2 * CLASSES),
        head=head,
        model=lambda params, x: torch.zeros(len(x), CLASSES),
        classes=CLASSES,
        **changes,
    )


def breaking() -> ServerView:
    """Models of large parameters give infinite outputs."""
    return replace(
        view(),
        model=lambda params, x: (
            torch.zeros(len(x), CLASSES) + (torch.inf if params[0] > 1e6 else 0.0)
        ),
    )


def filtered(rows: Tensor, seen: ServerView | None = None, samples: int = 16) -> Updates:
    given = Updates(rows, torch.ones(len(rows)), torch.arange(len(rows)))
    return deepsight(samples=samples).apply(given, None, seen or view())[0]


def kept(after: Updates) -> list[int]:
    return after.weight.nonzero().flatten().tolist()


def noise(n: int, d: int = 2 * CLASSES, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def honest(n: int) -> Tensor:
    """Updates for all labels, in one common direction."""
    return 1 + 0.05 * noise(n)


def single(n: int) -> Tensor:
    """Updates for one label only."""
    rows = 0.01 * noise(n, name="single").abs()
    rows[:, [2, 2 + CLASSES]] += 3
    return rows


def test_a_cluster_of_suspicious_models_is_removed_and_the_other_kept() -> None:
    rows = torch.cat([single(2), honest(12), single(4)[2:]])
    assert kept(filtered(rows)) == list(range(2, 14))


class Clustering:
    """Stands in for HDBSCAN: every clustering finds these labels."""

    labels: ClassVar[list[int]] = []

    def __init__(self, **settings: Any) -> None:
        assert settings["metric"] == "precomputed"

    def fit_predict(self, distance: Any) -> Any:
        assert distance.shape == (len(self.labels), len(self.labels))
        return np.array(self.labels)


@pytest.mark.parametrize(
    ("labels", "left"),
    [
        ([0] * 10, range(10)),  # 3 of 10 suspicious: less than a third
        # 3 of 9: removed, and as there is no other cluster the rows of large TE stay
        ([0] * 9, range(3, 9)),
        ([0] * 3 + [1] * 3 + [-1] * 3, range(3, 9)),
        ([-1] * 10, range(3, 10)),  # outliers by their own label
        ([0, -1, -1] + [0] * 6, [0, *range(3, 9)]),
    ],
)
def test_a_cluster_is_removed_from_a_third_of_suspicious_members_on(
    labels: list[int], left: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sklearn.cluster, "HDBSCAN", Clustering)
    monkeypatch.setattr(Clustering, "labels", labels)
    assert kept(filtered(torch.cat([single(3), honest(len(labels) - 3)]))) == list(left)


def test_the_last_resort_leaves_out_broken_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sklearn.cluster, "HDBSCAN", Clustering)
    monkeypatch.setattr(Clustering, "labels", [0] * 9)
    rows = torch.cat([single(3), honest(6)])
    rows[5] *= 1e20
    assert kept(filtered(rows, breaking())) == [3, 4, 6, 7, 8]


@pytest.mark.parametrize(("classes", "energy"), [(CLASSES, 0.3), (200, 0.08)])
def test_energies_that_count_exceed_a_hundredth_and_an_even_share_of_the_largest(
    classes: int, energy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.3² is less than 1/8, and 0.08² more than 1/200 but less than 1/100.
    monkeypatch.setattr(sklearn.cluster, "HDBSCAN", Clustering)
    monkeypatch.setattr(Clustering, "labels", [-1] * 6)
    rows = 1 + 0.01 * noise(6, classes)
    rows[:2, 1:] *= energy
    seen = replace(
        view(), head=(Slot("head.weight", 0, (classes, 1)),), params=torch.zeros(classes)
    )
    assert kept(filtered(rows, seen)) == [2, 3, 4, 5]


@pytest.mark.parametrize(("layers", "width"), [(1, 24), (2, 4)])
def test_directions_are_those_of_the_bias_where_there_is_one(
    layers: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def spy(rows: Tensor) -> Tensor:
        seen.append(rows)
        return torch.ones(5, 5)

    monkeypatch.setattr(robust, "cosine_distances", spy)
    head = (Slot("head.weight", 2, (4, 6)), Slot("head.bias", 26, (4,)))[:layers]
    rows = noise(5, 31)
    filtered(rows, replace(view(), head=head, params=torch.zeros(31)))
    (given,) = seen
    part = rows[:, head[-1].start : head[-1].start + width]
    torch.testing.assert_close(given, part)


def test_energies_by_hand() -> None:
    rows = torch.zeros(2, 2 * CLASSES)
    rows[0, [0, 1]], rows[0, CLASSES] = torch.tensor([2.0, -1.0]), -1.0  # |2| + |-1| = 3 and 1
    found = _energies(rows, view())
    assert found[0].tolist() == pytest.approx([0.9, 0.1, *[0.0] * 6]) and not found[1].any()


def test_ratios_by_hand() -> None:
    # Scores 3/4 and 1/4 where the global model gives 1/2 and 1/2.
    seen = replace(view(), params=torch.zeros(2), model=lambda params, x: params.expand(len(x), 2))
    found = _ratios(torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]), seen, 5)
    torch.testing.assert_close(
        found, torch.tensor([[1.5, 0.5], [1.0, 1.0]]).double().expand(3, 2, 2), rtol=1e-6, atol=0
    )


def test_rows_are_clipped_to_the_median_norm_of_all() -> None:
    rows = torch.cat([honest(6), 100 * single(3)])
    rows[0] *= 7
    after, lengths = filtered(rows), rows.norm(dim=1)
    # of nine
    torch.testing.assert_close(after.rows.norm(dim=1), lengths.clamp(max=lengths.median()))


@pytest.mark.parametrize("layers", [1, 2])
def test_agrees_with_the_reference(layers: int) -> None:
    features, classes, samples = 6, 4, 12
    d = features * classes + classes
    head = (
        Slot("head.weight", 0, (classes, features)),
        Slot("head.bias", features * classes, (classes,)),
    )[:layers]
    removed = 0
    for number in range(4):
        rows = 0.1 * noise(14, d, f"rows {number}")
        rows[:5] = rows[0] * (1 + 0.1 * noise(5, d, "near"))
        rows[5:8] *= 0.1
        rows[5:8, :features] += 1
        seen = replace(server_view(d, number), head=head, model=model)
        x, draws = seen.root.x, generator(0, "tests", "defense", number)
        sets = [
            x.amin(0) + torch.rand(samples, features, generator=draws) * (x.amax(0) - x.amin(0))
            for _ in range(3)
        ]
        scores = [
            torch.stack([model(seen.params + row, one) for row in rows]).double().softmax(2).numpy()
            for one in sets
        ]
        base = [model(seen.params, one).double().softmax(1).numpy() for one in sets]
        wanted, clipped = twin.deepsight(rows.double().numpy(), head, scores, base)
        after = filtered(rows, seen, samples)
        assert kept(after) == wanted
        np.testing.assert_allclose(after.rows, clipped, rtol=1e-5)
        removed += len(rows) - len(wanted)
    assert removed


def test_a_model_without_finite_outputs_is_removed() -> None:
    rows = honest(8)
    rows[5] = 3e38
    after = filtered(rows, breaking())
    assert kept(after) == [0, 1, 2, 3, 4, 6, 7] and after.rows.isfinite().all()


def test_a_broken_global_model_rejects_nobody() -> None:
    after = filtered(
        honest(8), replace(view(), model=lambda params, x: torch.full((len(x), CLASSES), torch.nan))
    )
    assert kept(after) == list(range(8))


@pytest.mark.parametrize(
    ("known", "low", "high"), [((7, 3, 4, 5), 0.0, 1.0), ((2, 2), [-9.0, 50.0], [-1.0, 70.0])]
)
def test_random_inputs_have_the_shape_and_the_range_of_the_data(
    known: tuple[int, ...], low: Any, high: Any
) -> None:
    seen: list[Tensor] = []

    def outputs(params: Tensor, x: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros(len(x), CLASSES)

    x = torch.tensor([[-9.0, 70.0], [-1.0, 50.0]]) if len(known) == 2 else torch.full(known, 0.5)
    filtered(honest(3), replace(view(root=Samples(x, torch.zeros(len(x)))), model=outputs), 600)
    found, low, high = torch.cat(seen[:2]), torch.tensor(low), torch.tensor(high)
    # three sets, four models, two batches
    assert found.shape == (600, *known[1:]) and len(seen) == 3 * (1 + 3) * 2
    assert (found >= low).all() and (found <= high).all()
    assert ((found.amin(0) - low) < 0.05 * (high - low)).all() and (
        (high - found.amax(0)) < 0.05 * (high - low)
    ).all()
    assert not torch.equal(seen[0], seen[8])


def test_density_is_the_distance_to_the_third_other_row() -> None:
    """Pairs that are near each other, three of them close: with two neighbors they hang together
    otherwise than with three.
    """
    points = torch.tensor([0.0, 0.1, 1.0, 1.1, 2.0, 2.1, 9.0, 9.1, 9.2, 20.0]).double()
    distance = (points[:, None] - points).abs()
    together = _together(distance)
    core = distance.sort(dim=1).values[:, 3]  # the first is the row itself
    reach = torch.maximum(torch.maximum(core[:, None], core), distance).fill_diagonal_(0)
    plain = sklearn.cluster.HDBSCAN(
        min_cluster_size=3,
        min_samples=1,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,
    )
    label = torch.from_numpy(plain.fit_predict(reach.numpy()))
    assert torch.equal(together, ((label[:, None] == label) & (label >= 0)).fill_diagonal_(True))
