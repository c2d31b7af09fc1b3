"""Chameleon: the encoder learns to see poisoned samples as peers of the target class, then the head
alone learns their label.

1. θ <- argmin Σ_i β_i / |P(i)| Σ_{p ∈ P(i)} -log( exp(z_i·z_p / τ) / Σ_{a ≠ i} exp(z_i·z_a / τ) )
2. θ <- argmin Σ_i CE(f(x_i), y_i)

Stage 1 trains the encoder, stage 2 the head. z_i are the features of sample i of a poisoned batch
at length 1, P(i) the others of its label, y* for poisoned samples. β_i is ``weight`` for samples of
a label that poisoned samples carry, else 1: it draws these to the samples of the target class (the
facilitators) and away from those of their true class (the interferers).

Shapes: features (b, h), labels (b,); params (d,) → update (d,).

Source: Y. Dai, S. Li, "Chameleon: Adapting to Peer Images for Planting Durable Backdoors in
Federated Learning", ICML 2023, the two stages; the loss of the first is that of P. Khosla et al.,
"Supervised Contrastive Learning", NeurIPS 2020.

Defaults are the authors' for CIFAR-10: 10 epochs on the encoder, weight 6, temperature 0.07, then 3
epochs on the head. Their rates are absolute, 0.005 and 0.001, where honest clients have 0.0265 when
the attack starts, so that they are about 0.2 and 0.04 of the honest rate. Both fall: the encoder's
to a tenth from epochs 3, 5, 7 and 9 on, the head's to 0.005 of itself from epoch 3 on.

Deviations: both stages use the experiment's optimizer at a factor on its rate. An epoch is all the
local steps of the client in a round, whatever their number. Samples without another of their label
in the batch have no term in the first stage. The experiment's weight decay, where it has one, and
the objectives and constraints of other stages reach all parameters in both stages. The authors'
projection of the update to a ball is a stage of its own.

Checked: against the authors' code (training.py, params_pixel_trigger_cifar10.yaml).

Cost: epochs + head_epochs local trainings a round and malicious client, 13 with the defaults.

Example:
>>> import torch
>>> features, y = torch.tensor([[2.0, 0.0], [0.5, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])
>>> round(float(_contrast(features, y, torch.ones(3), temperature=1.0)), 4)  # 2/3 log(1 + 1/e)
0.2088
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from backstop.platform.contract import Attack, Step, TrainView
from backstop.platform.optimizers import step_decay
from backstop.platform.params import Range

VERSION = 2
KNOWS = "own"
STRENGTH = None
TRIGGER = False

Loss = Callable[[Tensor, Step], Tensor]


class _Schedule(NamedTuple):
    milestones: tuple[int, ...]  # epochs, from 0 on, at which the rate falls
    factor: float


_ENCODER = _Schedule((2, 4, 6, 8), 0.1)  # as published
_HEAD = _Schedule((2, 4), 0.005)


def chameleon(
    *,
    epochs: Annotated[
        int, Range(1, 50, search=(1, 20)), "passes over the local steps that adapt the encoder"
    ] = 10,
    weight: Annotated[
        float,
        Range(1, 100, log=True, search=(1, 10)),
        "of the target class in the contrastive loss, β",
    ] = 6.0,
    temperature: Annotated[
        float, Range(0.01, 10, log=True, search=(0.05, 1)), "of the contrastive loss, τ"
    ] = 0.07,
    rate: Annotated[
        float,
        Range(0, 100, low_open=True, log=True, search=(0.02, 1)),
        "of the encoder's training, in honest rates",
    ] = 0.2,
    head_epochs: Annotated[
        int, Range(1, 50, search=(1, 5)), "passes over the local steps that train the head"
    ] = 3,
    head_rate: Annotated[
        float,
        Range(0, 100, low_open=True, log=True, search=(0.01, 1)),
        "of the head's training, in honest rates",
    ] = 0.04,
) -> Attack:
    """Local training in two stages."""

    def train(_: None, view: TrainView) -> Tensor:
        head = torch.zeros_like(view.params, dtype=torch.bool)
        for slot in view.head:
            head[slot.span] = True

        def contrast(params: Tensor, step: Step) -> Tensor:
            x, y = step.poisoned
            # the labels that poisoned samples carry
            beta = torch.where(torch.isin(y, step.changed.y), weight, 1.0)
            return _contrast(view.features(params, x), y, beta, temperature)

        def classify(params: Tensor, step: Step) -> Tensor:
            x, y = step.poisoned
            return view.loss(view.model(torch.where(head, params, params.detach()), x), y)

        def learn(loss: Loss, start: Tensor, rates: Sequence[float]) -> Tensor:
            each = [rate for rate in rates for _ in view.steps]
            return view.minimise(loss, start, view.steps * len(rates), rates=each)

        def falling(rate: float, epochs: int, schedule: _Schedule) -> list[float]:
            return [rate * step_decay(epoch, *schedule) for epoch in range(epochs)]

        adapted = learn(contrast, view.params, falling(rate, epochs, _ENCODER))
        return learn(classify, adapted, falling(head_rate, head_epochs, _HEAD)) - view.params

    return Attack(train=train)


def _contrast(features: Tensor, y: Tensor, beta: Tensor, temperature: float) -> Tensor:
    """The mean of the weighted supervised contrastive losses of features (b, h)."""
    z = normalize(features)
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    peers = (y[:, None] == y) & ~itself
    # (b, b); finite, also for a single sample
    likely = (z @ z.T / temperature).masked_fill(itself, -1e9).log_softmax(1)
    each: Tensor = -(likely * peers).sum(1) / peers.sum(1).clamp_min(1)
    return (beta * each).mean()
