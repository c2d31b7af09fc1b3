"""Trigger inversion: for each of several classes the smallest patch that sends any image to the
class.

min_{m, p}  mean_x CE(f((1 - m) ⊙ x + m ⊙ p), y_t) + λ_t ‖m‖₁,   m, p in [0, 1]

for each target y_t.

Shapes: x (b, C, H, W) in [0, 1], targets (t,) → mask (t, 1, H, W), pattern (t, C, H, W).

Source: B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Y. Zhao, "Neural Cleanse:
Identifying and Mitigating Backdoor Attacks in Neural Networks", IEEE S&P 2019, section on
reverse-engineering triggers. The settings are those of the authors' published code: Adam with decay
rates 0.5 and 0.9, and a price λ that doubles after PRICE_PATIENCE steps in a row in which at least
THRESHOLD of the batch goes to the target, and falls by 2^1.5 after as many in which less does. Of
all steps that reach the threshold the smallest mask counts. Callers may have their own threshold,
patience and factor.

Deviations: mask and pattern start in the middle of their range, where that code draws them, so
nothing is random. A step is one batch, where that code's is a pass over many, and no step is saved
by stopping early. So 0.99 of a batch of 32 is all 32, where there it is 0.99 of some thousand. Its
price starts at zero and jumps to the first λ; here it starts there. Where no step reaches the
threshold, the last trigger counts. Where the model gives no finite gradient, a trigger stays as it
is. Targets share a forward pass, and none changes another's result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform.optimizers import adam

THRESHOLD = 0.99  # share of the batch that a successful trigger sends to its target
PRICE_PATIENCE = 5  # steps
UP = 2.0  # factor on the price; it falls by UP^1.5
# stamped images in one forward pass, as long as one target has no more: bounds the memory
TOGETHER = 512


class Patches(NamedTuple):
    """A patch for each of t targets."""

    mask: Tensor  # (t, 1, H, W) in [0, 1]
    pattern: Tensor  # (t, C, H, W) in [0, 1]


def take(trigger: Patches, index: Tensor) -> Patches:
    """Some of the triggers, one for each index."""
    return Patches(trigger.mask[index], trigger.pattern[index])


def stamp(trigger: Patches, x: Tensor) -> Tensor:
    """Images under the trigger, (1 - m) ⊙ x + m ⊙ p: x (t, C, H, W) each under its own, or (b, C,
    H, W) all under one of t = 1.

    >>> trigger = Patches(torch.tensor([[[[1.0, 0.5]]]]), torch.tensor([[[[0.8, 1.0]]]]))
    >>> stamp(trigger, torch.zeros(2, 1, 1, 2)).flatten(1)
    tensor([[0.8000, 0.5000],
            [0.8000, 0.5000]])
    """
    return (1 - trigger.mask) * x + trigger.mask * trigger.pattern


def invert(  # noqa: PLR0913 -- the parameters of the published method
    model: Callable[[Tensor, Tensor], Tensor],
    params: Tensor,
    x: Tensor,
    targets: Tensor,
    *,
    steps: int,
    lr: float = 0.1,
    cost: float = 1e-3,
    batch: int = 32,
    threshold: float = THRESHOLD,
    patience: int = PRICE_PATIENCE,
    up: float = UP,
) -> Patches:
    """The triggers for ``targets`` (t,) on the images ``x``; a step looks at the next ``batch`` of
    them, so they come in no special order.

    ``model(params, x)`` gives logits, ``cost`` is the first price of a pixel of the mask, which
    rises by the factor ``up`` after ``patience`` steps in a row in which ``threshold`` of the batch
    goes to the target. Draws nothing.
    """
    size = min(batch, len(x))
    groups = targets.to(x.device).split(max(TOGETHER // size, 1))
    rule = _Price(cost, threshold, patience, up)
    parts = [_invert(model, params.detach(), x, group, steps, lr, rule, size) for group in groups]
    masks, patterns = zip(*parts, strict=True)
    return Patches(torch.cat(masks), torch.cat(patterns))


class _Price(NamedTuple):
    """How the price of a mask follows the trigger's success."""

    first: float
    threshold: float
    patience: int
    up: float

    def follow(
        self,
        price: Tensor,
        streak: Tensor,
        reached: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Prices (t,) and streaks (t,) after a step that did or did not reach the threshold (t,).

        A streak counts successes in a row, failures below zero; it ends when it moves the price.
        """
        streak = torch.where(reached, streak.clamp_min(0) + 1, streak.clamp_max(0) - 1)
        price = torch.where(streak >= self.patience, price * self.up, price)
        price = torch.where(streak <= -self.patience, price / self.up**1.5, price)
        return price, streak.where(streak.abs() < self.patience, 0.0)


class _Smallest(NamedTuple):
    """The smallest mask so far that reached the threshold; before there is one, the last mask."""

    values: Tensor  # (t, 1 + C, H, W) mask and pattern before they are squashed into [0, 1]
    norm: Tensor  # (t,) infinite where no mask has reached the threshold

    def or_smaller(self, values: Tensor, norm: Tensor) -> _Smallest:
        """What is the smallest after a step that gave these."""
        better = (norm < self.norm) | self.norm.isinf()
        values = torch.where(better[:, None, None, None], values, self.values)
        return _Smallest(values, torch.minimum(norm, self.norm))


def _invert(
    model: Callable[[Tensor, Tensor], Tensor],
    params: Tensor,
    x: Tensor,
    targets: Tensor,
    steps: int,
    lr: float,
    rule: _Price,
    size: int,
) -> Patches:
    count = len(targets)
    channels, *sides = x.shape[1:]
    free = x.new_zeros(count, 1 + channels, *sides)
    smallest = _Smallest(free, x.new_full((count,), torch.inf))
    price = x.new_full((count,), rule.first)
    streak = x.new_zeros(count)
    labels = targets.repeat_interleave(size)
    optimizer = adam(
        lr=lr,
        beta1=0.5,
        beta2=0.9,
    )
    memory = optimizer.start(free)
    for step in range(steps):
        values = free.detach().requires_grad_()
        trigger = _shown(values)
        stamped = _stamp_each(trigger, _batch(x, step, size))
        logits = model(params, stamped)
        norm = trigger.mask.sum((1, 2, 3))
        misses = cross_entropy(logits, labels, reduction="sum") / size
        loss = misses + (price * norm).sum()
        (grad,) = torch.autograd.grad(loss, values)
        hits = (logits.argmax(1) == labels).view(count, size)
        reached = hits.float().mean(1) >= rule.threshold
        norm = norm.detach().where(reached, torch.inf)
        smallest = smallest.or_smaller(values.detach(), norm)
        price, streak = rule.follow(price, streak, reached)
        finite = grad.nan_to_num(0.0, 0.0, 0.0)
        memory = optimizer.step(free, finite, memory, 1.0)
    return _shown(smallest.values)


def _batch(
    x: Tensor,
    step: int,
    size: int,
) -> Tensor:
    """The images that a step looks at; after the last image comes the first."""
    index = torch.arange(step * size, (step + 1) * size, device=x.device)
    return x[index % len(x)]


def _stamp_each(trigger: Patches, images: Tensor) -> Tensor:
    """All images (b, C, H, W) under each of t triggers, (t · b, C, H, W)."""
    mask, pattern = trigger.mask[:, None], trigger.pattern[:, None]
    stamped = stamp(Patches(mask, pattern), images)
    return stamped.flatten(0, 1)


def _shown(free: Tensor) -> Patches:
    """Any values as a trigger: (tanh + 1) / 2 squashes them into [0, 1]."""
    squashed = (torch.tanh(free) + 1) / 2
    mask, pattern = squashed.split([1, free.shape[1] - 1], dim=1)
    return Patches(mask, pattern)
