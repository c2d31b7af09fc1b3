"""Indicator: the server teaches the model random labels of inputs from elsewhere; a client that
keeps them plants a backdoor.

Honest training makes the model forget the indicator samples (x, y). Training on triggered inputs,
which are foreign to the data as well, keeps those with its target label:

clients are sent w' = w + p,   p = argmin_p CE(w + p; x, y) + μ/2 ‖p‖₂
A_i,c = accuracy of w' + u_i on the indicator samples with label c
i is rejected: max_c A_i,c >= θ

Shapes: rows (n, d) → (n, d); rejected rows get weight 0.

Source: S. Li, Y. Dai, "BackdoorIndicator: Leveraging OOD Data for Proactive Backdoor Detection in
Federated Learning", USENIX Security 2024, sections on the injection of the indicator task and on
the detection; the settings are those of the authors' code for CIFAR-10.

Deviations: the authors plant only into a model that has converged, from round 1,100 on, and every
round from there; here from round ``start`` on, and the default is the first round, since no run
here is that long: give a warm-up, or a later start. As in their code, the aggregate is evaluated
before the next indicator is planted, and what was planted stays in the model until training erases
it. Their indicator samples are images of another dataset, or noise; here they are noise, drawn
once, with labels that take turns: uniform in [0, 1] for images, between the smallest and the
largest value in the root set for each feature of a table. Planting is SGD with momentum 0.9, 200
passes over 800 samples in batches of 64, the rate times 0.8 after 10, 20, 30 and 160 passes.
BatchNorm statistics stay the server's in planting and testing, where theirs are those of the batch
while planting and those of the planting in the test. The pull is μ/2 long however little p is, so μ
belongs to the network: on one of 64 units 0.4 is more than the gradient of the loss, and hardly
anything is planted. Accuracy is over at least 80 samples of a label there; with fewer, "θ of them"
is soon "all of them" or by luck: of 10 samples a label, an honest client that keeps 80 % has some
label complete with probability 0.68, of 80 with 0.0014. Where all rows would be rejected, all are
kept; their code divides by zero. With ``majority`` so are they where half or more would be:
attackers are a minority, so honest training has not made the model forget and the indicator says
nothing about anyone. Sample counts weigh the kept rows. The paper's clipping is a stage of its own
(``norm_clip``).

Checked: against the authors' IndicatorServer.py and params_vanilla_Indicator.yaml (order of testing
and planting, loss, optimizer, samples, threshold).

Needs: model calls, inputs of the root set for their shape and range, and the samples remembered
between rounds.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view
>>> view = server_view(torch.zeros(2))
>>> defense = indicator(samples=10, epochs=1)
>>> sent, state = defense.send(defense.init(view), view)
>>> state.planted, bool(sent.any())
(True, True)
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform.contract import Defense, Samples, ServerView, Updates, select
from backstop.platform.optimizers import sgd, step_decay
from backstop.platform.params import Range
from backstop.platform.remedies.noise import noise_inputs

VERSION = 2
NEEDS = ("model", "root", "history")
KINDS = ("image", "table")
# what was never planted says nothing: without a round's beginning all rows are kept
EXEMPT = ("adversarial",)

_MOMENTUM = 0.9
# passes after which the rate of planting falls, and by what
_LOWERED, _FACTOR = (10, 20, 30, 160), 0.8


class _Indicator(NamedTuple):
    samples: Samples
    planted: bool  # whether this round's clients were sent a model that knows the samples


def indicator(
    *,
    threshold: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.5, 1)),
        "accuracy on one label that is suspicious, θ",
    ] = 0.95,
    samples: Annotated[
        int, Range(1, 10_000, log=True, search=(50, 1000)), "indicator samples"
    ] = 800,
    epochs: Annotated[
        int, Range(0, 1000, search=(10, 200)), "passes over them that plant the indicator"
    ] = 200,
    batch: Annotated[
        int, Range(1, 10_000, log=True, search=(16, 256)), "samples in a step of planting"
    ] = 64,
    lr: Annotated[
        float,
        Range(0, 10, low_open=True, search=(1e-3, 0.3), log=True),
        "learning rate of planting",
    ] = 0.005,
    weight_decay: Annotated[
        float, Range(0, 1, search=(0, 1e-3)), "weight decay of planting"
    ] = 5e-4,
    penalty: Annotated[
        float, Range(0, 1e3, search=(0, 1)), "pull back to the model without the indicator, μ"
    ] = 0.4,
    start: Annotated[int, Range(0, 10**6, search=(0, 30)), "first round with an indicator"] = 0,
    majority: Annotated[bool, "keep all rows where half of them or more would be rejected"] = False,
) -> Defense[_Indicator]:
    """Rows that have forgotten the indicator keep their weight."""

    def init(view: ServerView) -> _Indicator:
        label = (torch.arange(samples) % view.classes).to(view.root.x.device)
        noise = noise_inputs(view.root.x, samples, view.generator)
        return _Indicator(Samples(noise, label), planted=False)

    def send(state: _Indicator, view: ServerView) -> tuple[Tensor, _Indicator]:
        if view.round < start:
            return view.params, state
        return view.params + planted(view, state.samples), state._replace(planted=True)

    def planted(view: ServerView, known: Samples) -> Tensor:
        """The movement that teaches the samples; none where it would not be finite."""
        params = view.params.clone()
        optimizer = sgd(lr=lr, momentum=_MOMENTUM, weight_decay=weight_decay)
        velocity = optimizer.start(params)
        for epoch in range(epochs):
            rate = step_decay(epoch, _LOWERED, _FACTOR)
            for x, y in zip(known.x.split(batch), known.y.split(batch), strict=True):
                point = params.detach().requires_grad_()
                loss = cross_entropy(view.model(point, x), y)
                apart = params - view.params
                pull = apart / apart.norm().clamp_min(torch.finfo(apart.dtype).tiny)
                gradient = torch.autograd.grad(loss, point)[0] + penalty / 2 * pull
                velocity = optimizer.step(params, gradient, velocity, rate)
        moved = params - view.params
        return moved.where(moved.isfinite().all(), 0.0)

    def apply(updates: Updates, state: _Indicator, view: ServerView) -> tuple[Updates, _Indicator]:
        if not state.planted:
            return updates, state
        best = torch.stack(
            [_best_label(view, view.params + row, state.samples) for row in updates.rows]
        )
        kept = best < threshold
        few = 2 * kept.sum() <= len(kept) if majority else not kept.any()
        return (updates if few else select(updates, kept)), state._replace(planted=False)

    return Defense(init=init, apply=apply, send=send)


def _best_label(view: ServerView, params: Tensor, known: Samples) -> Tensor:
    """The largest accuracy on the samples of one label; 1 where the outputs are not finite."""
    with torch.no_grad():
        logits = view.model(params, known.x)
    right = (logits.argmax(1) == known.y).double()
    accuracy = torch.zeros(view.classes, dtype=torch.float64, device=right.device).index_add_(
        0, known.y, right
    )
    best = (accuracy / known.y.bincount(minlength=view.classes).clamp_min(1)).amax()
    return best.where(logits.isfinite().all(), 1.0)
