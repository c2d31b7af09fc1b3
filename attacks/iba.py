"""IBA: a small network, trained to send images to the target class of the attacker's own model,
makes a faint trigger for each image.

x' = clamp(x + ε_t T_φ(x), 0, 1),   y' = y*,   ε_t = max(ε_min, ε (1 - decay)^t)
φ = argmin_φ Σ_i E[ℓ(L_i(x'), y*)]

L_i is what client i of the round would send: G trained on its own clean data. t counts the attacked
rounds since the first in which x' has at least the success ``ready`` with the L_i; before it
nothing is poisoned.

Shapes: x (b, C, H, W) in [0, 1], y (b,), T_φ(x) (b, C, H, W) in [-1, 1].

Source: T. D. Nguyen, T. A. Nguyen, A. Tran, K. D. Doan, K.-S. Wong, "IBA: Towards Irreversible
Backdoor Attacks in Federated Learning", NeurIPS 2023, sections on the trigger generator and its
training.

Published in normalized pixels of CIFAR-10 (standard deviation 0.247): ε = 0.3, ε_min = 0.05, with a
decay of 0.001 a round; in [0, 1] 0.074 and 0.0124. Ten passes over a client's data with Adam of
rate 1e-4 in each attacked round, no poison before a local success of 0.85. Clean and poisoned loss
weigh the same, which is a share of 0.5.

Deviations: T_φ is a U-Net of three 3 x 3 convolutions (to 8 channels; to 16 at half the resolution;
from both, side by side, back to C, then tanh), which takes images of any size; the published one
has millions of weights. So small a network needs a larger rate, 0.01, with a new Adam in each
attacked round; φ goes on from the last one, and is one for all clients of a round. Within so small
a change it does not come to the published success of 0.85 (CIFAR-10, ``cnn``, ten rounds: 0.16) and
would never poison; so batches are poisoned from the first attacked round on unless ``ready`` is
set. An ε below ε_min does not shrink. ε_t is kept beside φ, so the test inputs are stamped with the
ε of the training. Published figures count samples of the target class, for which nothing need
happen; here they are left out. This is the first part of the attack; the second, poisoned updates
that stay in a ball and on parameters that honest ones rarely change, is the stages ``pgd`` and
``neurotoxin``, to be chained after this one.

Checked: ε, decay, passes, rate and threshold against the authors' code (iba_cifar10_fedavg.sh,
iba_simulated_averaging.py).

Cost: in each attacked round an honest local training for each malicious client of the round, and
``passes`` times the logits of its samples, forward and backward through the model and T_φ.

Example: all weights are zero but the last bias, so T is 1 at every pixel, and ε is added to every
pixel that has room for it.
>>> import torch
>>> weights = tuple(torch.zeros(shape) for shape in shapes(1))
>>> weights[-1].fill_(20.0)
tensor([20.])
>>> _stamped(_Generator(weights, 0.25, 1, True), torch.tensor([[[[0.0, 0.5, 0.875]]]])).tolist()
[[[[0.25, 0.75, 1.0]]]]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform.contract import Attack, AttackView
from backstop.platform.optimizers import Optimizer, adam
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor, target_labels
from backstop.platform.threats.collusion import own_samples
from backstop.platform.threats.generators import Weights, descended, drawn, perturbation, shapes
from backstop.platform.threats.parameters import (
    GeneratorPasses,
    GeneratorRate,
    Share,
    Source,
    Target,
)

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "eps"
TRIGGER = True
_BATCH = 64


class _Generator(NamedTuple):
    weights: Weights  # φ: weight and bias of three convolutions
    eps: float  # ε_t
    rounds: int  # attacked rounds since the first success, that one included
    ready: bool  # whether batches are poisoned


def _stamped(state: _Generator, x: Tensor) -> Tensor:
    return (x + state.eps * perturbation(state.weights, x)).clamp(0, 1)


def _loss(
    state: _Generator,
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    goal: Tensor,
    weights: Weights,
) -> Tensor:
    """How little a model gives samples with the trigger of these weights the label wanted."""
    logits = model(_stamped(state._replace(weights=weights), x))
    loss: Tensor = cross_entropy(logits, goal)
    return loss


def _succeeds(state: _Generator, model: Callable[[Tensor], Tensor], x: Tensor, goal: Tensor) -> int:
    """How many samples a model gives the label that is wanted."""
    with torch.no_grad():
        hits = [
            model(_stamped(state, piece)).argmax(1) == wish
            for piece, wish in zip(x.split(_BATCH), goal.split(_BATCH), strict=True)
        ]
    return sum(int(hit.sum()) for hit in hits)


class _Local(NamedTuple):
    """A malicious client of the round: its own model and the samples that it attacks."""

    model: Callable[[Tensor], Tensor]
    x: Tensor
    goal: Tensor


def _trained(
    state: _Generator, clients: list[_Local], optimizer: Optimizer, draws: torch.Generator
) -> Weights:
    """The generator's weights after a pass over the samples of each client, one after another."""

    def losses() -> Iterator[Callable[[Weights], Tensor]]:
        for model, x, goal in clients:
            order = torch.randperm(len(goal), generator=draws).to(goal.device)
            for batch in order.split(_BATCH):
                yield partial(_loss, state, model, x[batch], goal[batch])

    return descended(state.weights, losses(), optimizer)


