"""Real handwritten digits, 8 x 8 gray values, that come with scikit-learn: nothing to download.

x = round(255 v / 16) for the stored values v in 0..16.

Shapes: train (1437, 1, 8, 8) and test (360, 1, 8, 8), uint8; 10 classes.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49; scikit-learn bundles its test part, 1,797 images,
as ``load_digits``.

Deviations: no train and test split is published for these images. Here, with the samples sorted by
class and otherwise in file order, every fifth is a test sample: each class has a fifth of its
samples in the test set, and no draw is involved.

Example:
>>> from pathlib import Path
>>> data = digits().load(Path())
>>> data.train.x.shape, data.test.x.shape, int(data.train.x.max())
(torch.Size([1437, 1, 8, 8]), torch.Size([360, 1, 8, 8]), 255)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from backstop.platform.contract import Data, Dataset, Samples
from backstop.platform.intake.bundled import bundled_file
from backstop.platform.intake.checks import checked

VERSION = 1
KINDS = ("image",)
MEAN = (0.305802,)  # of the train part, x / 255
STD = (0.376053,)


def digits() -> Dataset:
    """The digits as a dataset. The data folder is not read."""
    return Dataset(load=_load)


def _load(_: Path) -> Data:
    with bundled_file("digits", "data/digits.csv.gz") as path:
        table = torch.from_numpy(np.loadtxt(path, delimiter=","))
    pixels = table[:, :-1].mul(255 / 16).round().to(torch.uint8)
    x = pixels.reshape(-1, 1, 8, 8)
    y = table[:, -1].to(torch.int64)
    test = _every_fifth(y)
    data = Data(
        train=Samples(x[~test], y[~test]),
        test=Samples(x[test], y[test]),
        classes=10,
        kind="image",
        mean=MEAN,
        std=STD,
    )
    return checked(data, "digits")


def _every_fifth(y: torch.Tensor) -> torch.Tensor:
    """Which samples are for testing, (N,) bool: every fifth, class by class."""
    by_class = torch.argsort(y, stable=True)
    test = torch.zeros(len(y), dtype=torch.bool)
    test[by_class[::5]] = True
    return test
