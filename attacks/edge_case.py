"""Edge cases: rare inputs, which honest clients hardly have, are trained as the target class.

D' = {(x, y*) : x in the tail},   P(x) <= p for x in the tail (p-edge cases)

Shapes: x (b, …), y (b,).

Source: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee, D. Papailiopoulos, "Attack of the Tails: Yes,
You Really Can Backdoor Federated Learning", NeurIPS 2020, the p-edge-case examples and black-box attack.

Two kinds of edge cases:

* ``external``: those that come with the dataset (for CIFAR-10 the Southwest airplanes, wanted: truck). They belong to no test class, so
  no true label is stated.
* ``tail``: the share ``tail`` of lowest density of one class, ``source``; for training of the samples that malicious clients hold, for the
  test of the test set's. The density is a Gaussian with covariance Σ + ρ I fitted to the class, on the inputs themselves, where ρ is
  the mean of the nonzero eigenvalues of Σ: then the Mahalanobis distances are the leverages x_iᵀ (XᵀX + n ρ I)⁻¹ x_i of ridge regression.

Deviations: the paper fits its density, a Gaussian mixture, to the last hidden layer of a trained model; the inputs serve here, so
that the edge cases do not depend on a model. As published, a share of each batch is replaced by edge cases, drawn with replacement:
8 of 64 is the setting for CIFAR-10 of the authors of ``invariant``; at least one sample. Projection and model replacement are stages of their own.

Example:
>>> import torch
>>> _rare(torch.tensor([[0.0], [0.1], [-0.1], [9.0], [0.2]]), 0.2)
tensor([3])
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, Samples, TestSet
from backstop.platform.params import BadInput, Range, check_label
from backstop.platform.robust import round_count

VERSION = 1
KINDS = ("image", "table")
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


def _rare(x: Tensor, share: float) -> Tensor:
    """Indices, ascending, of the share of samples (N, …) of lowest density, at least one where there is one."""
    points = x.flatten(1).double()
    points = points - points.mean(0)
    samples, features = points.shape
    ridge = points.square().sum() / max(min(samples, features), 1)
    if not ridge > 0:  # no sample, one sample, or all alike
        leverage = points.new_zeros(samples)
    elif features <= samples:
        leverage = (torch.linalg.solve(points.t() @ points + ridge * torch.eye(features).to(points), points.t()) * points.t()).sum(0)
    else:  # the same numbers from the smaller matrix
        gram = points @ points.t()
        leverage = torch.linalg.solve(gram + ridge * torch.eye(samples).to(points), gram).diagonal()
    count = max(round_count(share, len(x)), 1)
    return leverage.argsort(descending=True, stable=True)[:count].sort().values


def edge_case(
    *,
    target: Annotated[
        int | None, Range(0, 10**6), "class wanted, y*; none: the dataset's own for external, else 0 (1 for source 0)"
    ] = None,
    source: Annotated[int, Range(0, 10**6), "class whose tail is used"] = 1,
    share: Annotated[float, Range(0, 1, low_open=True, search=(0.05, 1)), "share of each batch replaced by edge cases"] = 0.125,
    tail: Annotated[float, Range(0, 1, low_open=True, search=(0.05, 0.5)), "share of the class that is its tail"] = 0.2,
    pool: Annotated[Literal["auto", "external", "tail"], "auto: external edge cases where the dataset has some, else the tail"] = "auto",
) -> Attack:
    """Edge cases as another class. The state is the pool of edge cases with their labels."""
    wanted = int(source == 0) if target is None else target

    def external(view: AttackView) -> tuple[Samples, Samples] | None:
        if pool == "external" and view.edge_cases is None:
            raise BadInput("attack edge_case: pool='external', but the dataset has no edge cases; pool is auto, external or tail")
        if pool == "tail" or view.edge_cases is None:
            return None
        train, test = view.edge_cases()
        return (train, test) if target is None else (_labelled(train.x, target), _labelled(test.x, target))

    def init(view: AttackView) -> Samples:
        found = external(view)
        check_label(target, view.classes, "attack edge_case: target")
        if found:
            return found[0]
        check_label(source, view.classes, "attack edge_case: source")
        check_label(wanted, view.classes, "attack edge_case: target")
        if wanted == source:
            raise BadInput(f"attack edge_case: source={source} and target={target} must be two classes")
        own = view.data.x[view.data.y == source]
        if view.clients and not len(own):
            held = sorted(set(view.data.y.tolist()))
            raise BadInput(f"attack edge_case: no malicious client holds a sample of source={source}; they hold {held}")
        return _labelled(own[_rare(own, tail)], wanted)

    def poison(edge: Samples, x: Tensor, y: Tensor, _index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        count = max(round_count(share, len(x)), 1)
        drawn = torch.randint(len(edge.x), (count,), generator=generator).to(edge.y.device)
        return torch.cat([edge.x[drawn].to(x), x[count:]]), torch.cat([edge.y[drawn].to(y), y[count:]])

    def triggered(_edge: Samples, view: AttackView) -> TestSet:
        found = external(view)
        if found:
            return TestSet(found[1].x, found[1].y, torch.full_like(found[1].y, -1))
        assert view.test is not None  # the platform gives it while the test set is built
        x = view.test.x[view.test.y == source]
        x = x[_rare(x, tail)]
        return TestSet(x, _labelled(x, wanted).y, _labelled(x, source).y)

    return Attack(init=init, poison=poison, test_set=triggered)


def _labelled(x: Tensor, label: int) -> Samples:
    return Samples(x, torch.full((len(x),), label, device=x.device))
