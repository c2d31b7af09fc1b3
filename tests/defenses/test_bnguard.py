"""BNGuard: its twin, its claim in a small federation, and where it fails."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor

from backstop.defenses.bnguard import bnguard
from backstop.platform.contract import Buffers, Updates
from backstop.platform.examples import batch_norm, server_view
from backstop.platform.remedies.clusters import two_means
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import bnguard as twin

MODEL = (("model", "convnet(width=8, modules=2)"),)


def kept(mean: Tensor, variance: Tensor) -> list[int]:
    """Who keeps a weight."""
    n = len(mean)
    given = Updates(torch.ones(n, 5), torch.arange(1.0, n + 1), torch.arange(n))
    view = replace(server_view(), buffers=batch_norm(mean, variance))
    after = bnguard().apply(given, None, view)[0]
    assert torch.equal(after.rows, given.rows)
    left = after.weight > 0
    assert torch.equal(after.weight[left], given.weight[left])
    return left.nonzero().flatten().tolist()


def statistics(n: int, channels: int, case: str) -> tuple[Tensor, Tensor]:
    draws = generator(0, "tests", case, n, channels)
    mean = torch.randn(n, channels, generator=draws)
    variance = 1 + torch.rand(n, channels, generator=draws)
    if case == "tied":
        return mean.round(), variance.round()
    if case == "zero":
        return torch.zeros_like(mean), torch.zeros_like(variance)
    if case == "apart":
        mean[: n // 3] += 4.0
    return mean, variance


@pytest.mark.parametrize("case", ["random", "tied", "zero", "apart"])
@pytest.mark.parametrize(("n", "channels"), [(1, 3), (2, 3), (3, 1), (7, 4), (12, 2), (20, 8)])
def test_agrees_with_the_reference(n: int, channels: int, case: str) -> None:
    mean, variance = statistics(n, channels, case)
    wanted = twin.bnguard(list(mean.double().numpy()), list(variance.double().numpy()))
    assert kept(mean, variance) == wanted
    if case == "zero":
        assert wanted == list(range(n))


@pytest.mark.parametrize("n", [3, 6, 9])
def test_two_means_finds_the_smallest_sum_of_squares(n: int) -> None:
    def total(members: list[int], points: Tensor) -> float:
        others = [i for i in range(n) if i not in members]
        groups = [points[group] for group in (members, others) if group]
        return sum((group - group.mean(0)).square().sum().item() for group in groups)

    reached = 0
    for number in range(20):
        points = torch.randn(n, 2, generator=generator(0, "means", n, number)).double()
        found = two_means(points).nonzero().flatten().tolist()
        assert 0 < 2 * len(found) <= n
        every = (list(some) for size in range(1, n) for some in combinations(range(n), size))
        reached += total(found, points) <= min(total(some, points) for some in every) + 1e-9
    assert reached >= 17  # of points without clusters, Lloyd finds a local minimum


def test_only_the_first_layer_counts() -> None:
    first = batch_norm(torch.tensor([[0.0], [0.1], [0.0], [5.0]]), torch.ones(4, 1))
    layout = tuple(
        slot._replace(name=f"{layer}.{slot.name}", start=slot.start + 2 * place)
        for place, layer in enumerate(("norm1", "norm2"))
        for slot in first.layout
    )
    far = torch.tensor([[900.0], [0.0], [0.0], [0.0]])
    changes = torch.cat([first.changes, batch_norm(far, torch.ones(4, 1)).changes], 1)
    both = Buffers(first.client, changes, first.start.repeat(2), layout)
    given = Updates(torch.ones(4, 2), torch.ones(4), torch.arange(4))
    after = bnguard().apply(given, None, replace(server_view(), buffers=both))[0]
    assert after.weight.tolist() == [1, 1, 1, 0]


def test_clusters_of_one_size_are_both_kept() -> None:
    mean = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    assert kept(mean, torch.ones(4, 1)) == [0, 1, 2, 3]


@pytest.mark.parametrize("attack", ["badnets(share=0.2)", "badnets(share=0.3)+soda"])
def test_it_keeps_a_backdoor_out_that_moves_the_statistics(attack: str) -> None:
    undefended, defended = figures(attack, MODEL), figures(attack, MODEL, defense="bnguard")
    assert undefended["final/attack_success_rate"] > 0.2
    assert defended["final/attack_success_rate"] < 0.1
    assert defended["final/kept_weight_malicious"] < 0.1
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.02


def test_it_throws_honest_clients_out_where_their_data_differ() -> None:
    """The statistics of skewed clients differ by more than the trigger moves them."""
    skewed = (*MODEL, ("alpha", 0.5))
    defended = figures("badnets(share=0.2)", skewed, defense="bnguard")
    assert defended["final/kept_weight_malicious"] > defended["final/kept_weight_benign"]
