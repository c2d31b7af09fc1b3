"""Bad-PFL: what makes an image look like its own class is taken out, and what a small network
finds to look like the target class is put in; both are features of natural data, which every
honest client trains on.

x' = clamp(ξ(x, y) + ε T_φ(x), 0, 1),   y' = y*
ξ(x, y) = the projection of x̃ + ζ sign ∇ℓ(L(x̃), y) to ‖ξ - x‖∞ <= ζ,   x̃ = x + ζ u
u ~ U(-1, 1),   φ = argmin_φ E[ℓ(G(x'), y*)]

L is the model of the malicious client in training, step for step; G the global model.

Shapes: x (b, C, H, W) in [0, 1], y (b,), T_φ(x) (b, C, H, W) in [-1, 1]; G, L (d,).

Source: M. Fan, Z. Hu, F. Wang, C. Chen, "Bad-PFL: Exploring Backdoor Attacks against Personalized
Federated Learning", ICLR 2025, natural triggers: disruptive noise and generated target feature.

As published on CIFAR-10: ζ = ε = 4/255, a fifth of the samples poisoned, and before its local
training each malicious client takes 30 steps on φ with Adam of rate 0.01, on batches of 32.

Deviations: T_φ is the network of ``iba`` in place of an autoencoder with BatchNorm, and Adam begins
anew in each attacked round. x' is brought back into [0, 1]. Each batch has a fixed share of poison,
theirs each sample with that probability. The attack trains by itself, since ξ needs the model in
training, so it is combined with no other stage that does. At test time ξ needs a model and the
true label: the model is the one that the adversary was last sent, where the authors take that of a
malicious client, and the labels are the test set's, as theirs. The attack is for personalized
federations, in which L is a client's own; here L starts from G. Published figures count samples of
the target class, for which nothing need happen; here they are left out.

Checked: ξ, strengths, share, steps, rate and test against the authors' code (fba.py, main.py,
generator.py).

Cost: in each attacked round ``steps`` gradients of 32 samples through the model for each malicious
client, twice; local training takes two gradients a step; the state that workers are sent holds the
model (d,).

Example: the model says class 1 where the pixel is bright, so the way from class 1 is darker.
>>> import torch
>>> model = lambda x: torch.cat([-x, x], 1).flatten(1)
>>> gray, still = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, 1, 1, 1)
>>> _disrupted(model, gray, torch.tensor([1]), still, 0.125)
tensor([[[[0.3750]]]])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform.contract import Attack, AttackView, Samples, Step, TestSet, TrainView
from backstop.platform.optimizers import adam
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor, target_labels
from backstop.platform.threats.collusion import own_samples
from backstop.platform.threats.generators import Weights, descended, drawn, perturbation, shapes
from backstop.platform.threats.parameters import GeneratorRate, Share, Source, Target

VERSION = 1
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "eps"
TRIGGER = True
# the published 4/255 is a quarter of a gray level of the digits that it is tried on
EXEMPT = ("effect",)
_BATCH, _PIECE = 32, 500

Model = Callable[[Tensor], Tensor]


class _Natural(NamedTuple):
    weights: Weights  # φ
    params: Tensor  # (d,) the global model when φ was trained


class _Reach(NamedTuple):
    """How far a pixel moves."""

    away: float  # ζ
    towards: float  # ε

    def start(self, x: Tensor, draws: torch.Generator) -> Tensor:
        """ζ u for images (b, C, H, W)."""
        return self.away * (2 * torch.rand(x.shape, generator=draws) - 1).to(x)

    def disrupted(self, model: Model, clean: Samples, draws: torch.Generator) -> Tensor:
        """ξ(x, y)."""
        return _disrupted(model, *clean, self.start(clean.x, draws), self.away)

    def put(self, weights: Weights, x: Tensor, away: Tensor) -> Tensor:
        """Triggered samples of clean ones and their ξ."""
        return (away + self.towards * perturbation(weights, x)).clamp(0, 1)

    def loss(self, model: Model, x: Tensor, away: Tensor, goal: Tensor, weights: Weights) -> Tensor:
        """How little the model gives triggered samples the label that is wanted."""
        success: Tensor = cross_entropy(model(self.put(weights, x, away)), goal)
        return success


def _disrupted(model: Model, x: Tensor, y: Tensor, start: Tensor, reach: float) -> Tensor:
    """ξ(x, y): a step of the signed gradient away from the true labels, from x + ``start``."""
    begun = (x + start).clamp(0, 1).requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(model(begun), y), begun)
    # a model that has diverged shows no direction
    moved = begun.detach() + reach * grad.nan_to_num(0, 0, 0).sign()
    return (x + (moved - x).clamp(-reach, reach)).clamp(0, 1)


def _batches(view: AttackView, wanted: Tensor, steps: int) -> Iterator[tuple[Samples, Tensor]]:
    """So many random batches of each malicious client that has a sample to attack, with the labels
    wanted; -1 in ``wanted`` marks the others.
    """
    own_labels = wanted.split(view.sizes)
    for index, own in own_samples(view):
        goal = own_labels[index]
        attacked = (goal >= 0).nonzero().flatten()
        for _ in range(steps if len(attacked) else 0):
            order = torch.randperm(len(attacked), generator=view.generator)[:_BATCH]
            some = attacked[order.to(attacked.device)]
            yield Samples(own.x[some], own.y[some]), goal[some]


def _learned(
    weights: Weights,
    batches: Iterator[tuple[Samples, Tensor]],
    view: AttackView,
    reach: _Reach,
    rate: float,
) -> Weights:
    """φ after a step on each batch."""
    model = partial(view.model, view.params)

    def losses() -> Iterator[Callable[[Weights], Tensor]]:
        for clean, goal in batches:
            away = reach.disrupted(model, clean, view.generator)
            yield partial(reach.loss, model, clean.x, away, goal)

    return descended(weights, losses(), adam(lr=rate))


def bad_pfl(
    *,
    target: Target = 0,
    eps: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.005, 0.2)),
        "largest change of a pixel towards the target class, ε",
    ] = 4 / 255,
    disruption: Annotated[
        float,
        Range(0, 1, search=(0, 0.2)),
        "largest change of a pixel away from the true class, ζ",
    ] = 4 / 255,
    steps: Annotated[
        int,
        Range(0, 1000, search=(10, 100)),
        "steps of the generator for each malicious client of an attacked round",
    ] = 30,
    rate: GeneratorRate = 0.01,
    share: Share = 0.2,
    source: Source = None,
) -> Attack[Planted[_Natural]]:
    """Natural features as the trigger. Raises BadInput where source and target are one class."""
    reach = _Reach(disruption, eps)

    def init(view: AttackView) -> _Natural:
        x = view.data.x
        weights = tuple(drawn(size, view.generator).to(x) for size in shapes(x.shape[1]))
        return _Natural(weights, view.params)

    def plan(state: _Natural, view: AttackView) -> _Natural:
        wanted = target_labels(view.data.y, target, source, view.classes)
        batches = _batches(view, wanted, steps)
        return _Natural(_learned(state.weights, batches, view, reach, rate), view.params)

    def stamp(state: _Natural, x: Tensor, _generator: torch.Generator) -> Tensor:
        return reach.put(state.weights, x, x)

    def train(state: Planted[_Natural], view: TrainView) -> Tensor:
        def loss(params: Tensor, step: Step) -> Tensor:
            (clean, y), (x, label) = step
            where = step.where.nonzero().flatten()
            if len(where):
                attacked = Samples(clean[where], y[where])
                model = partial(view.model, params.detach())
                away = reach.disrupted(model, attacked, view.generator)
                x = x.index_copy(0, where, reach.put(state.own.weights, attacked.x, away))
            return view.loss(view.model(params, x), label)

        return view.minimise(loss) - view.params

    def test_set(state: Planted[_Natural], view: AttackView) -> TestSet:
        assert view.test is not None  # the platform gives it while the test set is built
        model = partial(view.model, state.own.params)
        pieces = zip(*(part.split(_PIECE) for part in view.test), strict=True)
        x = [
            reach.put(
                state.own.weights, clean, reach.disrupted(model, Samples(clean, y), view.generator)
            )
            for clean, y in pieces
        ]
        wanted = target_labels(view.test.y, target, source, view.classes)
        return TestSet(torch.cat(x), wanted, view.test.y, paired=True)

    attack = backdoor(
        "bad_pfl", stamp, target=target, source=source, share=share, init=init, plan=plan
    )
    return attack._replace(train=train, trigger=None, goal=None, test_set=test_set)
