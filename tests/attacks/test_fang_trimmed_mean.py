"""Local model poisoning against the trimmed mean: the intervals, what they do to it, and that it
bites.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from backstop.attacks.fang_trimmed_mean import fang_trimmed_mean
from backstop.platform import robust
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view

CLAIM = Claim(
    "fang_trimmed_mean(b=4)",
    effect=0.4,
    weaker="fang_trimmed_mean(b=1)",
    bend=0.3,
    changes={"malicious": 0.4, "alpha": "shards"},
    untargeted=True,
)

HONEST = torch.randn(8, 200, generator=generator(0, "tests", "honest")) + torch.linspace(-2, 2, 200)


def sent(honest: Tensor, m: int = 3, b: float = 2.0) -> Tensor:
    craft = fang_trimmed_mean(b=b).craft
    assert craft is not None
    return craft(None, torch.ones(m, honest.shape[1]), replace(attack_view("table"), honest=honest))


def interval(values: list[float], b: float) -> tuple[float, float]:
    """Where the paper draws from, case by case."""
    if sum(values) < 0:
        top = max(values)
        return (top, b * top) if top > 0 else (top, top / b)
    bottom = min(values)
    return (bottom / b, bottom) if bottom > 0 else (b * bottom, bottom)


def test_all_values_lie_in_the_intervals_and_fill_them() -> None:
    places, cases = [], set()
    for j, column in enumerate(sent(HONEST, m=20).T.tolist()):
        values = HONEST[:, j].tolist()
        low, high = interval(values, 2.0)
        cases.add((sum(values) < 0, low > 0))
        assert all(low - 1e-6 <= value <= high + 1e-6 for value in column)
        places += [(value - low) / (high - low) for value in column]
    assert len(cases) == 4  # each case of the paper
    counts = torch.histc(torch.tensor(places), bins=4, min=0, max=1)
    assert (counts / 4000 - 0.25).abs().max() < 0.03


def test_the_four_cases_by_hand_where_the_interval_is_a_point() -> None:
    honest = torch.tensor([[-5.0, -5.0, 5.0, 5.0], [-1.0, 1.0, 1.0, -1.0]])
    assert sent(honest, b=1.0).tolist() == [[-1.0, 1.0, 1.0, -1.0]] * 3
    assert sent(torch.zeros(2, 4)).tolist() == [[0.0] * 4] * 3


def test_trimming_as_many_as_there_are_malicious_moves_every_coordinate_against_the_mean() -> None:
    clean = robust.trimmed_mean(HONEST, 3)
    moved = robust.trimmed_mean(torch.cat([HONEST, sent(HONEST)]), 3) - clean
    assert (moved * HONEST.mean(0).sign() <= 1e-6).all()
    assert (moved.abs() > 0.01).double().mean() > 0.9


def test_without_honest_clients_and_with_the_largest_numbers_it_stays_finite() -> None:
    rows = torch.ones(2, 3)
    craft = fang_trimmed_mean(b=2.0).craft
    assert craft is not None
    found = craft(None, rows, replace(attack_view("table"), honest=rows[:0]))
    assert (found >= 0.5).all() and (found <= 1).all()
    assert sent(torch.tensor([[-3e38], [3.3e38], [-3.3e38]]), b=1e4).isfinite().all()


def test_a_client_whose_training_diverged_does_not_save_the_others() -> None:
    honest = HONEST
    diverged = torch.cat([honest[:1] * torch.nan, honest, honest[:1] * torch.inf])
    assert torch.equal(sent(diverged), sent(honest))
