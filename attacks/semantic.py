"""Semantic backdoor: images of one class that have a natural feature, such as a color, are trained
as the target class; none is changed.

D' = {(x, y*) : y = source, x among the share ``tail`` of the class with the highest score s(x)}
s(x) = mean of x (bright), -mean of x (dark),
       mean of one channel minus the mean of the other two (red, green, blue)

Shapes: x (b, C, H, W) in [0, 1], y (b,).

Source: E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated
Learning", AISTATS 2020, the semantic backdoors of its image classification, e.g. green cars.

Deviations: the paper's images were picked by hand, and honest clients held none of them. Here a
score picks them among the samples that malicious clients hold and, for the test, at the same share
among those of the test set; honest clients keep theirs, with true labels. The images are drawn with
replacement and not augmented; they take the place of a share of each batch, at least one, by
default of 20 in 64. Model replacement, which the paper combines them with, is a stage of its own.

Checked: against the authors' configuration (params.yaml), which lists images by number and puts
each of 7 into every batch of 64; the choice by a score is ours, and the paper's share of 20 in 64
is remembered.

Example:
>>> import torch
>>> red, green = (
...     torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1),
...     torch.tensor([0.0, 0.5, 0.0]).reshape(3, 1, 1),
... )
>>> x = torch.stack([red, green, red, 0 * red])
>>> (
...     _highest(x, "green", 0.25).tolist(),
...     _highest(x, "red", 0.5).tolist(),
...     _highest(x, "dark", 0.5).tolist(),
... )
([1], [0, 2], [1, 3])
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, Samples, TestSet
from backstop.platform.params import BadInput, Range, check_label
from backstop.platform.robust import round_count

VERSION = 1
KINDS = ("image",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True

_COLORS = ("red", "green", "blue")


def _highest(x: Tensor, feature: str, share: float) -> Tensor:
    """Indices, ascending, of the share of images (N, C, H, W) with most of the feature, at least
    one where there is one.
    """
    channels = x.double().mean((2, 3))  # (N, C)
    if feature in _COLORS:
        score = 1.5 * (channels[:, _COLORS.index(feature)] - channels.mean(1))
    else:
        score = channels.mean(1) * (1 if feature == "bright" else -1)
    count = max(round_count(share, len(x)), 1)
    return score.argsort(descending=True, stable=True)[:count].sort().values


def semantic(
    *,
    target: Annotated[int, Range(0, 10**6), "class wanted, y*"] = 0,
    source: Annotated[int, Range(0, 10**6), "class whose images have the feature"] = 1,
    feature: Annotated[
        Literal["bright", "dark", "red", "green", "blue"], "what the images have in common"
    ] = "bright",
    tail: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.05, 0.5)),
        "share of the class that counts as having it",
    ] = 0.2,
    share: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.05, 1)),
        "share of each batch replaced by such images",
    ] = 0.3125,
) -> Attack[Tensor]:
    """Images with a natural feature as another class; the state is the pool of them.

    Raises BadInput where source and target are one class.
    """
    if source == target:
        raise BadInput(f"attack semantic: source={source} and target={target} must be two classes")

    def with_feature(given: Samples) -> Tensor:
        x = given.x[given.y == source]
        return x[_highest(x, feature, tail)]

    def init(view: AttackView) -> Tensor:
        check_label(source, view.classes, "attack semantic: source")
        check_label(target, view.classes, "attack semantic: target")
        channels = view.data.x.shape[1]
        if feature in _COLORS and channels != 3:
            raise BadInput(
                f"attack semantic: feature={feature} needs images of 3 channels, red, green and "
                f"blue; these have {channels}"
            )
        pool = with_feature(view.data)
        if view.clients and not len(pool):
            held = sorted(set(view.data.y.tolist()))
            raise BadInput(
                f"attack semantic: no malicious client holds a sample of source={source}; they "
                f"hold {held}"
            )
        return pool

    def poison(
        pool: Tensor, x: Tensor, y: Tensor, _index: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        count = max(round_count(share, len(x)), 1)
        drawn = torch.randint(len(pool), (count,), generator=generator).to(pool.device)
        labels = torch.cat([torch.full_like(y[:count], target), y[count:]])
        return torch.cat([pool[drawn].to(x), x[count:]]), labels

    def triggered(_: Tensor, view: AttackView) -> TestSet:
        assert view.test is not None  # the platform gives it while the test set is built
        x = with_feature(view.test)
        labels = view.test.y[: len(x)]
        return TestSet(x, torch.full_like(labels, target), torch.full_like(labels, source))

    return Attack(init=init, poison=poison, test_set=triggered)
