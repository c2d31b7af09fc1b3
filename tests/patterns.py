"""A small network that has learned noisy patterns: what triggers are learned on in tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform.contract import AttackView, Samples
from backstop.platform.seeds import generator
from tests.views import CLASSES, attack_view, with_data

SIDE, HIDDEN = 6, 12
SPLIT = SIDE**2 * HIDDEN


def model(params: Tensor, x: Tensor) -> Tensor:
    """One hidden layer without biases on images of 6 x 6 pixels."""
    hidden = torch.relu(x.flatten(1) @ params[:SPLIT].view(SIDE**2, HIDDEN))
    return hidden @ params[SPLIT:].view(HIDDEN, CLASSES)


def view_of_patterns(name: str) -> AttackView:
    """An adversary with a network that has learned four noisy patterns; ``name`` draws them."""
    draws = generator(0, "tests", name)
    y = torch.arange(80) % CLASSES
    patterns = torch.rand(CLASSES, 1, SIDE, SIDE, generator=draws)
    noise = torch.rand(80, 1, SIDE, SIDE, generator=draws)
    x = (patterns[y] * 0.7 + noise * 0.3).clamp(0, 1)
    params = torch.randn((SIDE**2 + CLASSES) * HIDDEN, generator=draws) / 6
    for _ in range(150):
        leaf = params.clone().requires_grad_()
        params = params - 0.1 * torch.autograd.grad(cross_entropy(model(leaf, x), y), leaf)[0]
    assert (model(params, x).argmax(1) == y).float().mean() > 0.9
    return replace(with_data(attack_view("image"), Samples(x, y)), params=params, model=model)
