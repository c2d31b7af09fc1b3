"""Lockdown: rounds against the reference, its masks, what it keeps out, and how one gets in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backstop.defenses.lockdown import _agreed, _densities, _grown, _pruned, _remember
from backstop.platform.contract import Slot, Updates
from tests.arena import figures
from tests.keepers import ARENA_SHARE, calm, experiment, slope
from tests.references import lockdown as reference
from tests.views import server_view


@pytest.mark.parametrize("anneal", [1e-4, 0.2])
def test_rounds_are_those_of_the_algorithm(anneal: float) -> None:
    spec = calm(f"lockdown(anneal={anneal}, horizon=4)", "mlp").replace(local_epochs=2)
    begun = experiment(spec, rounds=2)
    fresh, built = experiment(spec), begun.built
    assert fresh.views.first is not None
    spans = [slot.span for slot in built.net.layout]
    w, _, masks = reference.lockdown(
        [slope(fresh, client) for client in range(4)],
        fresh.state.params.double().numpy(),
        fresh.views.first.double().numpy(),
        spans,
        np.array(built.sizes, dtype=float),
        lr=0.1,
        rounds=2,
        steps=2,
        anneal=anneal,
        threshold=0.5,
        horizon=4,
    )
    np.testing.assert_allclose(begun.state.params.numpy(), w, atol=2e-5)
    for client, mask in enumerate(masks):
        assert (begun.state.kept[client].numpy() == mask).all()
    begun.round()
    _, cut, _ = reference.lockdown(
        [slope(fresh, client) for client in range(4)],
        fresh.state.params.double().numpy(),
        fresh.views.first.double().numpy(),
        spans,
        np.array(built.sizes, dtype=float),
        lr=0.1,
        rounds=3,
        steps=2,
        anneal=anneal,
        threshold=0.5,
        horizon=4,
    )
    np.testing.assert_allclose(begun.state.params.numpy(), cut, atol=2e-5)


def test_masks_have_their_density_and_small_tensors_are_whole() -> None:
    layout = (Slot("a", 0, (64, 64)), Slot("b", 4096, (64,)), Slot("c", 4160, (10, 64)))
    dense = _densities(layout, 0.25)
    sizes = [slot.size for slot in layout]
    held = sum(share * size for share, size in zip(dense, sizes, strict=True))
    assert held == pytest.approx(0.25 * sum(sizes))
    assert dense[1] == 1.0
    assert dense[2] > dense[0] > 0
    assert _densities(layout, 1.0) == pytest.approx([1.0, 1.0, 1.0])


def test_of_equals_the_first_are_pruned_and_grown() -> None:
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    same = torch.ones(5)
    assert _pruned(mask, same, 2).tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert _grown(mask, same, 1).tolist() == [1.0, 1.0, 1.0, 0.0, 1.0]
    assert _grown(mask, torch.zeros(5), 0).tolist() == mask.tolist()


def test_who_sends_no_mask_votes_where_it_moves() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    updates = Updates(rows, torch.ones(2), torch.tensor([3, 5]))
    view = server_view(2)
    _, masks = _remember(updates, {}, view)
    assert masks[3].tolist() == [True, False]
    assert masks[5].tolist() == [False, True]
    assert torch.equal(_agreed({}, view, 0.5), view.params)
    assert torch.equal(_agreed(masks, view, 0.5), view.params)
    assert not _agreed(masks, view, 0.6).any()


def test_it_keeps_a_backdoor_out_that_does_not_know_of_it() -> None:
    """Measured 1 % where FedAvg has 76 %, at 5 points of accuracy; 45 % within the mask."""
    attack = {
        name: figures(f"{ARENA_SHARE}{name}", defense="lockdown") for name in ("", "+subspace")
    }
    assert attack[""]["final/attack_success_rate"] < 0.15
    assert attack[""]["final/unrepaired_attack_success_rate"] > 0.6
    assert attack[""]["final/clean_accuracy"] > 0.88
    assert attack["+subspace"]["final/attack_success_rate"] > 0.3
