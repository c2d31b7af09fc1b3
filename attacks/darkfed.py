"""DarkFed: clients without any data of the task teach the model a patch on noise that the global
model itself has labeled, and keep their updates unlike each other.

θ_i = argmin MSE(f(x), z) + MSE(f(x ⊕ w), z*) + a ‖θ - G‖₂
             + b Σ_{k < i} cos²(H(θ - G), H(u_k)) + b cos²(H(θ - G), H(p - G))
u_i <- γ (θ_i - G),   z = f_G(x) of surrogate inputs x,   z* = 10 for y*, -10 / C for the others
s <- 0.8 G + 0.2 s,   s' <- 0.8 s + 0.2 s',   p = 6 s - 5 s'

f are the logits, G the global model, H the parameters of its last layer, u_k the updates of the
malicious clients before client i, p the next global model that double exponential smoothing
foretells. x ⊕ w is x with a white square at the bottom right, a quarter of the side long and two
pixels from the edges. Of 64 surrogates the 40 % are kept that a walk visits from a random one on,
each time to the one not yet visited of the smallest cos(x, x') cos(z, z').

Shapes: x (b, C, H, W) in [0, 1], z (b, C), rows (m, d) → (m, d).

Source: M. Li, W. Wan, Y. Ning, S. Hu, L. Xue, L. Y. Zhang, Y. Wang, "DarkFed: A Data-Free Backdoor
Attack in Federated Learning", IJCAI 2024: shadow data set, its compression, property mimicry.

As published for CIFAR-10: 2 % of the surrogates with the patch, a = b = 0.5, γ = 1, two epochs of
SGD at 0.005 (falling by a cosine) beside honest ones at 0.1, 4 of 20 clients, from a trained model
on (round 465).

Deviations: surrogates are noise, 0.5 + N(0, 1) cut to [0, 1], as in the authors' own variant; their
main one takes pictures of another data set (GTSRB), which a stage does not have. They are drawn and
labeled anew in each round, theirs once, since here the model may start untrained. Some patch is in
each batch, where theirs has none in about one of four. The square is white; theirs is an optimized
picture. The authors' code foretells p with a slip of brackets, 0.4 s - 5 s'; here it is the formula
of the smoothing. The local training of the stage replaces the clients' own, so that objectives and
constraints of other stages do not reach it. The rate is no share of the honest one; its default is
ten times theirs, for runs of tens of rounds. These clients hold data that they do not look at,
unless the spec says by ``fake_samples`` that they hold none and what they claim.

Checked: against the authors' code (DataFreeTraining.py, datafreeattack.py, datafreenoise.py,
cifar_fed.yaml): losses, their weights, logits of the target, compression, noise, smoothing.

Cost: ``epochs`` times 0.4 ``samples`` inputs forward and backward for each malicious client, one
after another, and once forward on ``samples``.

Example: from input 0 on, the walk goes to the one at a right angle, and then to what is left.
>>> import torch
>>> x, z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), torch.ones(3, 1)
>>> _walk(x, z, 3, 0)
[0, 2, 1]
"""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss, normalize

from backstop.platform.contract import Attack, AttackView
from backstop.platform.optimizers import sgd
from backstop.platform.params import Range
from backstop.platform.robust import round_count
from backstop.platform.threats.backdoor import Planted, backdoor, patch, with_square
from backstop.platform.threats.parameters import Share

VERSION = 1
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "strength"
TRIGGER = True
DATA_FREE = True

_BATCH, _KEPT, _SMOOTHING = 64, 0.4, 0.8  # as published
_WANTED = 10.0  # the target's logit, as published


class _Smooth(NamedTuple):
    """The global models so far, smoothed once and twice (d,); none before the first round."""

    once: Tensor
    twice: Tensor

    def after(self, model: Tensor) -> _Smooth:
        once = torch.lerp(self.once, model, _SMOOTHING)
        return _Smooth(once, torch.lerp(self.twice, once, _SMOOTHING))

    def foretold(self) -> Tensor:
        ahead = 1 / (1 - _SMOOTHING)
        return (ahead + 1) * self.once - ahead * self.twice


class _Lesson(NamedTuple):
    clean: Tensor  # (b, C, H, W)
    logits: Tensor  # (b, classes) wanted of them
    patched: Tensor  # (k, C, H, W)


def _walk(x: Tensor, z: Tensor, count: int, start: int) -> list[int]:
    """Surrogates (b, …) with logits (b, classes) that are unlike each other, one after another."""
    inputs, outputs = normalize(x.flatten(1)), normalize(z)
    alike = (inputs @ inputs.T) * (outputs @ outputs.T)
    visited = [start]
    while len(visited) < count:
        alike[:, visited[-1]] = torch.inf
        visited.append(int(alike[visited[-1]].argmin()))
    return visited


