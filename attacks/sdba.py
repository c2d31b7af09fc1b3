"""SDBA: malicious clients move a few layers only, and of these the parameters that matter least to
clean data, so that the backdoor is neither seen nor overwritten.

u_j = 0  but for the coordinates j of layer l that are among the share k_l of smallest |g_j|
k_l = ``inputs``  for the weights from the inputs of a recurrent layer, W
      ``hidden``  for those from its last state, U
      0           for all others, biases, embeddings and the head among them

g is the gradient of the clean loss at the global model. A network without recurrent layers has
``inputs`` of each weight that is a matrix or a convolution and does not belong to the head, or of
all its parameters where it has none.

Shapes: delta (d,) or (k, d); g and the mask (d,).

Source: M. Choe, C. Park, C. Seo, H. Kim, "SDBA: A Stealthy and Long-Lasting Durable Backdoor Attack
in Federated Learning", IEEE Transactions on Dependable and Secure Computing 2025 (arXiv
2409.14805), layer-wise gradient masking and top-k% of the gradients.

As published for LSTMs: ``inputs=0.2``, ``hidden=1``, with 10 local epochs of the attacker, who
attacks in 30 to 100 rounds in a row (2001 on, Reddit) at a rate of 0.06 beside honest ones of 2.
For GPT-2 all of ``mlp.c_fc`` of each block is moved, and nothing else.

Deviations: for networks without recurrent layers no choice was published but that for GPT-2; the
rule above is this project's. The gradient is taken on the clean data of this round's malicious
clients, theirs on those of sampled honest ones. The update is masked after each step: the same as
masked gradients for an optimizer that treats coordinates apart. Of equal magnitudes the first count
as smaller. The ball around the global model that the paper also uses is ``pgd``.

Checked: against the authors' code (helper.py: grad_mask, grad_mask_gpt2; example.sh): layers and
shares of both kinds of LSTM and of GPT-2, signs (the smallest magnitudes are kept), epochs, rates.

Known to fail: durability is what the attack is for, and as for ``neurotoxin`` it is not shown here
(docs/frontier.md has figures); the fewer coordinates move, the less backdoor there is.

Cost: the gradient of the clean loss over the data of this round's malicious clients, once a round.

Example: half of a recurrent layer's four input weights, all of its hidden one, no bias.
>>> import torch
>>> from backstop.platform.contract import Slot
>>> names = [("weight_ih_l0", (2, 2)), ("weight_hh_l0", (1, 1)), ("bias_ih_l0", (1,))]
>>> slots = [Slot(name, start, shape) for start, (name, shape) in zip((0, 4, 5), names)]
>>> _mask(torch.tensor([0.4, -0.1, 0.3, -0.2, 9.0, 0.0]), slots, (), 0.5, 1.0)
tensor([0., 1., 0., 1., 1., 0.])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, Slot
from backstop.platform.params import Range
from backstop.platform.robust import round_count
from backstop.platform.threats.rehearsal import clean_gradient

VERSION = 1
KNOWS = "own"
STRENGTH = "inputs"
TRIGGER = False


def _shares(
    layout: Sequence[Slot],
    head: Sequence[Slot],
    inputs: float,
    hidden: float,
) -> list[tuple[Slot, float]]:
    """The layers that move, and how much of each."""
    from_inputs = [slot for slot in layout if "weight_ih" in slot.name]
    from_state = [slot for slot in layout if "weight_hh" in slot.name]
    if from_inputs or from_state:
        return [(slot, inputs) for slot in from_inputs] + [(slot, hidden) for slot in from_state]
    last = {slot.name for slot in head}
    inner = [slot for slot in layout if len(slot.shape) > 1 and slot.name not in last]
    return [(slot, inputs) for slot in inner or layout]


def _mask(
    gradient: Tensor,
    layout: Sequence[Slot],
    head: Sequence[Slot],
    inputs: float,
    hidden: float,
) -> Tensor:
    """1 on the coordinates (d,) that move, at least one of each layer; 0 on the others."""
    mask = torch.zeros_like(gradient)
    for slot, share in _shares(layout, head, inputs, hidden):
        order = gradient[slot.span].abs().argsort(stable=True)
        mask[slot.start + order[: max(round_count(share, slot.size), 1)]] = 1
    return mask


def sdba(
    *,
    inputs: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.05, 1)),
        "share of the weights from a recurrent layer's inputs, or of inner weights, that move",
    ] = 0.2,
    hidden: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.2, 1)),
        "share of the weights from a recurrent layer's last state that move",
    ] = 1.0,
) -> Attack[Tensor]:
    """Updates in a few parameters of a few layers. The state is the mask."""
    return Attack(
        init=lambda view: torch.ones_like(view.params),
        plan=lambda _, view: _mask(clean_gradient(view), view.layout, view.head, inputs, hidden),
        constrain=lambda mask, delta, _: delta * mask,
    )
