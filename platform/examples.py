"""Views made by hand, to try one stage on: all that the contract promises, without a federation.

``server_view``, ``attack_view`` and ``train_view`` are for examples and tests of plug-ins. Their
model is linear in one feature and has one class for each parameter: logits = x · params. Where an
example needs another field, ``dataclasses.replace`` sets it. ``server_view_of``, ``attack_view_of``
and ``train_view_of`` make the views of any model, those of the laws too.

>>> view = server_view(torch.tensor([1.0, -1.0]))
>>> view.model(view.params, torch.tensor([[2.0]]))
tensor([[ 2., -2.]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform import seeds
from backstop.platform.contract import (
    Answers,
    AttackView,
    Buffers,
    ClientView,
    Kind,
    Memory,
    Minimize,
    Question,
    RoundView,
    RunDefense,
    Samples,
    ServerView,
    Slot,
    Step,
    TrainView,
    Updates,
    Validate,
)

RATE = 0.1  # of every descent
Train = Callable[[Tensor, Samples], Tensor]  # (params (d,), samples) → update (d,)
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
    return server_view_of(_known(params, "defense"), root, _training(update))


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
    view = attack_view_of(
        _known(params, "attack"),
        "table",
        TWO_SAMPLES,
        sizes=(len(TWO_SAMPLES.y),),
        total=total,
        train=_training(update),
    )
    return replace(view, honest=honest, defend=defend)


def train_view(params: Tensor, steps: Sequence[Step] = ()) -> TrainView:
    """What a malicious client has for local training of its own; ``minimise`` is gradient descent
    at a learning rate of 0.1.

    >>> view = train_view(torch.zeros(2), [Step(TWO_SAMPLES, TWO_SAMPLES)] * 2)
    >>> view.minimise(lambda params, step: params.sum())
    tensor([-0.2000, -0.2000])
    """
    return train_view_of(_known(params, "malicious training"), steps)


def server_view_of(
    known: RoundView,
    root: Samples,
    train: Train,
) -> ServerView:
    """What a server knows besides what everybody does."""
    return ServerView(
        **vars(known),
        train=train,
        root=root,
        server_lr=1.0,
        validate=validation_of(known, root),
    )


def validation_of(known: RoundView, data: Samples) -> Validate:
    """A validation round in which everybody has the same data and is honest; of a federation of
    any size, the first clients are drawn.
    """

    def validate(question: Question, voters: Tensor | int) -> Answers:
        client = torch.arange(voters) if isinstance(voters, int) else voters.sort().values
        scores = []
        for name in client.tolist():
            draws = seeds.generator(0, "examples", "validation", name)
            view = ClientView(**{**vars(known), "generator": draws}, data=data)
            scores.append(question.answer(view, name))
        return Answers(client, torch.stack(scores))

    return validate


def question(count: int, low: float = -inf, high: float = inf) -> Question:
    """One about so many models of zeros, each of a client of its own, which are worth nothing."""
    return Question(
        torch.zeros(count, 2),
        torch.arange(count),
        lambda models, view, client: torch.zeros(len(models), 1),
        low,
        high,
    )


def batch_norm(mean: Tensor, variance: Tensor) -> Buffers:
    """What clients 0 … n - 1 sent of a BatchNorm layer with c channels: running means and variances
    (n, c). The global ones are 0 and 1.

    >>> sent = batch_norm(torch.tensor([[0.5]]), torch.tensor([[2.0]]))
    >>> sent.of(torch.tensor([0])), [slot.name for slot in sent.layout]
    (tensor([[0.5000, 2.0000]]), ['running_mean', 'running_var'])
    """
    channels = mean.shape[1]
    start = torch.tensor([0.0, 1.0]).repeat_interleave(channels)
    layout = (
        Slot("running_mean", 0, (channels,)),
        Slot("running_var", channels, (channels,)),
    )
    sent = torch.cat([mean, variance], 1)
    return Buffers(torch.arange(len(mean)), sent - start, start, layout)


def attack_view_of(
    known: RoundView,
    kind: Kind,
    data: Samples,
    *,
    sizes: Sequence[int],
    total: int,
    train: Train,
) -> AttackView:
    """What an adversary knows besides what everybody does: the data of its clients, of whom each
    has so many samples and all attack in a cohort of ``total``.
    """
    clients = len(sizes)

    def unpoisoned() -> Tensor:
        parts = zip(data.x.split(list(sizes)), data.y.split(list(sizes)), strict=True)
        return torch.stack([train(known.params, Samples(*part)) for part in parts])

    def unpoisoned_buffers() -> Tensor:
        """As many as parameters, moved half as far."""
        return unpoisoned() / 2

    return AttackView(
        **vars(known),
        train=train,
        unpoisoned=unpoisoned,
        unpoisoned_buffers=unpoisoned_buffers,
        samples=lambda: data,
        sizes=tuple(sizes),
        kind=kind,
        clients=clients,
        members=torch.arange(clients),
        total=total,
        share=clients / total,
        server_lr=1.0,
        edge_cases=None,
    )


def train_view_of(
    known: RoundView,
    steps: Sequence[Step],
    index: int = 0,
) -> TrainView:
    """What malicious client ``index`` knows besides what everybody does."""
    return TrainView(
        **vars(known),
        index=index,
        steps=tuple(steps),
        loss=cross_entropy,
        minimise=_descent(known.params, steps),
    )


def one_step(model: Callable[[Tensor, Tensor], Tensor]) -> Train:
    """Local training that is one step of gradient descent on a model's cross-entropy."""

    def train(params: Tensor, given: Samples) -> Tensor:
        start = params.clone().requires_grad_()
        loss = cross_entropy(model(start, given.x), given.y)
        return -RATE * torch.autograd.grad(loss, start)[0]

    return train


def _descent(params: Tensor, its_steps: Sequence[Step]) -> Minimize:
    def minimise(
        loss: Callable[[Tensor, Step], Tensor],
        start: Tensor | None = None,
        steps: Sequence[Step] | None = None,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,  # plain descent remembers nothing
    ) -> Tensor:
        del memory
        taken = its_steps if steps is None else steps
        vector = (params if start is None else start).detach().clone()
        for step, rate in zip(taken, rates or [1.0] * len(taken), strict=True):
            leaf = vector.clone().requires_grad_()
            vector = vector - RATE * rate * torch.autograd.grad(loss(leaf, step), leaf)[0]
        return vector

    return minimise


def _known(params: Tensor, draws: str) -> RoundView:
    """What everybody knows of the tiny model; ``draws`` names the view's generator."""
    layout = (Slot("weight", 0, (len(params), 1)),)
    return RoundView(
        round=0,
        params=params,
        layout=layout,
        model=_logits,
        features=_features,
        head=layout,
        classes=len(params),
        generator=seeds.generator(0, "examples", draws),
    )


def _logits(params: Tensor, x: Tensor) -> Tensor:
    return x * params


def _features(_: Tensor, x: Tensor) -> Tensor:
    return x


def _training(update: Tensor | None) -> Train:
    """Local training that gives this update, unless given a step on the tiny model."""
    if update is None:
        return one_step(_logits)
    return lambda params, samples: update
