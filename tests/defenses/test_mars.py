"""MARS: its twin on real models, its claim in a small federation, and where it fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backstop.defenses.mars import mars
from backstop.platform import seeds
from backstop.platform.contract import Buffers, Data, Samples, Slot, Updates
from backstop.platform.examples import server_view
from backstop.platform.models.convnet import convnet
from backstop.platform.seeds import generator
from backstop.platform.training import network
from tests.arena import figures
from tests.references import mars as twin

MODEL = (("model", "convnet(width=8, modules=2)"),)
LAYERS = [("conv1", "norm1"), ("conv2", "norm2"), ("output", None)]


def net() -> network.Network:
    with seeds.seeded(0, "net"):
        module = convnet(width=21, modules=2)((2, 8, 8), 5)
    samples = Samples(torch.zeros(2, 2, 8, 8), torch.tensor([0, 4]))
    return network.network(module, Data(samples, samples, 5, "image"), torch.device("cpu"), 8)


def kept(built: network.Network, rows: Tensor, changes: Tensor, **params: float) -> list[int]:
    """Who keeps a weight."""
    n = len(rows)
    buffers = Buffers(torch.arange(n), changes, built.buffers, built.buffer_layout)
    view = replace(
        server_view(built.params),
        layout=built.layout,
        buffers=buffers,
    )
    given = Updates(rows, torch.arange(1.0, n + 1), torch.arange(n))
    after = mars(**params).apply(given, None, view)[0]
    assert torch.equal(after.rows, rows)
    left = after.weight > 0
    assert torch.equal(after.weight[left], given.weight[left])
    return left.nonzero().flatten().tolist()


@pytest.mark.parametrize("case", ["random", "zero", "equal", "factor"])
@pytest.mark.parametrize(
    ("n", "share", "epsilon"), [(1, 0.05, 0.03), (7, 0.05, 0.0), (9, 0.3, 0.1)]
)
def test_agrees_with_the_reference(case: str, n: int, share: float, epsilon: float) -> None:
    built, draws = net(), generator(0, "tests", case, n)
    rows = 0.1 * torch.randn(n, len(built.params), generator=draws)
    changes = 0.2 * torch.randn(n, len(built.buffers), generator=draws)
    if case == "zero":
        rows, changes = torch.zeros_like(rows), torch.zeros_like(changes)
    if case == "equal":
        rows, changes = rows[:1].expand(n, -1), changes[:1].expand(n, -1)
    if case == "factor":
        rows[: n // 3] *= 5
    models = []
    for row, change in zip(rows, changes, strict=True):
        tensors = built.tensors(built.params + row, built.buffers + change)
        models.append({name: value.double().numpy() for name, value in tensors.items()})
    found = kept(built, rows, changes, share=share, epsilon=epsilon)
    assert found == twin.mars(models, LAYERS, share, epsilon)
    if case == "factor" and n > 1:
        assert found == list(range(n // 3, n))
    if case in ("zero", "equal"):
        assert found == list(range(n))


def test_a_small_variance_is_a_large_energy() -> None:
    built = net()
    rows, changes = torch.zeros(4, len(built.params)), torch.zeros(4, len(built.buffers))
    slot = next(slot for slot in built.buffer_layout if slot.name == "norm2.running_var")
    changes[2, slot.span] = -0.99
    assert kept(built, rows, changes) == [0, 1, 3]


def test_the_cluster_of_less_energy_is_kept_though_it_is_smaller() -> None:
    built = net()
    rows = torch.zeros(5, len(built.params))
    changes = torch.zeros(5, len(built.buffers))
    rows[:3] = 3 * built.params
    assert kept(built, rows, changes) == [3, 4]
    assert kept(built, rows, changes, epsilon=1e3) == [0, 1, 2, 3, 4]


def test_a_batch_norm_that_follows_no_weights_counts_by_itself() -> None:
    layout = (Slot("norm.weight", 0, (3,)), Slot("norm.bias", 3, (3,)))
    buffers = Buffers(
        torch.arange(3),
        torch.tensor([[0.0] * 6, [0.0] * 6, [0.0, 0.0, 0.0, -0.9, 0.0, 0.0]]),
        torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        (Slot("norm.running_mean", 0, (3,)), Slot("norm.running_var", 3, (3,))),
    )
    view = replace(server_view(torch.ones(6)), layout=layout, buffers=buffers)
    given = Updates(torch.zeros(3, 6), torch.ones(3), torch.arange(3))
    assert mars().apply(given, None, view)[0].weight.tolist() == [1, 1, 0]


@pytest.mark.parametrize("attack", ["badnets(share=0.2)+model_replacement(strength=3)"])
def test_it_halves_the_success_of_a_backdoor(attack: str) -> None:
    undefended, defended = figures(attack, MODEL), figures(attack, MODEL, defense="mars")
    assert undefended["final/attack_success_rate"] > 0.8
    assert defended["final/attack_success_rate"] < 0.5
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.02


def test_without_an_attack_it_throws_honest_clients_out() -> None:
    calm = figures("none", MODEL, defense="mars")
    assert calm["final/kept_weight_benign"] < 0.95
    assert calm["final/clean_accuracy"] > 0.95
