from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backstop.defenses.lasa import lasa
from backstop.platform.contract import Slot, Updates
from backstop.platform.seeds import generator
from tests.references import lasa as twin
from tests.views import server_view

VIEW = replace(
    server_view(60),
    layout=(
        Slot("a.weight", 0, (5, 6)),
        Slot("a.bias", 30, (5,)),
        Slot("scale", 35, ()),
        Slot("b", 36, (24,)),
    ),
)


def merged(rows: torch.Tensor, weight: torch.Tensor | None = None, **params: float) -> torch.Tensor:
    given = Updates(
        rows, torch.ones(len(rows)) if weight is None else weight, torch.arange(len(rows))
    )
    return lasa(**params).apply(given, None, VIEW)[0].rows[0]


@pytest.mark.parametrize("n", [1, 2, 3, 9, 20])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.95])
def test_layers_are_filtered_one_by_one(n: int, sparsity: float) -> None:
    rows = torch.randn(n, 60, generator=generator(0, "tests", "rows", n)) + 0.3
    weight = torch.arange(1.0, n + 1)
    wanted = twin.lasa(
        rows.double().numpy(), weight.double().numpy(), sparsity, 1.0, 1.5, (30, 5, 1, 24)
    )
    found = merged(rows, weight, sparsity=sparsity, norm_radius=1.0, sign_radius=1.5)
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=1e-5, atol=1e-7)


def test_a_row_is_left_out_of_the_layer_where_it_is_bad_and_kept_elsewhere() -> None:
    rows = torch.ones(10, 60)
    rows[4, 36:] = -1.0  # the norms tell nothing: only the signs of the last layer
    found = merged(rows)
    assert torch.equal(found, torch.ones(60))
    rows[4, :30] = 1.5
    rows[4, 30:36] = 0.5  # about as long a row as the others, but with the wrong balance of layers
    found = merged(rows, sparsity=0.0, sign_radius=100.0)
    torch.testing.assert_close(found[:36], torch.ones(36))


@pytest.mark.parametrize("size", [1e3, 3e38])
def test_rows_are_clipped_to_the_median_norm(size: float) -> None:
    rows = torch.ones(5, 60)
    rows[0] = size
    torch.testing.assert_close(merged(rows, norm_radius=100.0, sign_radius=100.0), torch.ones(60))


def test_sparsification_drops_the_smallest_tenths_of_each_row() -> None:
    rows = torch.arange(1.0, 61).unsqueeze(0)
    assert torch.equal(merged(rows, sparsity=0.3), rows[0] * (rows[0] > 18))
    assert torch.equal(merged(torch.full((1, 60), -2.0), sparsity=0.9), torch.full((60,), -2.0))


def test_a_layer_without_entries_and_a_layer_that_nobody_passes_give_no_nan() -> None:
    rows = torch.zeros(4, 60)
    rows[:, 0] = torch.tensor([1.0, 2.0, -3.0, -4.0])
    assert merged(rows, norm_radius=0.0, sign_radius=0.0)[0].item() == pytest.approx(
        (1.0 + 2.0 - 2.0 - 2.0) / 4
    )
    assert not merged(rows)[1:].any()
