"""CerP: colluding clients tune one patch a little, and keep close to a clean model of their own and
unlike each other.

δ = argmin_δ Σ CE(G, x ⊕ δ, y*)  where ‖δ - δ_0‖₂ <= ε
L_i = argmin CE + α · ‖L_i - L_i,clean‖₂ + β · Σ_{j ≠ i} mean_l cos(L_i^l, L_j^l)

l are the layers' tensors, δ the pixels of DBA's four bars, 24 on CIFAR-10. ``cosine=updates`` takes
cos(L_i - G, L_j - G) over the whole vector in place of the models' layers.

Shapes: x (b, C, H, W) in [0, 1], y (b,), δ (C, pixels), fewer where the image is smaller; L_i, G
(d,).

Source: X. Lyu, Y. Han, W. Wang, J. Liu, B. Wang, J. Liu, X. Zhang, "Poisoning with Cerberus:
Stealthy and Colluded Backdoor Attack against Federated Learning", AAAI 2023, algorithm 1: trigger
tuning, control of the bias of the poisoned model, of the diversity among colluders.

Published in normalized pixels of CIFAR-10 (standard deviation 0.2): δ_0 = 1, ε = 10 and steps of
0.1 times the gradient, in one pass over the data of all colluders. In [0, 1] that is δ_0 = 0.69,
ε = 2 and a rate of 0.1 · 0.2². Colluders train at half the honest rate, and α = β = 1e-4.

Deviations: on CIFAR-10 (10,000 images, ``cnn``, 20 clients) the published steps move the patch by
0.017 in a round, so it stays DBA's in gray; the default rate takes it to 1.84 of the ball's 2 in
the first one. Clients of a round train apart, so none knows what the others send. The colluders
therefore rehearse: before the round each trains from G on its poisoned data as an honest client
does, and G plus that update stands for L_j; the published ones compare with those that have trained
before. α and β as published hardly change a model; with
``cosine=updates, alpha=0.01, beta=0.01`` the colluders' mean cosine on digits fell from 0.40 to
0.30, where honest clients had 0.27 (a patch of 3 x 3, ``share=0.2``, 20 clients). Buffers of a
malicious model (BatchNorm statistics) stay as they are.

Checked: pixels, start, ball, step, passes, rate and the cosine against the authors' code
(cifar100_trigger.py and its training); the share of 5 in 64 and α = β = 1e-4 are remembered.

Cost: in each attacked round ``passes`` times the logits of the malicious clients' samples, forward
and backward; one rehearsal for each malicious client of the round (none with β = 0), m rows (m, d)
that every worker is sent; and local training twice, clean and poisoned.

Example: a step along (3, 4) would make both pixels white, but the ball of radius 0.1 around gray
stops it.
>>> import torch
>>> gray, loss = torch.full((1, 2), 0.5), lambda pixels: -(pixels * torch.tensor([3.0, 4.0])).sum()
>>> _tuned(gray, gray, loss, radius=0.1, rate=1.0)
tensor([[0.5600, 0.5800]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from backstop.platform.contract import Attack, AttackView, Samples, Slot, Step, TrainView
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor, bars, painted, target_labels
from backstop.platform.threats.collusion import own_samples
from backstop.platform.threats.parameters import Share, Source, Target

VERSION = 2
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True
_BATCH = 64


class _Shared(NamedTuple):
    """What the colluders share: the patch δ, and who of them rehearsed which update."""

    pixels: Tensor  # (C, pixels)
    members: Tensor  # (m,)
    rows: Tensor  # (m, d)


def _stamped(x: Tensor, pixels: Tensor) -> Tensor:
    return painted(x, bars(*x.shape[-2:]), pixels)


def _loss(view: AttackView, x: Tensor, label: Tensor, pixels: Tensor) -> Tensor:
    """How little the global model gives samples with the patch the label that is wanted."""
    loss: Tensor = cross_entropy(view.model(view.params, _stamped(x, pixels)), label)
    return loss


def _tuned(
    pixels: Tensor, first: Tensor, loss: Callable[[Tensor], Tensor], *, radius: float, rate: float
) -> Tensor:
    """The patch after a step of gradient descent, brought back into the ball around the first one
    and into [0, 1].
    """
    leaf = pixels.clone().requires_grad_()
    # a model that has diverged shows no direction
    grad: Tensor = torch.autograd.grad(loss(leaf), leaf)[0].nan_to_num(0.0, 0.0, 0.0)
    moved = pixels - rate * grad - first
    inside = moved * min(1.0, radius / max(moved.norm().item(), 1e-12))
    # the first patch lies in [0, 1], so the clamp brings no pixel farther from it
    patch: Tensor = (first + inside).clamp(0, 1)
    return patch


def _passed(
    pixels: Tensor, first: Tensor, view: AttackView, label: Tensor, *, radius: float, rate: float
) -> Tensor:
    """The patch after a step on each batch of the samples that are attacked, in random order."""
    attacked = (label != -1).nonzero().flatten()
    if not len(attacked):
        return pixels
    order = torch.randperm(len(attacked), generator=view.generator).to(label.device)
    for drawn in attacked[order].split(_BATCH):
        loss = partial(_loss, view, view.data.x[drawn], label[drawn])
        pixels = _tuned(pixels, first, loss, radius=radius, rate=rate)
    return pixels


def _like_models(params: Tensor, others: Tensor, layout: Sequence[Slot]) -> Tensor:
    """Σ_j mean_l cos(L^l, L_j^l) of a model (d,) with others (m, d)."""
    cosines = []
    for slot in layout:
        own, theirs = params[None, slot.span], others[:, slot.span]
        cosines.append(cosine_similarity(own, theirs, dim=1).sum())
    return torch.stack(cosines).mean()


def _like_updates(delta: Tensor, others: Tensor) -> Tensor:
    """Σ_j cos(L - G, L_j - G); the cosines of a model that has not moved are 0."""
    if not delta.any():
        return delta.new_zeros(())
    alike: Tensor = cosine_similarity(delta[None], others, dim=1).sum()
    return alike


def _alike(params: Tensor, view: TrainView, others: Tensor, what: str) -> Tensor:
    """How alike a model is to its colluders' ones, whose updates are ``others``."""
    if not len(others):
        return params.new_zeros(())
    if what == "models":
        return _like_models(params, view.params + others, view.layout)
    return _like_updates(params - view.params, others)