def iba(
    *,
    target: Target = 0,
    eps: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.02, 0.3)),
        "largest change of a pixel at first, ε",
    ] = 0.074,
    least: Annotated[
        float, Range(0, 1, search=(0.01, 0.1)), "ε does not shrink below this, ε_min"
    ] = 0.0124,
    decay: Annotated[
        float, Range(0, 1, search=(0, 0.1)), "share of ε that is lost with each attacked round"
    ] = 0.001,
    passes: GeneratorPasses = 10,
    rate: GeneratorRate = 0.01,
    ready: Annotated[
        float,
        Range(0, 1, search=(0, 1)),
        "success with the clients' own models from which on they poison",
    ] = 0.0,
    share: Share = 0.5,
    source: Source = None,
) -> Attack[Planted[_Generator]]:
    """Triggers from a generator. Raises BadInput where source and target are one class."""

    def init(view: AttackView) -> _Generator:
        x = view.data.x
        sizes = shapes(x.shape[1])
        weights = tuple(drawn(shape, view.generator).to(x.device) for shape in sizes)
        return _Generator(weights, eps, rounds=0, ready=ready == 0)

    def clients(view: AttackView) -> list[_Local]:
        """Those of the round that have a sample to attack."""
        there = []
        for _, own in own_samples(view):
            goal = target_labels(own.y, target, source, view.classes)
            attacked = goal >= 0
            if attacked.any():
                model = partial(view.model, view.params + view.train(view.params, own))
                there.append(_Local(model, own.x[attacked], goal[attacked]))
        return there

    def plan(state: _Generator, view: AttackView) -> _Generator:
        there = clients(view)
        if not there:
            return state
        state = state._replace(eps=max(eps * (1 - decay) ** state.rounds, min(eps, least)))
        trained = _trained(state, there * passes, adam(lr=rate), view.generator)
        state = state._replace(weights=trained)
        hits = sum(_succeeds(state, *local) for local in there)
        success = hits / sum(len(local.goal) for local in there)
        poisons = state.ready or success >= ready
        return state._replace(ready=poisons, rounds=state.rounds + int(poisons))

    def stamp(state: _Generator, x: Tensor, _generator: torch.Generator) -> Tensor:
        return _stamped(state, x)

    def poison(
        state: Planted[_Generator], x: Tensor, y: Tensor, index: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        assert attack.poison is not None
        return attack.poison(state, x, y, index, generator) if state.own.ready else (x, y)

    attack = backdoor("iba", stamp, target=target, source=source, share=share, init=init, plan=plan)
    return attack._replace(poison=poison)
