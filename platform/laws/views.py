"""Views as the platform would give them, built by hand, to try a single stage on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backstop.platform.contract import (
    AttackView,
    ClientView,
    Kind,
    Memory,
    Samples,
    ServerView,
    Slot,
    Step,
    TrainView,
    Updates,
)
from backstop.platform.seeds import generator

LABEL_COUNT = 4
FEATURES = 6
VOCABULARY = {f"word{number}": number for number in range(1, 50)}
PoisonRule = Callable[[Tensor, Tensor, int, torch.Generator], tuple[Tensor, Tensor]]


def model(params: Tensor, x: Tensor) -> Tensor:
    """A linear model whose weights are the parameters, repeated as often as needed: it takes any d
    and any input.
    """
    flat = x.flatten(1).float()
    length = flat.shape[1] * LABEL_COUNT
    return flat @ params.repeat(-(-length // len(params)))[:length].reshape(
        flat.shape[1], LABEL_COUNT
    )


def features(params: Tensor, x: Tensor) -> Tensor:
    """What a head of ``head(d)`` would be given: (b, h) features that depend on the parameters and
    the input.
    """
    flat = x.flatten(1).float()
    wide = max(len(params) // LABEL_COUNT, 1)
    return torch.tanh(flat.repeat(1, -(-wide // flat.shape[1]))[:, :wide] + params[-wide:])


def one_step(params: Tensor, given: Samples) -> Tensor:
    """One step of gradient descent on the cross-entropy."""
    start = params.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(start, given.x), given.y)
    return torch.autograd.grad(loss, start)[0] * -0.1


def samples(
    kind: Kind, count: int, name: str = "data", shape: tuple[int, ...] = (3, 8, 8)
) -> Samples:
    """Inputs as the model call takes them; the classes take turns."""
    draws = generator(0, "tests", kind, name)
    y = torch.arange(count) % LABEL_COUNT
    if kind == "image":
        return Samples(torch.rand(count, *shape, generator=draws), y)
    if kind == "table":
        return Samples(torch.randn(count, FEATURES, generator=draws) + y[:, None], y)
    return Samples(torch.randint(1, 50, (count, FEATURES), generator=draws), y)


def plain_server_view(d: int, round: int = 0) -> ServerView:  # noqa: A002 -- the field's name
    """A server's view of d parameters."""
    return ServerView(
        round=round,
        params=torch.randn(d, generator=generator(0, "tests", "params")),
        layout=(Slot("weight", 0, (d,)),),
        model=model,
        features=features,
        train=one_step,
        head=(
            Slot("head.weight", 0, (LABEL_COUNT, d // LABEL_COUNT) if d >= LABEL_COUNT else (d, 1)),
        ),
        root=samples("table", 20, "root"),
        classes=LABEL_COUNT,
        server_lr=1.0,
        generator=generator(0, "tests", "defense", round),
    )


def plain_client_view(kind: Kind, *, d: int = 24, shape: tuple[int, ...] = (3, 8, 8)) -> ClientView:
    """What one honest client knows before its local steps."""
    server = plain_server_view(d)
    return ClientView(
        round=0,
        params=server.params,
        layout=server.layout,
        model=model,
        features=features,
        head=server.head,
        classes=LABEL_COUNT,
        generator=generator(0, "tests", "local"),
        data=samples(kind, 12, "client", shape),
    )


def two_poisoned(
    x: Tensor, y: Tensor, _index: int, _draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch with two poisoned samples: one in its input, one in its label."""
    x, y = x.clone(), y.clone()
    x[0], y[1] = 3.0, 0
    return x, y


def plain_attack_view(
    kind: Kind,
    *,
    d: int = 24,
    malicious: int = 3,
    shape: tuple[int, ...] = (3, 8, 8),
    edges: bool = False,
) -> AttackView:
    """An adversary's view inside a round, without honest rows and test set."""
    found = samples(kind, 40 if malicious else 0, shape=shape)
    each = 40 // malicious if malicious else 0
    external = tuple(
        Samples(samples(kind, 8, name, shape).x, torch.full((8,), LABEL_COUNT - 1))
        for name in ("edge", "edge test")
    )
    server = plain_server_view(d)
    sizes = (each,) * (malicious - 1) + (40 - each * (malicious - 1),) if malicious else ()
    parts = zip(found.x.split(sizes), found.y.split(sizes), strict=True)
    shares = [Samples(*part) for part in parts]
    return AttackView(
        round=0,
        params=server.params,
        layout=server.layout,
        model=model,
        features=features,
        train=one_step,
        unpoisoned=lambda: torch.stack([one_step(server.params, data) for data in shares]),
        head=server.head,
        samples=lambda: found,
        sizes=sizes,
        classes=LABEL_COUNT,
        kind=kind,
        clients=malicious,
        members=torch.arange(malicious),
        total=10,
        share=malicious / 10,
        server_lr=1.0,
        generator=generator(0, "tests", "attack"),
        edge_cases=(lambda: (external[0], external[1])) if edges else None,
        vocabulary=VOCABULARY if kind == "text" else None,
    )


def uneven(rows: Tensor) -> Updates:
    """Rows of clients with 1, 2, 3 … samples."""
    return Updates(rows, torch.arange(1.0, len(rows) + 1), torch.arange(len(rows)))


def accepting(given: Updates, /, memory: Any = None, at: Any = None) -> tuple[Updates, Any]:
    """A defense that leaves every row as it is, and remembers nothing."""
    del at
    return given, memory


def allowed(view: AttackView, knows: str) -> AttackView:
    """The view as a stage that knows this much has it."""
    honest = torch.randn(
        view.total - len(view.members), len(view.params), generator=generator(0, "tests", "honest")
    )
    return replace(
        view,
        honest=honest if knows == "all" else None,
        defend=accepting if knows == "defense" else None,
    )


def plain_train_view(
    kind: Kind,
    poison: PoisonRule | None = None,
    *,
    index: int = 0,
    d: int = 24,
    shape: tuple[int, ...] = (3, 8, 8),
) -> TrainView:
    """What one malicious client has for local training of its own; its batches under ``poison(x, y,
    index, draws)``, or all class 0.
    """
    server, draws, found = plain_server_view(d), generator(0, "tests", "poison", index), []
    for number in range(3):
        x, y = samples(kind, 8, f"batch {index} {number}", shape)
        found.append(
            Step(
                Samples(x, y),
                Samples(*poison(x, y, index, draws)) if poison else Samples(x, torch.zeros_like(y)),
            )
        )

    def minimise(
        loss: Callable[[Tensor, Step], Tensor],
        start: Tensor | None = None,
        steps: Sequence[Step] | None = None,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,  # plain descent remembers nothing
    ) -> Tensor:
        del memory
        params = (server.params if start is None else start).detach().clone()
        taken = found if steps is None else steps
        for step, rate in zip(taken, rates or [1.0] * len(taken), strict=True):
            leaf = params.clone().requires_grad_()
            params = params - 0.1 * rate * torch.autograd.grad(loss(leaf, step), leaf)[0]
        return params

    return TrainView(
        round=0,
        index=index,
        params=server.params,
        layout=server.layout,
        model=model,
        features=features,
        head=server.head,
        classes=LABEL_COUNT,
        steps=tuple(found),
        loss=torch.nn.functional.cross_entropy,
        minimise=minimise,
        generator=generator(0, "tests", "malicious training", index),
    )


def with_test(view: AttackView, shape: tuple[int, ...] = (3, 8, 8)) -> AttackView:
    """The same view while the triggered test set is built."""
    return replace(view, test=samples(view.kind, 32, "test", shape))


def with_data(view: AttackView, data: Samples) -> AttackView:
    """The same view of an adversary with other data, all held by its first client."""
    return replace(view, samples=lambda: data, sizes=(len(data.y),) + (0,) * (view.clients - 1))
