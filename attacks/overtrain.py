"""Overtraining: malicious clients train for longer, or at another learning rate, than honest ones.

L = E' epochs of local training at the rate η' from G

Shapes: none of its own.

Source: E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated
Learning", AISTATS 2020, supplementary material on the experimental setup: on CIFAR-10 the attacker
trains for 6 epochs from a rate of 0.05, honest clients for 2 at 0.1.

Deviations: the rate stays the same within a round, where the attacker of the paper lets it fall.

Checked: the rate of 0.05, and that honest clients train for 2 epochs at 0.1, against the authors'
configuration for CIFAR-10 (params.yaml), whose attacker has 15 epochs; the paper's 6 are
remembered.

Cost: ``epochs`` of local training for each malicious client.

Example:
>>> overtrain(epochs=6, lr=0.05).training
Training(epochs=6, lr=0.05)
"""

from __future__ import annotations

from typing import Annotated

from backstop.platform.contract import Attack, Training
from backstop.platform.params import BadInput, Range

VERSION = 1
KNOWS = "own"
STRENGTH = None
TRIGGER = False


def overtrain(
    *,
    epochs: Annotated[
        int | None,
        Range(1, 10**6, search=(1, 20)),
        "local epochs of malicious clients, E'; none: as honest ones",
    ] = 6,
    lr: Annotated[
        float | None,
        Range(0, 1e6, low_open=True, log=True, search=(1e-3, 1.0)),
        "their learning rate, η'; none: as honest ones",
    ] = None,
) -> Attack:
    """Other epochs and another learning rate. Raises BadInput where neither is given."""
    if epochs is None and lr is None:
        raise BadInput(
            "attack overtrain: epochs=None and lr=None leave the training as it is; set one of them"
        )
    return Attack(training=Training(epochs=epochs, lr=lr))
