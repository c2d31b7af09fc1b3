from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses import flare as module
from backstop.defenses.flare import flare
from backstop.platform.contract import Samples, ServerView, Updates
from backstop.platform.seeds import generator
from tests.references import flare as twin
from tests.views import features, server_view


def view(d: int) -> ServerView:
    """Representations: the input moved by the parameters."""
    x = torch.randn(20, d, generator=generator(0, "tests", "inputs"))
    return replace(
        server_view(d),
        params=torch.zeros(d),
        root=Samples(x, torch.zeros(20)),
        features=lambda params, x: x + params,
    )


def weights(rows: Tensor, seen: ServerView, weight: Tensor | None = None, **params: Any) -> Tensor:
    given = Updates(
        rows, torch.ones(len(rows)) if weight is None else weight, torch.arange(len(rows))
    )
    after = flare(**params).apply(given, None, seen)[0]
    assert torch.equal(after.rows, rows)
    return after.weight


def noise(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", "rows"))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 3.0, "voting": 0.3},
        {"samples": 3},
        {"voting": 1.0},
        {"width": "median"},
        {"voting": 0.1},
    ],
)
def test_agrees_with_the_reference(params: dict[str, Any]) -> None:
    rows, seen = 0.5 * noise(9, 24), server_view(24)
    rows[[2, 6]] += 1
    inputs = seen.root.x[seen.root.y == 0][: int(params.get("samples", 200))]
    assert len(inputs) == (3 if "samples" in params else 5)
    table = torch.stack([features(seen.params + row, inputs) for row in rows]).double().numpy()
    wanted = twin.flare(
        table,
        params.get("voting", 0.5),
        params.get("temperature", 1.0),
        params.get("width", "features"),
    )
    np.testing.assert_allclose(weights(rows, seen, **params).numpy(), 9 * wanted, rtol=1e-5)


def test_a_minority_far_from_the_others_is_trusted_less() -> None:
    rows = 0.1 * noise(10, 6)
    rows[[0, 4, 9]] += 3
    left = weights(rows, view(6))
    assert left[[0, 4, 9]].sum() < 0.2 * left.sum()  # they vote for each other


def test_only_the_representations_count() -> None:
    rows = torch.cat([0.1 * noise(8, 6), torch.zeros(8, 2)], 1)
    rows[3, 6:] = 1e4  # parameters that do not reach the last layer's input
    seen = replace(view(6), params=torch.zeros(8), features=lambda params, x: x + params[:6])
    torch.testing.assert_close(weights(rows, seen), weights(rows[:, :6].contiguous(), view(6)))


def test_the_rounds_weight_is_dealt_out_whatever_the_sample_counts() -> None:
    counts = torch.tensor([1.0, 2.0, 3.0, 94.0])
    left = weights(noise(4, 6), view(6), counts)
    torch.testing.assert_close(left, 25 * weights(noise(4, 6), view(6)))
    assert left.sum().item() == pytest.approx(100)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_model_without_finite_representations_is_not_trusted(bad: float) -> None:
    rows = 0.1 * noise(6, 6)
    rows[2] = 3e38
    seen = replace(
        view(6), features=lambda params, x: x + params + (bad if params.max() > 1e30 else 0.0)
    )
    left = weights(rows, seen)
    assert left[2] == 0
    torch.testing.assert_close(
        left[[0, 1, 3, 4, 5]] / 6, weights(rows[[0, 1, 3, 4, 5]], view(6)) / 5
    )


def test_without_any_finite_representation_the_weights_stay() -> None:
    seen = replace(view(6), features=lambda params, x: x * torch.nan)
    assert weights(noise(3, 6), seen, torch.tensor([1.0, 2.0, 3.0])).tolist() == [1, 2, 3]


@pytest.mark.parametrize("samples", [1, 2])
def test_few_inputs_suffice(samples: int) -> None:
    rows = torch.tensor([[0.0], [0.1], [0.2], [0.3], [50.0]])
    left = weights(rows, view(1), samples=samples)
    assert left[4] == left.min() and left[4] < 0.2 * left.max()


def test_trust_is_relative_to_the_mean_of_the_votes() -> None:
    votes = torch.tensor([2.0, 3.0, 3.0, 0.0], dtype=torch.float64)
    found = module._trust(votes, 1.0)
    np.testing.assert_allclose(found.numpy(), [0.21435, 0.35340, 0.35340, 0.07885], atol=5e-6)
    # a rejected row keeps this much in any round
    torch.testing.assert_close(module._trust(10 * votes, 1.0), found)


def test_each_row_has_half_of_the_rows_less_one_as_votes() -> None:
    apart = torch.arange(7.0).unsqueeze(0).sub(torch.arange(7.0).unsqueeze(1)).abs().double()
    assert module._votes(apart, 0.5).sum() == 7 * 2
    assert module._votes(apart[:3, :3], 0.5).sum() == 0


def test_inputs_are_of_the_class_that_the_root_set_has_most_of() -> None:
    root = Samples(torch.arange(8.0).unsqueeze(1), torch.tensor([2, 0, 1, 2, 1, 2, 0, 1]))
    seen = replace(view(1), root=root)
    assert module._of_one_class(seen, 200).flatten().tolist() == [2.0, 4.0, 7.0]
    assert module._of_one_class(seen, 2).flatten().tolist() == [2.0, 4.0]
