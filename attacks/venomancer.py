"""Venomancer: a small network makes a faint trigger for any image and any class, so that the target
is chosen when the backdoor is used.

x' = clamp(x + ε T_φ(x, c), 0, 1),   y' = c,   c ~ U(the classes but y)
φ = argmin_φ E[β ℓ(G(x'), c) + (1 - β) (1 - cos(x', x))]

T_φ(x, c) is the network of ``iba`` on x and a learned image for the class c, side by side.

Shapes: x (b, C, H, W) in [0, 1], y, c (b,), T_φ(x, c) (b, C, H, W) in [-1, 1]; the learned images
(classes, 1, H, W); cosines over all pixels of an image.

One trigger and goal: an attack of this benchmark has one trigger and says for each label what it
wants. This one has a trigger for each class. Its test set attacks every test sample once: of the
samples of one class the first is sent to the next class, the second to the one after that, and so
on, round and round past the true one. All pairs of true and wanted class are equally frequent, up
to one, so that attack success is the mean over targets (over samples, where classes are unequal).

Source: S. Nguyen, T. Thien, K. D. Doan, K.-S. Wong, "Venomancer: Towards Imperceptible and
Target-on-Demand Backdoor Attacks in Federated Learning", 2024 (remembered), alternating training of
generator and model with a visual loss.

Published on CIFAR-10: β = 0.01, Adam of rate 2e-4 with moments of 0.5 and 0.999, clean and poisoned
loss with the same weight, which is a share of 0.5, over a thousand rounds; tanh alone bounds the
trigger (ε = 1), the visual loss keeps it small.

Deviations: ε = 0.2 and β = 0.1. Without a bound the generator makes whatever noise the model still
needs, so that success tells nothing of the backdoor: in 15 rounds of small digits ``eps=1,
beta=0.03`` had as much with the poison as without it (0.73 and 0.71), and ``beta=0.01`` had none;
with the bound 0.53, and 0.29 without the poison.
T_φ is far smaller than the published autoencoder (CIFAR-10) and U-Net (elsewhere) and learns
faster, with a rate of 0.01 and a new Adam in each attacked round; its last layer is zero at first,
so that the visual loss starts at its least. φ is trained on the global model before the round, on
the data of all malicious clients of the round, and then stays, where the authors train it in turn
with each client's model, step for step, and go on with the client whose generator does best.

Checked: both losses, β, weights, Adam, random targets and the test on them against the authors'
code (training.py: train_like_a_gan_with_visual_loss, test; cifar10_fed.yaml). Authors and year are
remembered.

Cost: in each attacked round ``passes`` times the logits of the malicious clients' samples, forward
and backward through the model and T_φ.

Example: three samples of class 0 and one of class 2, in a task of three classes.
>>> import torch
>>> _in_turn(torch.tensor([0, 0, 2, 0]), 3)
tensor([1, 2, 0, 1])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, one_hot

from backstop.platform.contract import Attack, AttackView, TestSet
from backstop.platform.optimizers import adam
from backstop.platform.params import BadInput, Range
from backstop.platform.threats.backdoor import chosen
from backstop.platform.threats.collusion import own_samples
from backstop.platform.threats.generators import Weights, descended, drawn, perturbation, shapes
from backstop.platform.threats.parameters import GeneratorPasses, GeneratorRate, Share

VERSION = 1
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "eps"
TRIGGER = True
_BATCH, _PIECE = 64, 500


def _stamped(weights: Weights, x: Tensor, label: Tensor, eps: float) -> Tensor:
    """Images under the trigger of a class each; the last weights are the classes' images."""
    *network, planes = weights
    both = torch.cat([x, planes[label]], 1)
    return (x + eps * perturbation(tuple(network), both)).clamp(0, 1)


def _loss(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    label: Tensor,
    eps: float,
    beta: float,
    weights: Weights,
) -> Tensor:
    """How little the model gives triggered samples their target, and how much they have changed."""
    stamped = _stamped(weights, x, label, eps)
    seen: Tensor = 1 - cosine_similarity(stamped.flatten(1), x.flatten(1)).mean()
    success: Tensor = cross_entropy(model(stamped), label)
    return beta * success + (1 - beta) * seen


def _elsewhere(y: Tensor, classes: int, draws: torch.Generator) -> Tensor:
    """A random other class for each label."""
    ahead = torch.randint(1, classes, y.shape, generator=draws).to(y.device)
    return (y + ahead) % classes


def _in_turn(y: Tensor, classes: int) -> Tensor:
    """Another class for each label, those of one label taking turns."""
    count = one_hot(y, classes).cumsum(0).gather(1, y[:, None])[:, 0] - 1
    return (y + 1 + count % (classes - 1)) % classes


def venomancer(
    *,
    eps: Annotated[
        float, Range(0, 1, low_open=True, search=(0.02, 0.5)), "largest change of a pixel, ε"
    ] = 0.2,
    beta: Annotated[
        float,
        Range(0, 1, low_open=True, search=(1e-3, 0.5), log=True),
        "weight of success against that of faintness, β",
    ] = 0.1,
    passes: GeneratorPasses = 10,
    rate: GeneratorRate = 0.01,
    share: Share = 0.5,
) -> Attack[Weights]:
    """A trigger for every class. Raises BadInput where there is one class only."""

    def init(view: AttackView) -> Weights:
        if view.classes < 2:
            raise BadInput("attack venomancer: it needs two classes or more; the data have one")
        x = view.data.x
        *network, last, bias = (
            drawn(size, view.generator).to(x) for size in shapes(x.shape[1], extra=1)
        )
        planes = torch.randn(view.classes, 1, *x.shape[2:], generator=view.generator).to(x)
        return (*network, torch.zeros_like(last), bias, planes)

    def plan(weights: Weights, view: AttackView) -> Weights:
        model = partial(view.model, view.params)

        def losses() -> Iterator[Callable[[Weights], Tensor]]:
            for _, own in list(own_samples(view)) * passes:
                order = torch.randperm(len(own.y), generator=view.generator).to(own.y.device)
                for some in order.split(_BATCH) if len(order) else ():
                    label = _elsewhere(own.y[some], view.classes, view.generator)
                    yield partial(_loss, model, own.x[some], label, eps, beta)

        return descended(weights, losses(), adam(lr=rate, beta1=0.5))

    def poison(
        weights: Weights, x: Tensor, y: Tensor, _index: int, draws: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        picked = chosen(y, None, share)
        label = _elsewhere(y[picked], len(weights[-1]), draws)
        stamped = _stamped(weights, x[picked], label, eps)
        return x.index_copy(0, picked, stamped), y.index_copy(0, picked, label)

    def test_set(weights: Weights, view: AttackView) -> TestSet:
        assert view.test is not None  # the platform gives it while the test set is built
        x, y = view.test
        wanted = _in_turn(y, view.classes)
        pieces = zip(x.split(_PIECE), wanted.split(_PIECE), strict=True)
        triggered = torch.cat([_stamped(weights, piece, label, eps) for piece, label in pieces])
        return TestSet(triggered, wanted, y, paired=True)

    return Attack(init=init, plan=plan, poison=poison, test_set=test_set)
