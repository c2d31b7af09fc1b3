"""What malicious clients say of models where they lie: the best of their own, the worst of the
others.
"""

from __future__ import annotations

from math import isfinite

from torch import Tensor

from backstop.platform.contract import Asked


def best_and_worst(asked: Asked) -> tuple[Tensor, Tensor]:
    """The best and the worst scores (m, 1, s) that each client can give a model: the bounds of the
    question; without a bound, what the client gives the best and the worst of the models.
    """
    question, scores = asked.question, asked.scores
    best, worst = scores.amax(1, keepdim=True), scores.amin(1, keepdim=True)
    if isfinite(question.high):
        best = best.new_full(best.shape, question.high)
    if isfinite(question.low):
        worst = worst.new_full(worst.shape, question.low)
    return best, worst


def lies(asked: Asked) -> Tensor:
    """The best score for each model that the attack has a part in, the worst for all others;
    (m, k, s).

    >>> import torch
    >>> from backstop.platform.examples import question
    >>> scores = torch.tensor([[[0.2], [0.9], [0.5]]])
    >>> lies(Asked(question(3), torch.tensor([True, False, False]), scores)).flatten()
    tensor([0.9000, 0.2000, 0.2000])
    """
    best, worst = best_and_worst(asked)
    return best.where(asked.own[:, None], worst).expand_as(asked.scores)
