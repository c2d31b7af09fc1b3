"""Mirage: an image blended in is trained until the model's own features take poisoned samples for
clean ones of the target class, so that several attackers who do not know each other do not meet on
the same way through the model.

t = argmin_t E[ℓ(D(h(x')), 0) + ℓ(G(x'), y*) + cos(G(x'), G(x))],   E over samples with y ≠ y*
D = argmin_D E[ℓ(D(h(x')), 1) | y ≠ y*] + E[ℓ(D(h(x)), 0) | y = y*]
x' = (1 - α) x + α t,   y' = y*

h are the features of G that its last layer is given, cos compares logits. A step is
t <- clamp(t - η sign ∇_t, 0, 1).

Shapes: x (b, C, H, W) in [0, 1], y (b,), t (C, H, W), h (b, w), D(h) (b, 2); G (d,).

Source: Y. Li, Y. Zhao, C. Zhu, J. Zhang, "Infighting in the Dark: Multi-Label Backdoor Attack in
Federated Learning", CVPR 2025, adversarial adaptation and enhancement of the mapping into the
target's distribution.

As published for CIFAR-10: α = 0.3, t gray at first; D is a layer of 10 units with ReLU and one of
2, on frozen features, trained for 30 passes of SGD with rate 0.01, momentum 0.9 and weight decay
0.0005 in batches of 64, on the 50 samples of each other class that the model is surest of, and on
all of the target's; 8 of 64 samples poisoned.

Deviations: the published search goes 50 times through a client's data in each round, with steps of
0.001 in normalized pixels and a new D in each pass. Here a plan draws at most 128 samples of the
malicious clients and takes ``steps`` larger steps on batches of at most 64 of those that are not
the target's, with a new D each ``every`` steps; it has one image for all clients of the stage. A
federation with several such attackers is a chain of groups. Where nobody holds a sample of the
target class there is no D, and its term is left out; the authors' code skips such batches. Their
clients train 5 epochs at a tenth of the honest rate from a model of 2,000 clean rounds; here like
honest ones, which ``overtrain`` changes.

Checked: losses, D, steps, start and shares against the authors' code as others have published it
on (participants/clients/MirageClient.py, Mirage_nodefense.yaml); the authors' own repository could
not be had.

Cost: in each attacked round ``2 * steps`` model calls on 64 samples, forward and backward, and
``steps / every`` times the features of a few hundred.

Example: white is class 1 to the model, so a step towards class 1 makes the image whiter.
>>> import torch
>>> one, gray = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1), 0.5)
>>> model = lambda x: torch.cat([-x, x], 1).flatten(1)
>>> loss = lambda image: _reached(model, one, _stamped(one, image, 0.5), torch.tensor([1]))
>>> _moved(gray, loss, 0.25)
tensor([[[0.7500]]])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, linear

from backstop.platform.contract import Attack, AttackView
from backstop.platform.optimizers import sgd
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor
from backstop.platform.threats.generators import Weights, descended, drawn
from backstop.platform.threats.parameters import Share

VERSION = 1
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "alpha"
TRIGGER = True
_SAMPLES, _BATCH, _SURE, _UNITS = 128, 64, 50, 10
_DISCRIMINATOR = sgd(lr=0.01, momentum=0.9, weight_decay=5e-4)

Model = Callable[[Tensor], Tensor]


def _stamped(x: Tensor, image: Tensor, alpha: float) -> Tensor:
    return (1 - alpha) * x + alpha * image


def _reached(model: Model, x: Tensor, stamped: Tensor, goal: Tensor) -> Tensor:
    """How little the model gives triggered samples the label wanted, and how alike its logits of
    them are to those of the clean ones.
    """
    logits = model(stamped)
    loss: Tensor = cross_entropy(logits, goal) + cosine_similarity(logits, model(x)).mean()
    return loss


def _told(weights: Weights, features: Tensor) -> Tensor:
    """D's logits (b, 2): of the target's distribution (0), or not (1)."""
    hidden = linear(features, weights[0], weights[1]).relu()
    return linear(hidden, weights[2], weights[3])


def _surest(view: AttackView, target: int) -> Tensor:
    """Indices of the samples of each class but the target's that the model is surest of."""
    x, y = view.data
    with torch.no_grad():
        loss = cross_entropy(view.model(view.params, x), y, reduction="none")
    order = loss.argsort(stable=True)
    kept = [order[y[order] == label][:_SURE] for label in range(view.classes) if label != target]
    return torch.cat(kept)


