"""Views for the examples and tests of one stage: all that the contract promises, on a tiny model.

The model is linear in one feature and has one class for each parameter: logits = x · params. Where
an example needs another field, ``dataclasses.replace`` sets it.

>>> view = server_view(torch.tensor([1.0, -1.0]))
>>> view.model(view.params, torch.tensor([[2.0]]))
tensor([[ 2., -2.]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform import seeds
from backstop.platform.contract import (
    AttackView,
    Memory,
    RunDefense,
    Samples,
    ServerView,
    Slot,
    Step,
    TrainView,
    Updates,
)

TWO_SAMPLES = Samples(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]))


def updates(rows: Tensor) -> Updates:
    """Rows (n, d) of equal weight, of clients 0 … n - 1."""
    return Updates(rows, torch.ones(len(rows)), torch.arange(len(rows)))


def server_view(
    params: Tensor | None = None,
    *,
    update: Tensor | None = None,
    root: Samples = TWO_SAMPLES,
) -> ServerView:
    """What a server knows in the first round, with a global model (d,). ``update`` (d,) is what
    honest training gives, unless given a step of gradient descent.

    >>> server_view(update=torch.ones(2)).train(torch.zeros(2), TWO_SAMPLES)
    tensor([1., 1.])
    """
    params = torch.zeros(2) if params is None else params
    return ServerView(
        round=0,
        params=params,
        layout=_layout(params),
        model=_logits,
        features=_features,
        train=_training(update),
        head=_layout(params),
        root=root,
        classes=len(params),
        server_lr=1.0,
        generator=seeds.generator(0, "examples", "defense"),
    )


def attack_view(
    params: Tensor | None = None,
    *,
    honest: Tensor | None = None,
    update: Tensor | None = None,
    defend: RunDefense | None = None,
    total: int = 3,
) -> AttackView:
    """What an adversary with one client among ``total`` knows, as a stage that sees the honest rows
    (n, d) or may ask the defense, where they are given. ``update`` (d,) is what honest training
    gives, its own clients' too.

    >>> attack_view(torch.zeros(2)).unpoisoned()
    tensor([[-0.0250,  0.0250]])
    """
    if params is None:
        given = honest[0] if honest is not None else update
        params = torch.zeros(2) if given is None else torch.zeros_like(given)
    train = _training(update)
    return AttackView(
        round=0,
        params=params,
        layout=_layout(params),
        model=_logits,
        features=_features,
        train=train,
        unpoisoned=lambda: train(params, TWO_SAMPLES)[None],
        head=_layout(params),
        samples=lambda: TWO_SAMPLES,
        sizes=(len(TWO_SAMPLES.y),),
        classes=len(params),
        kind="table",
        clients=1,
        members=torch.tensor([0]),
        total=total,
        share=1 / total,
        server_lr=1.0,
        generator=seeds.generator(0, "examples", "attack"),
        edge_cases=None,
        honest=honest,
        defend=defend,
    )


def train_view(params: Tensor, steps: Sequence[Step] = ()) -> TrainView:
    """What a malicious client has for local training of its own; ``minimise`` is gradient descent
    at a learning rate of 0.1.

    >>> view = train_view(torch.zeros(2), [Step(TWO_SAMPLES, TWO_SAMPLES)] * 2)
    >>> view.minimise(lambda params, step: params.sum())
    tensor([-0.2000, -0.2000])
    """

    def minimise(
        loss: Callable[[Tensor, Step], Tensor],
        start: Tensor | None = None,
        steps: Sequence[Step] | None = steps,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,  # plain descent remembers nothing
    ) -> Tensor:
        del memory
        steps = steps or ()
        vector = (params if start is None else start).detach().clone()
        for step, rate in zip(steps, rates or [1.0] * len(steps), strict=True):
            leaf = vector.requires_grad_()
            vector = vector.detach() - 0.1 * rate * torch.autograd.grad(loss(leaf, step), leaf)[0]
        return vector

    return TrainView(
        round=0,
        index=0,
        params=params,
        layout=_layout(params),
        model=_logits,
        features=_features,
        head=_layout(params),
        classes=len(params),
        steps=tuple(steps),
        loss=cross_entropy,
        minimise=minimise,
        generator=seeds.generator(0, "examples", "malicious training"),
    )


def _layout(params: Tensor) -> tuple[Slot, ...]:
    return (Slot("weight", 0, (len(params), 1)),)


def _logits(params: Tensor, x: Tensor) -> Tensor:
    return x * params


def _features(_: Tensor, x: Tensor) -> Tensor:
    return x


def _training(update: Tensor | None) -> Callable[[Tensor, Samples], Tensor]:
    def train(params: Tensor, samples: Samples) -> Tensor:
        if update is not None:
            return update
        start = params.clone().requires_grad_()
        loss = cross_entropy(_logits(start, samples.x), samples.y)
        return -0.1 * torch.autograd.grad(loss, start)[0]

    return train
