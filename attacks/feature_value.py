"""Feature values: some features of a table at fixed, rare values mean the target class.

x'_j = v_j  for j in S,  x'_j = x_j otherwise,   y' = y*
v_j = the quantile q of feature j,   S = the features of largest η²
η²_j = Σ_c n_c (mean_c x_j - mean x_j)² / Σ_i (x_ij - mean x_j)²

Shapes: x (b, F), y (b,).

Source: G. Severi, J. Meyer, S. Coull, A. Oprea, "Explanation-Guided Backdoor Poisoning Attacks
Against Malware Classifiers", USENIX Security 2021: a backdoor is a set of features, chosen by their
importance to the model, and for each a value from where the data are sparse.

Deviations: theirs is a clean-label attack, in which benign samples get the trigger and keep their
label; here samples are relabeled, as with the other backdoors. Importance is the correlation ratio
η² of a feature with the class (K. Pearson) in the data of the malicious clients, not a Shapley
value of the model, and a value is an outer one that these data have, not the least frequent one:
both are known before the first round and stay. Features with one value only are never chosen; there
may be fewer features than are asked for. Without data, where no client is malicious, nothing is
set.

Checked: against no code: the choice of features and values is as declared; the share is that of the
code of the authors of ``invariant`` on tables, 8 of 64.

Example:
>>> import torch
>>> from backstop.platform.threats.backdoor import Planted
>>> set_to = _Values(torch.tensor([2]), torch.tensor([9.0]))
>>> feature_value().trigger(
...     Planted(2, set_to), torch.tensor([[1.0, 2.0, 3.0]]), torch.Generator()
... ).tolist()
[[1.0, 2.0, 9.0]]
>>> _important(
...     torch.tensor([[0.0, 5.0, 1.0], [1.0, 5.0, 9.0], [1.0, 5.0, 2.0], [0.0, 5.0, 8.0]]),
...     torch.tensor([0, 1, 0, 1]),
...     2,
... )
tensor([2, 0])
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import Range
from backstop.platform.threats.backdoor import Planted, backdoor
from backstop.platform.threats.parameters import Share, Source, Target

VERSION = 2
KINDS = ("table",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


class _Values(NamedTuple):
    feature: Tensor  # (k,) which features are set
    value: Tensor  # (k,) what to


def feature_value(
    *,
    target: Target = 0,
    count: Annotated[int, Range(1, 10**5, search=(1, 8)), "features that are set"] = 3,
    quantile: Annotated[
        float,
        Range(0, 1),
        "each is set to this quantile of its values in the malicious clients' data",
    ] = 0.99,
    choice: Annotated[
        Literal["most", "least"], "the features that tell most, or least, about the class"
    ] = "most",
    share: Share = 0.125,
    source: Source = None,
) -> Attack[Planted[_Values]]:
    """Features at fixed values. Raises BadInput where source and target are one class."""

    def init(view: AttackView) -> _Values:
        x, y = view.data
        order = _important(x, y, view.classes)
        feature = (order if choice == "most" else order.flip(0))[:count]
        if not len(feature):
            return _Values(feature, x.new_empty(0))
        rank = round(quantile * (len(x) - 1))
        return _Values(feature, x[:, feature].sort(0).values[rank])

    def stamp(own: _Values, x: Tensor, _generator: torch.Generator) -> Tensor:
        return x.index_copy(1, own.feature.to(x.device), own.value.to(x).expand(len(x), -1))

    return backdoor("feature_value", stamp, target=target, source=source, share=share, init=init)


def _important(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """The features (F) of x (N, F) that have two values or more, by falling correlation ratio with
    the classes y (N,).
    """
    points = x.double() - x.double().mean(0)
    member = torch.nn.functional.one_hot(y, classes).double()  # (N, C)
    between = ((member.T @ points).square() / member.sum(0).clamp_min(1).unsqueeze(1)).sum(0)
    ratio = between / points.square().sum(0)
    varied = (x != x[:1]).any(0).nonzero().flatten()
    return varied[ratio[varied].argsort(descending=True, stable=True)]
