"""FedGame: the server reverse engineers the likeliest trigger; a model that follows it counts less.

w' = w + ū,   (m_y, p_y) = argmin  mean_x CE(f(w'; (1 - m) ⊙ x + m ⊙ p), y) + λ ‖m‖₁   for each y
y* = argmin_y ‖m_y‖₁,   s_i = 1 - (share of the root set that model w + u_i sends to y* under it)
c_i <- s_i · c̄

with ū the plain mean of the updates, c_i the sample counts and c̄ their mean.

Shapes: rows (n, d) → (n, d), unchanged; weights become genuine scores.

Source: J. Jia, Z. Yuan, D. Sahabandu, L. Niu, A. Rajabi, B. Ramasubramanian, B. Li, R. Poovendran,
"FedGame: A Game-Theoretic Defense against Backdoor Attacks in Federated Learning", NeurIPS 2023,
the section on the defender; λ and the passes over the root set are those of the authors' code for
CIFAR-10.

Deviations: the inversion is the platform's (``platform/remedies/inversion.py``, with a price that
stays): steps of one batch at a rate of 0.1, where that code makes 100 passes of Adam at 0.005 over
the root set, from a random pattern, and takes what the last one left; here it is the smallest mask
with which nearly all of a batch goes to the class. Its patterns are of one gray, here each channel
has its own. Clients' models are judged with the server's BatchNorm statistics, there with their
own. Sample counts do not matter, as there. Where every model follows the trigger, as all do before
they have learned anything, the scores tell nothing and the weights stay; there nothing moves. Of a
table the pattern is between the smallest and the largest value of each feature in the root set.
Rows whose model gives outputs that are not finite have no weight.

Checked: the mean model, the choice of the class, the score and the weights against the authors'
training.py and tasks/fl/cifar10_ours_task.py. The paper's text was out of reach beyond its
abstract.

Known to fail: while the mean model holds no backdoor yet, or where a class has a natural trigger
that is smaller than the attacker's; a trigger that no patch of few pixels stands for.

Cost: ``steps`` · classes gradients of batches of 32, and n passes over the root set, a round.

Needs: model calls, and inputs of the root set, no labels.

Example:
>>> import torch
>>> from dataclasses import replace
>>> from backstop.platform.contract import Samples
>>> from backstop.platform.examples import server_view, updates
>>> root = Samples(torch.tensor([[[[0.0]]], [[[0.2]]], [[[1.0]]]]), torch.tensor([0, 0, 0]))
>>> def model(params, x):  # the second class wins where params · x > 0.5
...     return torch.stack([0.5 - params * x.flatten(), params * x.flatten() - 0.5], 1) * 20
>>> view = replace(server_view(torch.zeros(1)), root=root, model=model, classes=2)
>>> after, _ = fedgame(steps=30).apply(updates(torch.tensor([[0.0], [0.0], [6.0]])), None, view)
>>> after.weight[:2] > after.weight[2]
tensor([True, True])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Defense, ServerView, Updates
from backstop.platform.params import Range
from backstop.platform.remedies import inversion

VERSION = 1
NEEDS = ("model", "root")
KINDS = ("image", "table")
EXEMPT = ("adversarial",)  # a far row counts in full unless its model follows the trigger

_BATCH = 512  # inputs in a model call


def fedgame(
    *,
    steps: Annotated[
        int,
        Range(1, 1000, log=True, search=(30, 300)),
        "steps of the inversion",
    ] = 100,
    cost: Annotated[
        float,
        Range(0, 100, search=(0.001, 0.1)),
        "price of a pixel of the mask, λ",
    ] = 0.01,
) -> Defense:
    """Rows count by the share of the root set that their model keeps from the likeliest trigger."""

    def weighed(updates: Updates, view: ServerView) -> Updates:
        images = _Images(view)
        likely, target = images.likeliest(view.params + updates.rows.mean(0), steps, cost)
        stamped = inversion.stamp(likely, images.x)
        scores = [images.score(view.params + row, stamped, target) for row in updates.rows]
        genuine = torch.tensor(scores).to(updates.weight)
        if not genuine.any():
            return updates
        return updates._replace(weight=genuine * updates.weight.mean())

    return Defense(apply=lambda updates, state, view: (weighed(updates, view), state))


class _Images:
    """The root set as images in [0, 1], and a model that takes them; of a table a row of pixels."""

    def __init__(self, view: ServerView) -> None:
        x = view.root.x
        self.view = view
        self.shape = x.shape[1:]
        self.low, self.high = x.amin(0), x.amax(0)
        if len(self.shape) == 3:
            self.low, self.high = torch.zeros_like(x[0]), torch.ones_like(x[0])
        span = (self.high - self.low).clamp_min(torch.finfo(x.dtype).tiny)
        scaled = (x - self.low) / span
        self.x = scaled if len(self.shape) == 3 else scaled[:, None, None]

    def logits(self, params: Tensor, images: Tensor) -> Tensor:
        """(b, classes)."""
        x = images.reshape(len(images), *self.shape)
        return self.view.model(params, self.low + x * (self.high - self.low))

    def likeliest(
        self,
        params: Tensor,
        steps: int,
        cost: float,
    ) -> tuple[inversion.Patches, int]:
        """The trigger of the smallest mask on a model, and its class."""
        triggers = inversion.invert(
            self.logits,
            params,
            self.x,
            torch.arange(self.view.classes),
            steps=steps,
            cost=cost,
            up=1.0,
        )
        target = int(triggers.mask.sum((1, 2, 3)).argmin())
        return inversion.take(triggers, torch.tensor([target])), target

    def score(
        self,
        params: Tensor,
        stamped: Tensor,
        target: int,
    ) -> float:
        """The share of stamped images that a model does not send to the class."""
        with torch.no_grad():
            logits = torch.cat([self.logits(params, some) for some in stamped.split(_BATCH)])
        if not logits.isfinite().all():
            return 0.0
        return (logits.argmax(1) != target).double().mean().item()