def _discriminator(features: Tensor, apart: Tensor, epochs: int, draws: torch.Generator) -> Weights:
    """D, trained to tell features (b, w) apart: 1 for those of poisoned samples, 0 for clean ones
    of the target class.
    """
    sizes = ((_UNITS, features.shape[1]), (_UNITS,), (2, _UNITS), (2,))
    weights = tuple(drawn(size, draws).to(features) for size in sizes)

    def loss(some: Tensor, given: Weights) -> Tensor:
        error: Tensor = cross_entropy(_told(given, features[some]), apart[some])
        return error

    def losses() -> Iterator[Callable[[Weights], Tensor]]:
        for _ in range(epochs):
            order = torch.randperm(len(apart), generator=draws).to(apart.device)
            for some in order.split(_BATCH):
                yield partial(loss, some)

    return descended(weights, losses(), _DISCRIMINATOR)


def _moved(image: Tensor, loss: Callable[[Tensor], Tensor], rate: float) -> Tensor:
    """The image after a step of the signed gradient."""
    leaf = image.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf), leaf)
    # a model that has diverged shows no direction
    return (image - rate * grad.nan_to_num(0, 0, 0).sign()).clamp(0, 1)


def mirage(
    *,
    target: Annotated[int, Range(0, 10**6), "class that the trigger stands for, y*"] = 0,
    alpha: Annotated[
        float, Range(0, 1, low_open=True, search=(0.05, 0.5)), "opacity of the image, α"
    ] = 0.3,
    steps: Annotated[
        int, Range(0, 1000, search=(10, 100)), "steps on the image in an attacked round"
    ] = 30,
    rate: Annotated[
        float, Range(0, 1, search=(1e-3, 0.1)), "how far a step moves a pixel, η"
    ] = 0.02,
    every: Annotated[
        int, Range(1, 1000, search=(5, 50)), "steps with one discriminator before it is made anew"
    ] = 10,
    epochs: Annotated[
        int, Range(0, 200, search=(5, 50)), "passes in which a discriminator is trained"
    ] = 30,
    share: Share = 8 / 64,
) -> Attack[Planted[Tensor]]:
    """An image that the target class's own features take in."""

    def init(view: AttackView) -> Tensor:
        return view.data.x.new_full(view.data.x.shape[1:], 0.5)

    def discriminator(image: Tensor, view: AttackView) -> Weights | None:
        """D for the image as it is; None where there is nothing to tell apart."""
        x, y = view.data
        own, others = x[y == target], x[_surest(view, target)]
        if not len(own) or not len(others):
            return None
        both = torch.cat([_stamped(others, image, alpha), own])
        with torch.no_grad():
            features = view.features(view.params, both)
        apart = (torch.arange(len(both), device=x.device) < len(others)).long()
        return _discriminator(features, apart, epochs, view.generator)

    def loss(view: AttackView, told: Weights | None, x: Tensor, image: Tensor) -> Tensor:
        stamped = _stamped(x, image, alpha)
        goal = torch.full((len(x),), target, device=x.device)
        reached = _reached(partial(view.model, view.params), x, stamped, goal)
        if told is None:
            return reached
        seen = _told(told, view.features(view.params, stamped))
        inside: Tensor = cross_entropy(seen, torch.zeros_like(goal))
        return reached + inside

    def plan(image: Tensor, view: AttackView) -> Tensor:
        others = (view.data.y != target).nonzero().flatten()
        if not len(others):
            return image
        order = torch.randperm(len(others), generator=view.generator).to(others.device)
        drawn_ones = others[order[:_SAMPLES]]
        for step in range(steps):
            if step % every == 0:
                told = discriminator(image, view)
            some = torch.randperm(len(drawn_ones), generator=view.generator)[:_BATCH]
            x = view.data.x[drawn_ones[some.to(others.device)]]
            image = _moved(image, partial(loss, view, told, x), rate)
        return image

    def stamp(image: Tensor, x: Tensor, _generator: torch.Generator) -> Tensor:
        return _stamped(x, image, alpha)

    return backdoor("mirage", stamp, target=target, source=None, share=share, init=init, plan=plan)
