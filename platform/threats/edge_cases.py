"""Backdoors on rare inputs: how edge cases are trained and tested is the same question for all;
which inputs they are is a plug-in's.

D' = {(x, y*) : x is an edge case},   P(x) <= p for edge cases

Source: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee, D.
Papailiopoulos, "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS
2020, the p-edge-case examples and black-box attack.

Edge cases come with the dataset (``external``: they belong to no test class, so no true label is
stated), or they are found among the samples of one class, ``source``: for training among those that
malicious clients hold, for the test among the test set's.

A share of each batch is replaced by edge cases, at least one sample, drawn without replacement
while the pool lasts: 8 of 64 is the setting for CIFAR-10 of the authors of ``invariant``. The first
samples of a batch are replaced; batches are shuffled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, Samples, TestSet
from backstop.platform.params import BadInput, check_label
from backstop.platform.robust import round_count

# (samples of the source class (N, …), view) → indices (k,) of the edge cases
Find = Callable[[Tensor, AttackView], Tensor]


def edge_cases(
    name: str,
    find: Find,
    *,
    target: int | None,
    source: int,
    share: float,
    pool: Literal["auto", "external", "tail"] = "tail",
) -> Attack:
    """The attack that trains edge cases as another class. ``pool`` says which: ``tail``, those that
    ``find`` finds; ``external``, the dataset's; ``auto``, the dataset's where it has some. Without
    a ``target`` the class wanted is the dataset's own for external ones, else 0 (1 for source 0).
    The state is the pool of edge cases with their labels.

    Raises BadInput, when the attack starts, where source and target are one class or none of the
    data's, or there is no edge case; when the test set is built, where the test set holds none.
    """
    wanted = int(source == 0) if target is None else target

    def external(view: AttackView) -> tuple[Samples, Samples] | None:
        if pool == "external" and view.edge_cases is None:
            raise BadInput(
                f"attack {name}: pool='external', but the dataset has no edge cases;"
                " pool is auto, external or tail"
            )
        if pool == "tail" or view.edge_cases is None:
            return None
        train, test = view.edge_cases()
        return (
            (train, test)
            if target is None
            else (_labelled(train.x, target), _labelled(test.x, target))
        )

    def found(given: Samples, view: AttackView) -> Tensor:
        x = given.x[given.y == source]
        edge = x[find(x, view)]
        if not len(edge) and (view.clients or view.test is not None):
            raise BadInput(
                f"attack {name}: none of {whose(view)} {len(x)} samples of source={source} is an"
                " edge case"
            )
        return edge

    def init(view: AttackView) -> Samples:
        outside = external(view)
        check_label(target, view.classes, f"attack {name}: target")
        if outside:
            return outside[0]
        check_label(source, view.classes, f"attack {name}: source")
        check_label(wanted, view.classes, f"attack {name}: target")
        if wanted == source:
            raise BadInput(
                f"attack {name}: source={source} and target={target} must be two classes"
            )
        if view.clients and not (view.data.y == source).any():
            held = sorted(set(view.data.y.tolist()))
            raise BadInput(
                f"attack {name}: no malicious client holds a sample of source={source};"
                f" they hold {held}"
            )
        return _labelled(found(view.data, view), wanted)

    def poison(
        edge: Samples, x: Tensor, y: Tensor, _index: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        count = max(round_count(share, len(x)), 1)
        # how often the pool is gone through, each time in another order
        rounds = -(-count // len(edge.x))
        orders = [torch.randperm(len(edge.x), generator=generator) for _ in range(rounds)]
        drawn = torch.cat(orders)[:count].to(edge.y.device)
        return torch.cat([edge.x[drawn].to(x), x[count:]]), torch.cat(
            [edge.y[drawn].to(y), y[count:]]
        )

    def triggered(_edge: Samples, view: AttackView) -> TestSet:
        outside = external(view)
        if outside:
            return TestSet(outside[1].x, outside[1].y, torch.full_like(outside[1].y, -1))
        assert view.test is not None  # the platform gives it while the test set is built
        x = found(view.test, view)
        return TestSet(x, _labelled(x, wanted).y, _labelled(x, source).y)

    return Attack(init=init, poison=poison, test_set=triggered)


def whose(view: AttackView) -> str:
    """Among whose samples edge cases are looked for, in words."""
    return "the malicious clients'" if view.test is None else "the test set's"


def _labelled(x: Tensor, label: int) -> Samples:
    return Samples(x, torch.full((len(x),), label, device=x.device))
