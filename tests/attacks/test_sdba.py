"""SDBA: which layers and coordinates move, that nothing else does, and that it bites."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from backstop.attacks.sdba import _mask, _shares
from backstop.platform import plugins
from backstop.platform.contract import Slot, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.seeds import generator
from backstop.platform.specs.part import parse_part, to_chain
from tests.arena import ARENA, Claim

CLAIM = Claim(
    "badnets(share=0.5)+sdba",
    effect=0.15,
    weaker="badnets(share=0.5)+sdba(inputs=0.02)",
    bend=0.1,
)
Row = npt.NDArray[np.float64]
RECURRENT = (
    ("embedding.weight", (3, 2)),
    ("lstm.weight_ih_l0", (8, 2)),
    ("lstm.weight_hh_l0", (8, 2)),
    ("lstm.bias_ih_l0", (8,)),
    ("lstm.bias_hh_l0", (8,)),
    ("lstm.weight_ih_l1", (8, 2)),
    ("output.weight", (2, 2)),
    ("output.bias", (2,)),
)
PLAIN = (
    ("linear1.weight", (5, 3)),
    ("linear1.bias", (5,)),
    ("output.weight", (2, 5)),
    ("output.bias", (2,)),
)


def slots(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[Slot, ...]:
    found, start = [], 0
    for name, shape in shapes:
        found.append(Slot(name, start, shape))
        start += found[-1].size
    return tuple(found)


def reference(gradient: Row, layers: list[tuple[int, int, float]]) -> Row:
    """A coordinate moves where fewer others of its layer are smaller than are to move."""
    moves = np.zeros(len(gradient))
    for start, stop, share in layers:
        most = max(int(np.floor(share * (stop - start) + 0.5)), 1)
        sizes = [abs(value) for value in gradient[start:stop]]
        for place, size in enumerate(sizes):
            before = sum(other < size for other in sizes) + sum(
                other == size for other in sizes[:place]
            )
            moves[start + place] = float(before < most)
    return moves


@pytest.mark.parametrize("inputs", [0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("hidden", [0.3, 1.0])
@pytest.mark.parametrize("tied", [False, True])
def test_the_mask_of_recurrent_layers_is_the_published_one(
    inputs: float, hidden: float, tied: bool
) -> None:
    layout = slots(RECURRENT)
    gradient = torch.randn(sum(slot.size for slot in layout), generator=generator(0, "tests", "g"))
    if tied:
        gradient = gradient.round()
    layers = [(6, 22, inputs), (54, 70, inputs), (22, 38, hidden)]
    expected = reference(gradient.double().numpy(), layers)
    assert _mask(gradient, layout, layout[-2:], inputs, hidden).tolist() == expected.tolist()


def test_of_other_networks_inner_weights_move_and_without_any_all_may() -> None:
    layout = slots(PLAIN)
    gradient = torch.randn(32, generator=generator(0, "tests", "g"))
    expected = reference(gradient.double().numpy(), [(0, 15, 0.4)])
    assert _mask(gradient, layout, layout[2:], 0.4, 1.0).tolist() == expected.tolist()
    alone = _shares(layout[2:], layout[2:], 0.4, 1.0)
    assert [slot.name for slot, _ in alone] == ["output.weight", "output.bias"]
    assert _mask(torch.zeros(1), (Slot("one", 0, (1,)),), (), 0.1, 1.0).tolist() == [1.0]


def test_a_convolution_moves_and_the_head_does_not() -> None:
    net = plugins.build("models", "cnn", {})((1, 28, 28), 10)
    layout = slots(tuple((name, tuple(p.shape)) for name, p in net.named_parameters()))
    found = [slot.name for slot, _ in _shares(layout, layout[-2:], 0.2, 1.0)]
    assert found == ["conv1.weight", "conv2.weight", "linear1.weight", "linear2.weight"]


def test_real_rows_of_an_lstm_move_only_where_the_mask_lets_them() -> None:
    spec = Spec(
        dataset=parse_part("topics(samples=200)"),
        model=parse_part("lstm(dim=6, hidden=5, layers=1)"),
        attack=to_chain("phrase(share=0.5)+sdba", "attack"),
        clients=4,
        per_round=4,
        malicious=0.5,
        rounds=1,
        batch=16,
        alpha=None,
        root_size=4,
        optimizer=parse_part("sgd(lr=0.5)"),
    )
    experiment = Experiment(spec, Path("unused"), "cpu")
    state, trained, _ = experiment._trained(experiment.state, experiment.built.malicious)
    mask = state.attack[1]
    assert (trained.rows[:, mask == 0] == 0).all() and (trained.rows[:, mask == 1] != 0).any(
        1
    ).all()
    moved = {
        slot.name: mask[slot.span].mean().item()
        for slot in experiment.built.net.layout
        if mask[slot.span].any()
    }
    assert moved == {"lstm.weight_ih_l0": pytest.approx(0.2), "lstm.weight_hh_l0": 1.0}


def test_the_mask_is_that_of_this_rounds_clean_gradient() -> None:
    def first_mask(attack: str) -> torch.Tensor:
        spec = ARENA.replace(attack=to_chain(attack, "attack"))
        experiment = Experiment(spec, Path("unused"), "cpu")
        state, _, _ = experiment._trained(experiment.state, experiment.built.malicious)
        mask: torch.Tensor = state.attack[1]
        return mask

    small, large = first_mask("badnets+sdba(inputs=0.1)"), first_mask("badnets+sdba(inputs=0.9)")
    assert (small <= large).all() and small.sum() == 410 and large.sum() == 3686  # of 64 x 64
