"""Views as the platform would give them, built by hand, to try a single stage on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backstop.platform.contract import (
    AttackView,
    ClientView,
    Kind,
    RoundView,
    Samples,
    ServerView,
    Slot,
    Step,
    TrainView,
    Updates,
)
from backstop.platform.examples import (
    attack_view_of,
    batch_norm,
    one_step,
    server_view_of,
    train_view_of,
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
    known = _known(d, generator(0, "tests", "defense", round), round)
    return server_view_of(known, samples("table", 20, "root"), one_step(model))


def server_view_with(given: Updates, round: int = 0) -> ServerView:  # noqa: A002
    """A server's view once these updates have come, with buffers that tell the rows apart: those of
    a BatchNorm layer whose running means and variances moved as the parameters did.
    """
    plain = plain_server_view(given.rows.shape[1], round)
    buffers = batch_norm(given.rows, given.rows + 1)
    return replace(plain, buffers=buffers._replace(client=given.client))


def plain_client_view(kind: Kind, *, d: int = 24, shape: tuple[int, ...] = (3, 8, 8)) -> ClientView:
    """What one honest client knows before its local steps."""
    known = _known(d, generator(0, "tests", "local"))
    return ClientView(**vars(known), data=samples(kind, 12, "client", shape))


def _known(
    d: int,
    draws: torch.Generator,
    round: int = 0,  # noqa: A002 -- the field's name
) -> RoundView:
    """What everybody knows of a model with d parameters; ``draws`` is the view's own generator."""
    head = (LABEL_COUNT, d // LABEL_COUNT) if d >= LABEL_COUNT else (d, 1)
    return RoundView(
        round=round,
        params=torch.randn(d, generator=generator(0, "tests", "params")),
        layout=(Slot("weight", 0, (d,)),),
        model=model,
        features=features,
        head=(Slot("head.weight", 0, head),),
        classes=LABEL_COUNT,
        generator=draws,
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
    data = samples(kind, 40 if malicious else 0, shape=shape)
    each = 40 // malicious if malicious else 0
    external = tuple(
        Samples(samples(kind, 8, name, shape).x, torch.full((8,), LABEL_COUNT - 1))
        for name in ("edge", "edge test")
    )
    view = attack_view_of(
        _known(d, generator(0, "tests", "attack")),
        kind,
        data,
        sizes=(each,) * (malicious - 1) + (40 - each * (malicious - 1),) if malicious else (),
        total=10,
        train=one_step(model),
    )
    return replace(
        view,
        edge_cases=(lambda: (external[0], external[1])) if edges else None,
        vocabulary=VOCABULARY if kind == "text" else None,
    )


def uneven(rows: Tensor) -> Updates:
    """Rows of clients with 1, 2, 3 … samples."""
    return Updates(rows, torch.arange(1.0, len(rows) + 1), torch.arange(len(rows)))


def accepting(
    given: Updates,
    /,
    memory: Any = None,
    at: Any = None,
    buffers: Tensor | None = None,
) -> tuple[Updates, Any]:
    """A defense that leaves every row as it is, and remembers nothing."""
    del at, buffers
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
    draws = generator(0, "tests", "poison", index)
    steps = []
    for number in range(3):
        x, y = samples(kind, 8, f"batch {index} {number}", shape)
        poisoned = poison(x, y, index, draws) if poison else (x, torch.zeros_like(y))
        steps.append(Step(Samples(x, y), Samples(*poisoned)))
    known = _known(d, generator(0, "tests", "malicious training", index))
    return train_view_of(known, steps, index)


def with_test(view: AttackView, shape: tuple[int, ...] = (3, 8, 8)) -> AttackView:
    """The same view while the triggered test set is built."""
    return replace(view, test=samples(view.kind, 32, "test", shape))


def with_data(view: AttackView, data: Samples) -> AttackView:
    """The same view of an adversary with other data, all held by its first client."""
    return replace(view, samples=lambda: data, sizes=(len(data.y),) + (0,) * (view.clients - 1))
