from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backstop.defenses.spectral_signatures import spectral_signatures
from backstop.platform.contract import Samples, ServerView, Updates
from backstop.platform.seeds import generator
from tests.references import spectral_signatures as twin
from tests.views import features, server_view


def kept(rows: Tensor, seen: ServerView, share: float = 0.2) -> list[int]:
    given = Updates(rows, torch.ones(len(rows)), torch.arange(len(rows)))
    after = spectral_signatures(share=share).apply(given, None, seen)[0]
    assert torch.equal(after.rows, rows)
    return after.weight.nonzero().flatten().tolist()


def noise(n: int, d: int, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def by_class(d: int) -> ServerView:
    """The parameters move the representations of class 2 only."""
    root = Samples(
        torch.cat([torch.arange(12.0)[:, None] % 4, noise(12, d, "inputs")], 1),
        torch.arange(12) % 4,
    )
    return replace(
        server_view(d),
        params=torch.zeros(d),
        root=root,
        features=lambda params, x: x[:, 1:] + (x[:, :1] == 2).float() * params,
    )


def test_models_that_see_one_class_otherwise_are_removed() -> None:
    rows = 0.1 * noise(20, 8)
    rows[[3, 8, 11, 17]] += 0.4 * torch.ones(8)
    rows[:, 0] *= 3  # a wide direction of all rows, which is not the widest
    # ⌊1.5 · 0.14 · 20⌋ = 4
    assert kept(rows, by_class(8), share=0.14) == [i for i in range(20) if i not in {3, 8, 11, 17}]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.45])
def test_agrees_with_the_reference(share: float) -> None:
    rows, seen = noise(11, 24), server_view(24)
    table = [features(seen.params + row, seen.root.x).double().numpy() for row in rows]
    assert kept(rows, seen, share) == twin.spectral_signatures(table, seen.root.y.tolist(), share)


@pytest.mark.parametrize(
    ("n", "share", "left"),
    [
        (20, 0.2, 14),
        (20, 0.1, 17),
        (10, 0.0, 10),
        (3, 0.5, 1),
        (2, 0.5, 1),
        (1, 0.5, 1),
        (7, 0.1, 6),
    ],
)
def test_how_many_are_removed(n: int, share: float, left: int) -> None:
    assert len(kept(noise(n, 24), server_view(24), share)) == left


def test_classes_that_the_root_set_lacks_do_not_matter() -> None:
    seen = by_class(8)
    only = replace(seen, root=Samples(*(part[seen.root.y == 2] for part in seen.root)))
    rows = 0.1 * noise(10, 8)
    assert kept(rows, only) == kept(rows, seen)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_models_without_finite_representations_are_removed_first(share: float) -> None:
    rows = noise(10, 24)
    rows[[2, 5]] = 3e38
    seen = replace(
        server_view(24),
        features=lambda params, x: x + (torch.nan if params.max() > 1e30 else params[:6]),
    )
    left = kept(rows, seen, share)
    assert len(left) == (8 if share == 0 else 7) and not {2, 5} & set(left)


def test_without_any_finite_representation_one_row_is_left() -> None:
    assert kept(
        noise(4, 24), replace(server_view(24), features=lambda params, x: x * torch.nan)
    ) == [0]


def test_a_huge_representation_hides_nothing_but_itself() -> None:
    rows = 0.1 * noise(10, 8)
    rows[4] = 3e37
    assert 4 not in kept(rows, by_class(8), share=0.1)
