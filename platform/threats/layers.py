"""Which layers a backdoor lives in: what is lost of it without one of them, and how few of them
bring it back. A layer is one parameter tensor.

Source: H. Zhuang, M. Yu, H. Wang, Y. Hua, J. Li, X. Yuan, "Backdoor Federated Learning by Poisoning
Backdoor-Critical Layers", ICLR 2024, forward and backward layer substitution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backstop.platform.contract import AttackView, Samples, Slot, Step
from backstop.platform.threats.collusion import own_batches

Success = Callable[[Tensor], float]  # parameters (d,) → share of poisoned samples that obey
_PIECE = 256  # samples that are poisoned or judged at once
_MOST = 1024  # poisoned samples that a model is judged on


def with_layers(
    base: Tensor,
    other: Tensor,
    layers: Sequence[Slot],
) -> Tensor:
    """The vector (d,) with some layers of another one."""
    mixed = base.clone()
    for slot in layers:
        mixed[slot.span] = other[slot.span]
    return mixed


def ranked_layers(
    benign: Tensor,
    malicious: Tensor,
    layout: Sequence[Slot],
    success: Success,
) -> list[Slot]:
    """Forward substitution: the layers by the success of the malicious model (d,) with the benign
    one's (d,) in its place, the lowest first; of equals in their order.
    """
    left = [success(with_layers(malicious, benign, [slot])) for slot in layout]
    return [layout[index] for index in sorted(range(len(layout)), key=left.__getitem__)]


def critical_layers(
    benign: Tensor,
    malicious: Tensor,
    layout: Sequence[Slot],
    success: Success,
    threshold: float,
) -> list[Slot]:
    """Backward substitution: the first of the ranked layers with which the benign model has a share
    ``threshold`` of the malicious one's success; at least one.

    >>> slots = [Slot("a", 0, (1,)), Slot("b", 1, (1,)), Slot("c", 2, (1,))]
    >>> weights = torch.tensor([0.3, 0.6, 0.1])
    >>> found = critical_layers(
    ...     torch.zeros(3), torch.ones(3), slots, lambda params: float(weights @ params), 0.8
    ... )
    >>> [slot.name for slot in found]
    ['b', 'a']
    """
    enough = threshold * success(malicious)
    ranked = ranked_layers(benign, malicious, layout, success)
    for count in range(1, len(ranked)):
        if success(with_layers(benign, malicious, ranked[:count])) >= enough:
            return ranked[:count]
    return ranked


def poisoned_samples(view: AttackView) -> Samples:
    """What the stages before poison of the data of this round's malicious clients, at most 1024."""
    changed = [
        Step(clean, Samples(*view.poison(*clean, index))).changed
        for index, clean in own_batches(view, _PIECE)
    ]
    if not changed:
        return Samples(view.data.x[:0], view.data.y[:0])
    x, y = (torch.cat(parts)[:_MOST] for parts in zip(*changed, strict=True))
    return Samples(x, y)


def success_on(view: AttackView, poisoned: Samples) -> Success:
    """How a model does on poisoned samples."""
    batches = list(zip(poisoned.x.split(_PIECE), poisoned.y.split(_PIECE), strict=True))

    def success(params: Tensor) -> float:
        with torch.no_grad():
            hits = [(view.model(params, x).argmax(1) == y).sum() for x, y in batches]
        return int(torch.stack(hits).sum()) / len(poisoned.y)

    return success
