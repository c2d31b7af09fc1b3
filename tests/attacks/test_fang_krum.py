"""Local model poisoning against Krum: λ, whom Krum picks, the ball around the first row, and that
it bites.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import Tensor

from backstop.attacks.fang_krum import fang_krum
from backstop.platform import robust
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view

CLAIM = Claim(
    "fang_krum",
    effect=0.3,
    weaker="fang_krum",
    bend=0.0,
    changes={"alpha": 1.0},
    untargeted=True,
    defense="krum",
)


def sent(honest: Tensor, m: int, radius: float = 0.01) -> Tensor:
    craft = fang_krum(radius=radius).craft
    assert craft is not None
    return craft(None, torch.ones(m, honest.shape[1]), replace(attack_view("table"), honest=honest))


def cohort(number: int, n: int, shared: float = 0.1) -> Tensor:
    return torch.randn(n, 30, generator=generator(0, "tests", "honest", number)) + shared


def krum(rows: list[list[float]], f: int) -> int:
    """The row with the smallest sum of squared distances to its n - f - 2 nearest."""
    scores = []
    for i, one in enumerate(rows):
        apart = sorted(
            sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
            for j, other in enumerate(rows)
            if i != j
        )
        scores.append(sum(apart[: len(rows) - f - 2]))
    return scores.index(min(scores))


def bound(honest: Tensor, m: int) -> float:
    """λ_0 of the data sheet, by loops."""
    rows, n, d = honest.double(), len(honest) + m, honest.shape[1]
    spread = []
    for i in range(len(rows)):
        apart = sorted(
            (rows[i] - rows[j]).square().sum().item() for j in range(len(rows)) if i != j
        )
        spread.append(sum(apart[: n - m - 2]))
    longest: float = rows.square().sum(1).max().item()
    return sqrt(min(spread) / ((n - 2 * m - 1) * d)) + sqrt(longest / d)


def reference(honest: Tensor, m: int) -> float:
    rows = honest.double()
    sign, factor = rows.mean(0).sign(), bound(honest, m)
    while factor >= 1e-5 and krum([*[(-factor * sign).tolist()] * m, *rows.tolist()], m) >= m:
        factor /= 2
    return factor


@pytest.mark.parametrize("shared", [0.1, 0.4])
@pytest.mark.parametrize(
    ("m", "honest"), [(1, 9), (2, 8), (3, 7), (4, 8), (4, 16), (6, 16), (8, 12)]
)
def test_the_factor_is_halved_until_krum_picks_a_malicious_row(
    m: int, honest: int, shared: float
) -> None:
    benign = cohort(m, honest, shared)
    found, factor = sent(benign, m), reference(benign, m)
    torch.testing.assert_close(found[0], (-factor * benign.double().mean(0).sign()).float())


@pytest.mark.parametrize("number", range(3))
def test_krum_picks_a_malicious_row(number: int) -> None:
    benign = cohort(number, 16)
    found = sent(benign, 6)
    assert found[0].abs().max() > 0.05
    assert robust.krum_order(torch.cat([benign, found]), 6)[0][0] >= 16
    farther = torch.cat([benign, 2 * found[:1].repeat(6, 1)])  # one step less
    assert robust.krum_order(farther, 6)[0][0] < 16


@pytest.mark.parametrize("number", range(20))
def test_beyond_the_bound_krum_never_picks_a_malicious_row(number: int) -> None:
    m, benign = number % 4 + 1, cohort(number, 7 + number % 4)
    row = -bound(benign, m) * 1.0001 * benign.mean(0).sign()
    assert robust.krum_order(torch.cat([row.repeat(m, 1), benign]), m)[0][0] >= m


def test_the_other_rows_lie_in_a_ball_around_the_first() -> None:
    found = sent(cohort(0, 12), 5, radius=0.3).double()
    far = (found - found[0]).norm(dim=1)
    assert (
        far[0] == 0
        and (far[1:] > 0).all()
        and (far <= 0.3 + 1e-6).all()
        and len(set(far.tolist())) == 5
    )
    assert torch.equal(*sent(cohort(0, 12), 2, radius=0.0))


def test_where_krum_never_agrees_the_row_shrinks_to_the_threshold() -> None:
    found = sent(torch.tensor([[1.0], [1.1], [1.2], [1.3]]), 1)
    assert -1e-5 < found.item() < -4e-6


def test_coordinates_without_a_direction_stay() -> None:
    benign = cohort(0, 8)
    padded = torch.cat([benign, torch.zeros(8, 500)], 1)
    found = sent(padded, 3, radius=0.0)
    torch.testing.assert_close(found[:, :30], sent(benign, 3, radius=0.0))
    assert not found[:, 30:].any()
    assert not sent(torch.zeros(4, 3), 2, radius=0.0).any()


@pytest.mark.parametrize(("honest", "m"), [(1, 1), (1, 5), (2, 8), (0, 1), (0, 3)])
def test_a_few_honest_clients_and_the_largest_numbers(honest: int, m: int) -> None:
    assert sent(cohort(0, honest), m).isfinite().all()
    assert sent(cohort(0, honest).sign() * 3e38, m).isfinite().all()


def test_a_client_whose_training_diverged_does_not_save_the_others() -> None:
    honest = cohort(0, 12)
    diverged = torch.cat([honest[:1] * torch.nan, honest, honest[:1] * torch.inf])
    assert torch.equal(sent(diverged, 4), sent(honest, 4))
