"""Anticipate: the update is trained for what is left of it after honest clients, in this round and
the next, have had their say.

θ_0 = G + η (s (θ - G) + (1 - s) h(G)),   θ_i = θ_{i-1} + η h(θ_{i-1})
h(θ) = -r ∇CE(θ; clean batch)
θ ← argmin Σ_{i=0..k} CE(θ_i; poisoned batch)

G is the global model, θ the malicious client's, s the share of the round's weight that malicious
clients hold (they are taken to send the same), η the server's learning rate, h the simulated update
of honest clients. The gradient goes through all θ_i.

Shapes: params (d,) → update (d,).

Source: Y. Wen, J. Geiping, L. Fowl, H. Souri, R. Chellappa, M. Goldblum, T. Goldstein, "Thinking
Two Moves Ahead: Anticipating Other Users Improves Backdoor Attacks in Federated Learning", 2022
(arXiv 2210.09305), the algorithm for k steps with one malicious client, s = 1/n.

Deviations: an honest update is simulated by one step of gradient descent on the batch at hand,
where the authors take the local epochs of an honest client, two, on a batch that is drawn anew for
each simulated round; ``rate`` is the length of that step: theirs is 2 · 0.01, the default twice the
rate of the default optimizer. They anticipate nine models on CIFAR-10 (``rounds=8``) with n = 10;
two rounds beyond the attacked one are the default here for their cost. Their honest updates come
from the global model in the attacked round too, and the server's learning rate is 1.

The authors send n times the update that they have trained, to a server that clips norms to 0.5:
``anticipate(rounds=8) + model_replacement(strength=10)`` against ``norm_clip(norm=0.5)``. The
attack they compare with has the same factor. Without one only the share s of the update is left,
which is what the simulation reckons with; a comparison with attacks that have a factor has to give
it one.

Checked: against the authors' code (training.py, tasks/fl/, README): the order of the simulated
rounds, their rate, factor and clipping.

Cost: about 3 k + 2 times that of honest local training a round and malicious client: the gradient
of a simulated step is itself differentiated.

Example:
>>> import torch
>>> from backstop.platform.contract import Samples
>>> from backstop.platform.examples import train_view
>>> view, local = train_view(torch.zeros(2)), torch.tensor([1.0, -1.0], requires_grad=True)
>>> batch = Samples(torch.ones(1, 1), torch.tensor([0]))  # the logits are the parameters
>>> way = _models(view, local, batch, _Odds(0.5, 1.0), rounds=1, rate=1.0)
>>> # h(0) = 1/2: 1/2 · 1 + 1/2 · 1/2; then 3/4 + 1 / (1 + e^1.5)
>>> [round(after[0].item(), 4) for after in way]
[0.75, 0.9324]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, Samples, Step, TrainView
from backstop.platform.params import Range

VERSION = 2
KNOWS = "own"
STRENGTH = None
TRIGGER = False


class _Odds(NamedTuple):
    share: float  # of the round's weight that malicious clients hold, s
    server_lr: float  # η


def anticipate(
    *,
    rounds: Annotated[
        int, Range(0, 20, search=(0, 8)), "rounds after the attacked one that are anticipated, k"
    ] = 2,
    rate: Annotated[
        float,
        Range(0, 1, low_open=True, log=True, search=(0.001, 1)),
        "step of a simulated honest update, r",
    ] = 0.1,
) -> Attack[_Odds]:
    """Local training through simulated rounds."""

    def look(view: AttackView) -> _Odds:
        return _Odds(view.share, view.server_lr)

    def train(odds: _Odds, view: TrainView) -> Tensor:
        def loss(params: Tensor, step: Step) -> Tensor:
            way = _models(view, params, step.clean, odds, rounds, rate)
            return torch.stack(
                [view.loss(view.model(after, step.poisoned.x), step.poisoned.y) for after in way]
            ).sum()

        row: Tensor = view.minimise(loss) - view.params
        return row

    return Attack(init=look, plan=lambda _, view: look(view), train=train)


def _models(
    view: TrainView, params: Tensor, clean: Samples, odds: _Odds, rounds: int, rate: float
) -> Iterator[Tensor]:
    """The global model after the attacked round and after each later one, differentiable in the
    malicious client's ``params``.
    """

    def honest(vector: Tensor) -> Tensor:
        value = view.loss(view.model(vector, clean.x), clean.y)
        return -rate * torch.autograd.grad(value, vector, create_graph=True)[0]

    start = view.params
    others = honest(start.detach().clone().requires_grad_()).detach()
    after = start + odds.server_lr * (odds.share * (params - start) + (1 - odds.share) * others)
    yield after
    for _ in range(rounds):
        after = after + odds.server_lr * honest(after)
        yield after