def cerp(
    *,
    target: Target = 0,
    value: Annotated[
        float, Range(0, 1), "brightness of the bars before they are tuned, δ_0"
    ] = 0.69,
    radius: Annotated[
        float, Range(0, 1e3, search=(0, 3)), "largest L2 distance of the patch from δ_0, ε"
    ] = 2.0,
    passes: Annotated[
        int,
        Range(0, 100, search=(1, 5)),
        "passes over the malicious clients' data for the patch in an attacked round",
    ] = 1,
    rate: Annotated[
        float, Range(0, 1e3, search=(1e-3, 10), log=True), "size of a step on the patch"
    ] = 1.0,
    alpha: Annotated[
        float, Range(0, 1e3, search=(0, 1)), "weight of the distance to the own clean model, α"
    ] = 1e-4,
    beta: Annotated[
        float, Range(0, 1e3, search=(0, 1)), "weight of the cosines to the colluders, β"
    ] = 1e-4,
    cosine: Annotated[Literal["models", "updates"], "what the cosines compare"] = "models",
    pace: Annotated[
        float,
        Range(0, 10, low_open=True, search=(0.1, 1)),
        "factor of colluders on the honest learning rate",
    ] = 0.5,
    share: Share = 5 / 64,
    source: Source = None,
) -> Attack[Planted[_Shared]]:
    """A tuned patch and two penalties. Raises BadInput where source and target are one class."""

    def init(view: AttackView) -> _Shared:
        x = view.data.x
        first = x.new_full((x.shape[-3], len(bars(*x.shape[-2:]))), value)
        return _Shared(first, view.members[:0], view.params.new_zeros(0, len(view.params)))

    def plan(state: _Shared, view: AttackView) -> _Shared:
        if not view.clients:
            return state
        pixels, first = state.pixels, torch.full_like(state.pixels, value)
        label = target_labels(view.data.y, target, source, view.classes)
        for _ in range(passes):
            pixels = _passed(pixels, first, view, label, radius=radius, rate=rate)
        if not beta:
            return state._replace(pixels=pixels)
        return rehearsed(_Shared(pixels, view.members, state.rows[:0]), view)

    def rehearsed(state: _Shared, view: AttackView) -> _Shared:
        assert attack.poison is not None
        rows = [state.rows]
        for index, own in own_samples(view):
            # the first of a batch are poisoned
            order = torch.randperm(len(own.y), generator=view.generator).to(own.y.device)
            poisoned = attack.poison(
                Planted(view.classes, state), own.x[order], own.y[order], index, view.generator
            )
            rows.append(view.train(view.params, Samples(*poisoned))[None])
        return state._replace(rows=torch.cat(rows))

    def train(state: Planted[_Shared], view: TrainView) -> Tensor:
        def clean_loss(params: Tensor, step: Step) -> Tensor:
            return view.loss(view.model(params, step.clean.x), step.clean.y)

        def loss(params: Tensor, step: Step) -> Tensor:
            own = view.loss(view.model(params, step.poisoned.x), step.poisoned.y)
            bias = torch.linalg.vector_norm(params - clean)
            alike = _alike(params, view, others, cosine) if beta else params.new_zeros(())
            total: Tensor = own + alpha * bias + beta * alike
            return total

        clean = view.minimise(clean_loss)
        others = state.own.rows[(state.own.members != view.index).to(clean.device)]
        return view.minimise(loss, rates=[pace] * len(view.steps)) - view.params

    def stamp(state: _Shared, x: Tensor, _generator: torch.Generator) -> Tensor:
        return _stamped(x, state.pixels)

    attack = backdoor(
        "cerp", stamp, target=target, source=source, share=share, init=init, plan=plan
    )._replace(train=train)
    return attack
