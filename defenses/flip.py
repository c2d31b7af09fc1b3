"""FLIP: honest clients invert triggers on the global model and train against them; unsure
predictions are rejected.

(m_c, p_c) = argmin_{m, p}  mean_x CE(f((1 - m) ⊙ x + m ⊙ p), c) + λ_c ‖m‖₁   for each class c
x <- (1 - m_c) ⊙ x + m_c ⊙ p_c,  y <- y   for a share of each batch
c ≠ y is drawn with odds 1 / ‖m_c‖₁²
at test: the label argmax_c f(x)_c where max_c softmax(f(x))_c >= θ, none elsewhere

Shapes: batches (b, C, H, W) with labels (b,) → the same; rows pass unchanged; logits (N, classes) →
labels (N,), -1 where rejected.

Source: K. Zhang, G. Tao, Q. Xu, S. Cheng, S. An, Y. Liu, S. Feng, G. Shen, P.-Y. Chen, S. Ma, X.
Zhang, "FLIP: A Provable Defense Framework for Backdoor Mitigation in Federated Learning", ICLR
2023, sections on trigger inversion, model hardening and the rejection of samples of low confidence.
The settings are those of the authors' code: a share of 0.5 of the batch (MNIST; 0.9 on CIFAR-10), a
trigger that succeeds on 0.9 (MNIST; 0.85 on CIFAR-10), a price that changes by 1.5 after 10 steps,
and θ = 0.4 under an attack that goes on (0 where the attackers come once).

Deviations: a client inverts once a round, on the global model that it is sent, one trigger for each
class on samples of all classes, in a few steps that are long (RATE) and dear (PRICE). The authors'
code inverts again and again on the model in training, for 50 to 600 steps, soon for single pairs of
classes, which it picks by how large their triggers are and how they change, and stamps one target's
trigger at a time on a share of the samples of other classes. The odds stand in for that choice: a
small trigger is a likely backdoor. A client there also remembers its triggers from round to round
and starts from them; here clients are not kept between rounds (any worker may train any client), so
every round starts anew. With fewer steps than the patience the price stays where it starts.
Hardening takes place in the local training of the spec, where that code trains with Adam for 8 to
10 passes. See ``platform/remedies/inversion.py`` for deviations of the inversion. The paper's
guarantee is not claimed for this form.

Checked: against the authors' invert_MNIST.py, invert_CIFAR.py (portion, threshold, patience,
factor, memory of a client) and test.py (a rejected sample is neither right nor a success of the
attack; their rates are over all samples).

Needs: honest clients that train this way; images.

Example:
>>> import torch
>>> from backstop.platform.contract import PredictView
>>> # class 0: left pixel, class 1: right
>>> triggers = Patches(torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]]), torch.ones(2, 1, 1, 2))
>>> change, x, y = flip(share=0.5).local.batch, torch.zeros(4, 1, 1, 2), torch.tensor([0, 1, 0, 1])
>>> change(triggers, x, y, torch.Generator())[0].flatten(1).tolist()
[[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
>>> logits = torch.tensor([[0.9, 0.05, 0.05], [0.3, 0.4, 0.3]]).log()
>>> view = PredictView(torch.zeros(1), lambda params: logits, torch.Generator())
>>> flip(confidence=0.5).predict(view).label
tensor([ 0, -1])
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import ClientView, Defense, Local, Prediction, PredictView
from backstop.platform.params import Range
from backstop.platform.remedies.inversion import Patches, invert, stamp, take
from backstop.platform.robust import round_count

VERSION = 2
KINDS = ("image",)
NEEDS = ("clients", "model")
TAKES = "row"
PREDICTS = "confidence"
EXEMPT = ("adversarial",)  # rows pass unchanged: what the defense changes comes before them
RATE = 0.5  # of the inversion: few steps have to do
PRICE = 5.0  # at first, of a mask that covers the image


def flip(
    *,
    share: Annotated[
        float, Range(0, 1, search=(0.1, 1)), "share of each batch that is stamped"
    ] = 0.5,
    steps: Annotated[
        int, Range(1, 10**4, search=(5, 100), log=True), "steps of the inversion"
    ] = 10,
    samples: Annotated[
        int,
        Range(1, 10**4, search=(8, 128), log=True),
        "of a client's samples that the inversion looks at, at most",
    ] = 32,
    threshold: Annotated[
        float,
        Range(0, 1, search=(0.5, 1)),
        "share of these that a successful trigger sends to its class",
    ] = 0.9,
    patience: Annotated[
        int,
        Range(1, 10**4, search=(2, 20)),
        "steps in a row after which the price of a mask changes",
    ] = 10,
    factor: Annotated[
        float, Range(1, 100, search=(1.1, 3)), "by which it rises; it falls by factor^1.5"
    ] = 1.5,
    confidence: Annotated[
        float,
        Range(0, 1, search=(0.2, 0.9)),
        "least softmax output that is a prediction at test, θ; 0: all are",
    ] = 0.4,
) -> Defense:
    """Honest clients harden the model; it keeps quiet where it is not sure."""

    def prepare(view: ClientView) -> Patches:
        chosen = torch.randperm(len(view.data.y), generator=view.generator)[:samples]
        x = view.data.x[chosen.to(view.data.x.device)]
        cost = PRICE / x[0, 0].numel()
        return invert(
            view.model,
            view.params,
            x,
            torch.arange(view.classes),
            steps=steps,
            lr=RATE,
            cost=cost,
            batch=samples,
            threshold=threshold,
            patience=patience,
            up=factor,
        )

    def batch(
        triggers: Patches, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        count = round_count(share, len(y))
        if not count:
            return x, y
        # a mask of less than a pixel counts as one
        odds = triggers.mask.sum((1, 2, 3)).clamp_min(1).pow(-2).repeat(count, 1)
        odds = odds.scatter(1, y[:count, None], 0.0).cpu()
        drawn = torch.multinomial(odds, 1, generator=generator)[:, 0].to(y.device)
        return torch.cat([stamp(take(triggers, drawn), x[:count]), x[count:]]), y

    def predict(view: PredictView) -> Prediction:
        sure, label = view.scores(view.params).softmax(1).max(1)
        return Prediction(label.where(sure >= confidence, -1))

    return Defense(
        local=Local(prepare=prepare, batch=batch), predict=predict if confidence else None
    )