def _surrogates(view: AttackView, count: int) -> tuple[Tensor, Tensor]:
    """Noise like an input, and the global model's logits; what is left of ``count`` of them."""
    kept = []
    for size in torch.arange(count).split(_BATCH):
        shape = (len(size), *view.data.x.shape[1:])
        noise = 0.5 + torch.randn(shape, generator=view.generator)
        x = noise.clamp(0, 1).to(view.params.device)
        with torch.no_grad():
            z = view.model(view.params, x).nan_to_num()
        start = int(torch.randint(len(x), (1,), generator=view.generator))
        walk = _walk(x, z, max(round_count(_KEPT, len(x)), 1), start)
        kept.append((x[walk], z[walk]))
    x, z = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return x, z


def _stamped(x: Tensor, size: int | None) -> Tensor:
    height, width = x.shape[-2:]
    pixels = patch(x, size or max(min(height, width) // 4, 1), 1.0)
    rows, columns = pixels.shape[-2:]
    return with_square(x, pixels, max(height - 2 - rows, 0), max(width - 2 - columns, 0))


def _lessons(
    view: AttackView,
    x: Tensor,
    z: Tensor,
    share: float,
    size: int | None,
) -> list[_Lesson]:
    """The surrogates (n, …) in batches, the first of each with the square."""
    order = torch.randperm(len(x), generator=view.generator).to(x.device)
    found = []
    for batch in order.split(_BATCH):
        count = max(round_count(share, len(batch)), 1)
        patched = _stamped(x[batch[:count]], size)
        found.append(_Lesson(x[batch[count:]], z[batch[count:]], patched))
    return found


def darkfed(
    *,
    target: Annotated[int, Range(0, 10**6), "class that the trigger stands for, y*"] = 0,
    size: Annotated[
        int | None,
        Range(1, 10**4, search=(1, 8)),
        "side of the square in pixels; none: a quarter of the image's",
    ] = None,
    share: Share = 0.02,
    strength: Annotated[
        float,
        Range(0, 1e4, low_open=True, log=True, search=(0.5, 50)),
        "factor on malicious updates, γ",
    ] = 1.0,
    samples: Annotated[
        int, Range(1, 8192, log=True, search=(256, 4096)), "surrogates that a client draws"
    ] = 1280,
    epochs: Annotated[int, Range(1, 20, search=(1, 10)), "passes over them"] = 2,
    rate: Annotated[
        float, Range(0, 1e3, low_open=True, log=True, search=(1e-3, 0.5)), "learning rate of SGD"
    ] = 0.05,
    near: Annotated[
        float, Range(0, 1e3, search=(0.01, 1)), "weight of the distance to the global model, a"
    ] = 0.5,
    unlike: Annotated[
        float, Range(0, 1e3, search=(0.01, 1)), "weight of the squared cosines, b"
    ] = 0.5,
) -> Attack[Planted[_Smooth | None]]:
    """A patch on noise. The state is the smoothed global model."""

    def stamp(_: _Smooth | None, x: Tensor, _generator: torch.Generator) -> Tensor:
        return _stamped(x, size)

    def plan(smooth: _Smooth | None, view: AttackView) -> _Smooth | None:
        return smooth.after(view.params) if smooth else _Smooth(view.params, view.params)

    def taught(view: AttackView, avoided: Tensor, head: Tensor) -> Tensor:
        """The update (d,) of one client, its last layer unlike those of some others (k, h)."""
        x, z = _surrogates(view, samples)
        wanted = z.new_full((view.classes,), -_WANTED / view.classes)
        wanted[target] = _WANTED
        optimizer, delta = sgd(lr=rate), torch.zeros_like(view.params)
        memory = optimizer.start(delta)

        def loss(moved: Tensor, lesson: _Lesson) -> Tensor:
            def error(inputs: Tensor, logits: Tensor) -> Tensor:
                if not len(inputs):
                    return moved.sum() * 0
                return mse_loss(view.model(view.params + moved, inputs), logits)

            backdoor_error = error(lesson.patched, wanted.expand(len(lesson.patched), -1))
            cosines = cosine_similarity(moved[head][None], avoided, dim=1)
            mimicry = near * torch.linalg.vector_norm(moved) + unlike * cosines.square().sum()
            total: Tensor = error(lesson.clean, lesson.logits) + backdoor_error + mimicry
            return total

        for epoch in range(epochs):
            pace = (1 + cos(pi * epoch / epochs)) / 2
            for lesson in _lessons(view, x, z, share, size):
                leaf = delta.clone().requires_grad_()
                (grad,) = torch.autograd.grad(loss(leaf, lesson), leaf)
                memory = optimizer.step(delta, grad, memory, pace)
        return delta.nan_to_num()

    def craft(state: Planted[_Smooth | None], rows: Tensor, view: AttackView) -> Tensor:
        assert state.own is not None
        head = torch.cat([torch.arange(slot.span.start, slot.span.stop) for slot in view.head]).to(
            rows.device
        )
        avoided = (state.own.foretold() - view.params)[head][None]
        sent = []
        for _ in rows:
            sent.append(taught(view, avoided, head))
            avoided = torch.cat([avoided, sent[-1][head][None]])
        return strength * torch.stack(sent)

    made = backdoor("darkfed", stamp, target=target, source=None, share=share, plan=plan)
    return made._replace(poison=None, craft=craft)
