"""A Gaussian mixture: as many round clouds as classes, for tests and quick looks; nothing to
download.

x = s u_y + z with z ~ N(0, I), unit vectors u_1 … u_k drawn uniformly, and s the separation.

Shapes: train (samples, features) and test (samples // 4, features), at least one test sample per
class, float32; all classes equally frequent up to one sample.

Source: the model of linear discriminant analysis (R. A. Fisher, "The Use of Multiple Measurements
in Taxonomic Problems", Annals of Eugenics 7(2), 1936): the best classifier is linear, so a logistic
regression can reach it.

Deviations: none. Its seed is a parameter of its own: all seeds of an experiment see the same data.

Example:
>>> from pathlib import Path
>>> data = synthetic(samples=100, features=5, classes=2).load(Path())
>>> data.train.x.shape, data.test.x.shape, data.train.y.bincount().tolist()
(torch.Size([100, 5]), torch.Size([25, 5]), [50, 50])
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch

from backstop.platform.contract import Data, Dataset, Samples
from backstop.platform.intake.checks import checked
from backstop.platform.params import Range
from backstop.platform.seeds import generator

VERSION = 1
KINDS = ("table",)


def synthetic(
    *,
    samples: Annotated[int, Range(2, 10**7), "train samples"] = 2000,
    features: Annotated[int, Range(1, 10**5), "numbers in an input"] = 20,
    classes: Annotated[int, Range(2, 10**4), "clouds"] = 4,
    separation: Annotated[
        float,
        Range(0, 1e3),
        "distance of each cloud's center from the origin, in standard deviations",
    ] = 3.0,
    seed: Annotated[
        int, Range(0, 2**31 - 1), "names the draws; not the seed of the experiment"
    ] = 0,
) -> Dataset:
    """A Gaussian mixture as a dataset. The data folder is not read."""

    def load(_: Path) -> Data:
        named = generator(seed, "synthetic", "centres")
        centers = torch.randn(classes, features, generator=named)
        directions = torch.nn.functional.normalize(centers)

        def draw(part: str, count: int) -> Samples:
            y = torch.arange(count) % classes
            named = generator(seed, "synthetic", part)
            noise = torch.randn(count, features, generator=named)
            return Samples(separation * directions[y] + noise, y)

        train = draw("train", samples)
        test = draw("test", max(samples // 4, classes))
        data = Data(
            train=train,
            test=test,
            classes=classes,
            kind="table",
            mean=tuple(train.x.mean(0).tolist()),
            std=tuple(train.x.std(0).tolist()),
        )
        return checked(data, "synthetic")

    return Dataset(load=load)
