"""Semantic backdoor: which images have the feature, that none is changed, what is refused, and that
it bites.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.attacks.semantic import _COLORS, semantic
from backstop.platform.contract import Samples
from backstop.platform.params import BadInput
from tests.arena import Claim
from tests.views import attack_view, samples, with_data

CLAIM = Claim(
    "semantic(source=7, tail=0.5, share=0.6)+model_replacement(strength=2)",
    effect=0.45,
    weaker="semantic(source=7, tail=0.5, share=0.1)+model_replacement(strength=2)",
    bend=0.4,
)


def reference(image: Tensor, feature: str) -> float:
    """The score, pixel by pixel."""
    total, pixels = 0.0, image.double().flatten(1).T.tolist()
    for pixel in pixels:
        if feature in _COLORS:
            own = pixel.pop(_COLORS.index(feature))
            total += own - sum(pixel) / 2
        else:
            total += sum(pixel) / len(pixel) * (1 if feature == "bright" else -1)
    return total / len(pixels)


@pytest.mark.parametrize("feature", ["bright", "dark", *_COLORS])
@pytest.mark.parametrize("tail", [0.01, 0.3, 1.0])
def test_pool_and_test_set_are_the_highest_of_the_source_class_and_unchanged(
    feature: Any, tail: float
) -> None:
    attack, view, test = (
        semantic(target=3, source=2, feature=feature, tail=tail),
        attack_view("image"),
        samples("image", 64, "test"),
    )
    assert attack.init is not None and attack.test_set is not None
    pool = attack.init(view)
    triggered = attack.test_set(pool, replace(view, test=test))
    for found, (x, y) in ((pool, view.data), (triggered.x, test)):
        own = [image for image, label in zip(x, y, strict=True) if label == 2]
        count = max(round(tail * len(own)), 1)
        cut = sorted((reference(image, feature) for image in own), reverse=True)[count - 1]
        assert (
            torch.equal(
                found, torch.stack([image for image in own if reference(image, feature) >= cut])
            )
            and len(found) == count
        )
    assert triggered.truth.eq(2).all() and triggered.wanted.eq(3).all()


def test_a_colored_image_is_found_by_its_color() -> None:
    view = attack_view("image")
    one = view.data.y.eq(1).nonzero().flatten()
    x = view.data.x.clone()
    for place, color in zip(one[2:5], range(3), strict=True):
        x[place] = 0.1
        x[place, color] = 0.6  # darker than the others on the whole
    features: tuple[Any, ...] = _COLORS
    for place, feature in zip(one[2:5], features, strict=True):
        attack = semantic(feature=feature, tail=0.1)
        assert attack.init is not None and torch.equal(
            attack.init(with_data(view, Samples(x, view.data.y))), x[place][None]
        )


def test_poison_takes_the_place_of_the_first_of_a_batch_by_draws_with_replacement() -> None:
    attack, view, (x, y) = semantic(target=3), attack_view("image"), samples("image", 64, "batch")
    assert attack.init is not None and attack.poison is not None
    pool = attack.init(view)
    assert len(pool) == 2  # a fifth of the 10 samples of class 1
    found, labels = attack.poison(pool, x, y, 0, torch.Generator().manual_seed(0))
    drawn = [[torch.equal(image, one) for one in pool].index(True) for image in found[:20]]
    assert 4 < sum(drawn) < 16  # both are drawn, about as often
    assert (
        torch.equal(found[20:], x[20:])
        and labels[:20].tolist() == [3] * 20
        and torch.equal(labels[20:], y[20:])
    )


def test_refusals() -> None:
    for malicious in (0, 3):
        gray = attack_view("image", malicious=malicious, shape=(1, 8, 8))
        colored = semantic(feature="green")
        assert colored.init is not None
        with pytest.raises(
            BadInput,
            match=(
                "attack semantic: feature=green needs images of 3 channels, red, green and blue; "
                "these have 1"
            ),
        ):
            colored.init(gray)
    with pytest.raises(
        BadInput, match="attack semantic: source=2 and target=2 must be two classes"
    ):
        semantic(source=2, target=2)
    view, attack = attack_view("image"), semantic()
    others = view.data.y != 1
    assert attack.init is not None
    with pytest.raises(
        BadInput,
        match=(
            r"attack semantic: no malicious client holds a sample of source=1; they hold \[0, 2, "
            r"3\]"
        ),
    ):
        attack.init(with_data(view, Samples(view.data.x[others], view.data.y[others])))
