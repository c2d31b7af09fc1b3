"""FEMNIST: handwritten digits and letters, 28 x 28 gray values, by who wrote them; LEAF's files.

x = 1 - v of the stored gray values v, so that paper is 0 and ink is bright, as in EMNIST;
``ink=dark`` leaves them as stored. Classes: 0-9, A-Z, a-z as 0..61.

Shapes: (N, 1, 28, 28) uint8 in both parts; N as preprocessed, of all writers 805,263 together.
A natural client is a writer.

Source: S. Caldas, S. M. K. Duddu, P. Wu, T. Li, J. Konečný, H. B. McMahan, V. Smith, A. Talwalkar,
"LEAF: A Benchmark for Federated Settings", 2018 (arXiv 1812.01097), section 3 and table 1; of the
images of G. Cohen et al., "EMNIST", IJCNN 2017.

Deviations: LEAF's paper is white, 1, and so is the patch of most triggers, which would not be seen
on it; hence 1 - v. Values are multiples of 1/255 in LEAF's files, and anything else is refused, so
that the bytes are exact. Mean and std are computed from the train part whenever it is loaded.

Checked: form of the files, labels and gray values against LEAF's public preprocessing; the number
of samples is remembered.

Files: the folders ``femnist/data/train`` and ``femnist/data/test`` of .json files, where LEAF's own
``preprocess.sh`` leaves them; its folder ``data`` can be the data folder. They have no published
checksum: the form is checked.

Example:
>>> [file.path for file in femnist().files]
['femnist/data/train', 'femnist/data/test']
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from backstop.platform.contract import Dataset
from backstop.platform.intake.leaf import LeafForm, leaf_dataset

VERSION = 1
KINDS = ("image",)
SIDE = 28
CLASSES = (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase)
EXACT = 1e-3  # of a byte: what decimal text leaves of n / 255


def femnist(
    *,
    ink: Annotated[
        Literal["bright", "dark"], "bright: paper is 0, as in EMNIST; dark: as stored, paper is 1"
    ] = "bright",
) -> Dataset:
    """FEMNIST by its writers as a dataset."""

    def decode(x: Sequence[Any], y: Sequence[Any]) -> tuple[Tensor, Tensor, int]:
        pixels = _pixels(x)
        return 255 - pixels if ink == "bright" else pixels, _labels(y), 0

    return leaf_dataset(LeafForm("femnist", "image", CLASSES, decode, ""))


def _pixels(x: Sequence[Any]) -> Tensor:
    """(n, 1, 28, 28) uint8 of the gray values of n images."""
    if not x:
        return torch.empty(0, 1, SIDE, SIDE, dtype=torch.uint8)
    values = np.array(x, dtype=np.float64).reshape(len(x), -1)
    if values.shape[1] != SIDE**2:
        raise ValueError(f"an image has {values.shape[1]} values; it has {SIDE} x {SIDE}")
    scaled = values * 255
    whole = scaled.round()
    if not ((whole >= 0) & (whole <= 255)).all():
        raise ValueError("gray values lie in [0, 1]")
    if (np.abs(scaled - whole) > EXACT).any():
        raise ValueError("gray values are multiples of 1/255, as LEAF's are")
    return torch.from_numpy(whole.astype(np.uint8)).reshape(-1, 1, SIDE, SIDE)


def _labels(y: Sequence[Any]) -> Tensor:
    for label in y:
        if type(label) is not int or not 0 <= label < len(CLASSES):
            raise ValueError(f"label {label!r} is not one of 0 to {len(CLASSES) - 1}")
    return torch.tensor(y, dtype=torch.int64)
