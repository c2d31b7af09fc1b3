"""CRFL: the global model is clipped in norm and sent out with noise; the final model is smoothed,
which certifies its labels.

w <- w + η Σ_i p_i u_i;   w <- w / max(1, ‖w‖₂ / ρ);   clients are sent w + N(0, σ² I)
prediction: the label c_A that most of M models w + N(0, σ² I) give
p_A, p_B = shares of the most and second most frequent label
p_A <- p_A - h,   p_B <- p_B + h,   h = √(ln(1/α) / 2M)
certified where p_A > p_B:   ε² = -2 σ² ln(1 - (√p_A - √p_B)²) / (2 Φ(ρ/σ) - 1)^k

with p_i: share of the sample count, η: server learning rate, k: rounds since the attack, Φ:
standard normal distribution function. If the attack moved the clipped model of its round by at most
ε in Euclidean length, the label would be the same without it: the Kullback-Leibler divergence of
the two noised models is then ε² / 2σ², and each later round multiplies it by 2 Φ(ρ/σ) - 1 at most.

Shapes: rows (n, d) → one merged row (1, d), the one that leads the server to the clipped model.

Source: C. Xie, M. Chen, P.-Y. Chen, B. Li, "CRFL: Certifiably Robust Federated Learning against
Backdoor Attacks", ICML 2021, algorithm 1 for the training, algorithm 2 for the certificate; the
settings are those of the authors' code for MNIST.

Deviations: the radius is stated for the attack's effect on the model, ε, because that holds for
every model and every optimizer. The paper's radius is for the size of the trigger and holds for
multi-class logistic regression trained by plain SGD. It is ε divided by 2 √(R Σ_i p_i²) · γ τ L_z
η_i q/n: R attackers with shares p_i of the weight, scaling γ, τ local steps at the rate η_i, q
poisoned samples in batches of n, L_z = √(2 + 2ρ + ρ²). No server knows R, γ and q/n, so that
division is left to who assumes them. The authors' code takes the difference of the roots also where
p_B is the larger one; here the radius is 0 there, as (remembered) in the paper, which abstains; the
label stays that of the majority. The default k = 0 is the worst case, an attack in the last round.
The authors' code draws 1,000 models; that many evaluations of a large model take longer than its
training, so the default is 100. The bound ρ is the same in every round; theirs grows with the round
(2 + 0.1 t on MNIST, at most 15). It bounds all parameters together, so it must fit the size of the
model. Where a stage behind this one moved the last model, that model is clipped once more.
Certified rate and accuracy are told at one radius, above 0, with the median radius (final figures
``certified_rate``, ``certified_accuracy``, ``certified_radius``); that code plots both over all
radii of a trigger, which a board does not. Its aggregation by geometric median is ``rfa+crfl``.

Checked: order of clipping, evaluation and noise against the authors' main.py, votes against
smooth_mnist.py, bounds and radius against certify_mnist.py, from which the values ρ = 15, σ = 0.01,
α = 0.001 and M = 1,000 are. That the paper abstains is remembered.

Example:
>>> import torch
>>> from backstop.platform.examples import server_view, updates
>>> given = updates(torch.tensor([[2.0, 4.0], [4.0, 4.0]]))
>>> view = server_view(torch.tensor([3.0, 4.0]))
>>> defense = crfl(norm=5.0, noise=0.1)
>>> after, state = defense.apply(given, defense.init(view), view)
>>> # (6, 8) is clipped to (3, 4): the model stays, and the noise is not in it
>>> after.rows, defense.finish(state, view)
(tensor([[0., 0.]]), tensor([3., 4.]))
"""

from __future__ import annotations

from math import erf, log, sqrt
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform import robust
from backstop.platform.contract import Defense, Prediction, PredictView, ServerView, Updates, merge
from backstop.platform.params import Range

VERSION = 2
GIVES = "row"
TAKES = "row"
PREDICTS = "draws"
EXEMPT = ("identical", "zero")  # the model is clipped whatever the rows are


def crfl(
    *,
    norm: Annotated[
        float,
        Range(1e-3, 1e6, log=True, search=(1.0, 1e3)),
        "largest Euclidean norm of the global model, ρ",
    ] = 15.0,
    noise: Annotated[
        float,
        Range(0, 1e3, search=(1e-4, 1e-1)),
        "standard deviation of the noise on each parameter, σ",
    ] = 0.01,
    draws: Annotated[
        int,
        Range(0, 10**6, log=True, search=(10, 1000)),
        "noised models that vote at the end, M; 0: the plain model predicts",
    ] = 100,
    quiet: Annotated[int, Range(0, 10**6), "rounds since the assumed attack, k"] = 0,
    alpha: Annotated[
        float, Range(1e-9, 0.5), "probability that one of a sample's bounds does not hold, α"
    ] = 0.001,
) -> Defense[Tensor | None]:
    """The step to the clipped global model; noise on what is sent; a vote at the end."""

    def clipped(updates: Updates, _: Tensor | None, view: ServerView) -> tuple[Updates, Tensor]:
        share = updates.weight / updates.weight.sum()
        mean = robust.mix(share.unsqueeze(0), updates.rows)[0]
        largest = torch.finfo(mean.dtype).max
        model = (view.params + view.server_lr * mean.double()).clamp(-largest, largest).float()
        target = robust.clip(model.unsqueeze(0), norm)[0]
        return merge(updates, ((target.double() - view.params) / view.server_lr).float()), target

    def send(state: Tensor | None, view: ServerView) -> tuple[Tensor, Tensor | None]:
        return _noised(view.params, noise, view.generator), state

    def finish(state: Tensor | None, view: ServerView) -> Tensor:
        if state is not None and torch.allclose(view.params, state, rtol=1e-5, atol=1e-6):
            return state.clone()  # without the rounding of a step there
        return robust.clip(view.params.unsqueeze(0), norm)[0]

    def predict(view: PredictView) -> Prediction:
        votes: Tensor | None = None
        for _ in range(draws):
            logits = view.scores(_noised(view.params, noise, view.generator))
            if votes is None:
                votes = torch.zeros(logits.shape, dtype=torch.float64, device=logits.device)
            votes[torch.arange(len(logits), device=logits.device), logits.argmax(1)] += 1
        assert votes is not None
        slack = sqrt(log(1 / alpha) / (2 * draws))
        return Prediction(votes.argmax(1), _radius(votes / draws, slack, noise, norm, quiet))

    return Defense(
        lambda _: None, clipped, finish=finish, send=send, predict=predict if draws else None
    )


def _noised(model: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    return model + noise * torch.randn(len(model), generator=generator).to(model.device)


def _radius(shares: Tensor, slack: float, noise: float, norm: float, quiet: int) -> Tensor:
    """ε for each of N samples, from the shares of the votes (N, classes) that hold up to ``slack``;
    0 where nothing is certified, as without noise.
    """
    if not noise or shares.shape[1] < 2:
        return shares.new_zeros(len(shares))
    first, second = shares.topk(2, dim=1).values.unbind(1)
    low, high = (first - slack).clamp_min(1e-8), (second + slack).clamp_max(1 - 1e-8)
    apart = (low.sqrt() - high.sqrt()).clamp_min(0).square()
    contraction = erf(norm / noise / sqrt(2)) ** quiet  # 2 Φ(ρ/σ) - 1 for each round
    return (-2 * noise**2 * (1 - apart).log() / max(contraction, 1e-300)).sqrt()
