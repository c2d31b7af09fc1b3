"""Backdoors on rare inputs: how edge cases are trained and tested is the same question for all;
which inputs they are is a plug-in's.

D' = {(x, y*) : x is an edge case},   P(x) <= p for edge cases

Source: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee, D.
Papailiopoulos, "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS
2020, the p-edge-case examples and black-box attack.

Edge cases come with the dataset (``external``: they belong to no test class, so no true label is
stated), or they are found among the samples of one class, ``source``: for training among those that
malicious clients hold, for the test among those that the model is evaluated on.

A share of each batch is replaced by edge cases, at least one sample, drawn without replacement
while the pool lasts: 8 of 64 is the setting for CIFAR-10 of the authors of ``invariant``. The first
samples of a batch are replaced; batches are shuffled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, Samples, TestSet
from backstop.platform.params import BadInput, check_label
from backstop.platform.robust import round_count

# (samples of the source class (N, …), view) → indices (k,) of the edge cases
Find = Callable[[Tensor, AttackView], Tensor]
Pool = Literal["auto", "external", "tail"]  # which edge cases


def edge_cases(
    name: str,
    find: Find,
    *,
    target: int | None,
    source: int,
    share: float,
    pool: Pool = "tail",
) -> Attack[Samples]:
    """The attack that trains edge cases as another class. ``pool`` says which: ``tail``, those that
    ``find`` finds; ``external``, the dataset's; ``auto``, the dataset's where it has some. Without
    a ``target`` the class wanted is the dataset's own for external ones, else 0 (1 for source 0).
    The state is the pool of edge cases with their labels.

    Raises BadInput, when the attack starts, where source and target are one class or none of the
    data's, or there is no edge case; when the test set is built, where the test set holds none.
    """
    cases = _Cases(name, find, target, source, pool)

    def init(view: AttackView) -> Samples:
        external = cases.external(view)
        check_label(target, view.classes, f"attack {name}: target")
        if external:
            return external[0]
        cases.check_classes(view)
        return _labeled(cases.tail(view.data, view), cases.label)

    def poison(
        edge: Samples,
        x: Tensor,
        y: Tensor,
        _index: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        count = max(round_count(share, len(x)), 1)
        # how often the pool is gone through, each time in another order
        rounds = -(-count // len(edge.x))
        orders = [torch.randperm(len(edge.x), generator=generator) for _ in range(rounds)]
        drawn = torch.cat(orders)[:count].to(edge.y.device)
        inputs = torch.cat([edge.x[drawn].to(x), x[count:]])
        return inputs, torch.cat([edge.y[drawn].to(y), y[count:]])

    def triggered(_edge: Samples, view: AttackView) -> TestSet:
        external = cases.external(view)
        if external:
            x, label = external[1]
            return TestSet(x, label, torch.full_like(label, -1))
        assert view.test is not None  # the platform gives it while the test set is built
        x = cases.tail(view.test, view)
        return TestSet(x, _labeled(x, cases.label).y, _labeled(x, source).y)

    return Attack(
        init=init,
        poison=poison,
        test_set=triggered,
    )


class _Cases(NamedTuple):
    """Which inputs are edge cases, and what they are to be taken for."""

    name: str
    find: Find
    target: int | None
    source: int
    pool: Pool

    @property
    def label(self) -> int:
        """What edge cases of the tail are labeled."""
        return int(self.source == 0) if self.target is None else self.target

    def external(self, view: AttackView) -> tuple[Samples, Samples] | None:
        """The dataset's own, for training and for the test; None where they are not to be used."""
        if self.pool == "external" and view.edge_cases is None:
            raise BadInput(
                f"attack {self.name}: pool='external', but the dataset has no edge cases;"
                " pool is auto, external or tail"
            )
        if self.pool == "tail" or view.edge_cases is None:
            return None
        train, test = view.edge_cases()
        if self.target is None:
            return train, test
        return _labeled(train.x, self.target), _labeled(test.x, self.target)

    def tail(self, given: Samples, view: AttackView) -> Tensor:
        """Those among the samples of the source class."""
        x = given.x[given.y == self.source]
        edge = x[self.find(x, view)]
        if not len(edge) and (view.clients or view.test is not None):
            raise BadInput(
                f"attack {self.name}: none of {whose(view)} {len(x)} samples of"
                f" source={self.source} is an edge case"
            )
        return edge

    def check_classes(self, view: AttackView) -> None:
        """Raise BadInput where source and target are no two classes, or nobody holds the source."""
        check_label(self.source, view.classes, f"attack {self.name}: source")
        check_label(self.label, view.classes, f"attack {self.name}: target")
        if self.label == self.source:
            raise BadInput(
                f"attack {self.name}: source={self.source} and target={self.target} must be two"
                " classes"
            )
        if view.clients and not (view.data.y == self.source).any():
            raise BadInput(
                f"attack {self.name}: no malicious client holds a sample of source={self.source};"
                f" they hold {sorted(set(view.data.y.tolist()))}"
            )


def whose(view: AttackView) -> str:
    """Among whose samples edge cases are looked for, in words."""
    return "the malicious clients'" if view.test is None else "the evaluated"


def _labeled(x: Tensor, label: int) -> Samples:
    return Samples(x, torch.full((len(x),), label, device=x.device))
