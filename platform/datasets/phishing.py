"""Phishing Websites: 11,055 web sites, 30 features of address, page and domain, phishing or
legitimate.

x are the published values, -1, 0 and 1 (any feature has two or three of them), in the published
order of the features; y = 1 for phishing (Result = -1) and y = 0 for legitimate (Result = 1).

Shapes: train (8862, 30) and test (2193, 30), float32; 2 classes. Of the 5,785 distinct inputs 4,628
are in train and 1,157 in test; other values of ``test`` and ``seed`` give other numbers. Phishing
are 44.1 % of the training rows, 45.0 % of the test rows.

Source: R. Mohammad, F. Thabtah, L. McCluskey, "Phishing Websites", UCI Machine Learning Repository,
2015, https://doi.org/10.24432/C51W2X.

Deviations: no train and test split is published. Nearly half of the rows are copies: a random split
puts equal inputs on both sides, for some 64 % of the test rows, and a model that remembers them is
credited for it (a random forest has 97.5 % of the test rows right there, 95.4 % here). So all
copies of an input go to one side, whatever their label. 64 inputs, 357 rows, have both labels: no
classifier has more than 98.97 % of all rows right.

Files: ``phishing/uci_phishing_websites.csv`` (one header line, Result last), or UCI's ``Training
Dataset.arff`` under its own name or as ``uci_phishing_websites.arff``. All forms are compared with
a checksum of their rows, which does not see blanks and the names of the features.

Example:
>>> phishing().files[0].path, phishing().files[0].instead[1].path
('phishing/uci_phishing_websites.csv', 'phishing/Training Dataset.arff')
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File
from backstop.platform.intake.checks import checked
from backstop.platform.intake.files import locate_file, md5_of, naming_file
from backstop.platform.intake.tables import held_out, parted
from backstop.platform.params import BadInput, Range
from backstop.platform.seeds import generator

VERSION = 1
KINDS = ("table",)
HINT = (
    "put Training Dataset.arff of UCI's Phishing Websites (https://doi.org/10.24432/C51W2X),"
    " or uci_phishing_websites.csv with the same rows,"
    " into phishing under the data folder"
)
FILE = File(
    "phishing/uci_phishing_websites.csv",
    "b7d380be812ed01d70b9c85afa700814",
    HINT,
    instead=tuple(
        File(f"phishing/{name}.arff", None, HINT)
        for name in ("uci_phishing_websites", "Training Dataset")
    ),
)
CHECKSUM = "16d65494665114f56ba3142733552df0"  # md5 of the rows, int8: 30 features, then Result


def phishing(
    *,
    test: Annotated[
        float,
        Range(0, 1, low_open=True, high_open=True),
        "share of the distinct inputs that are tested, with all copies",
    ] = 0.2,
    seed: Annotated[
        int, Range(0, 2**31 - 1), "names the draw of the test part; not the seed of the experiment"
    ] = 0,
) -> Dataset:
    """Phishing Websites as a dataset."""

    def load(folder: Path) -> Data:
        rows = _rows(locate_file(folder, FILE))
        x, y = rows[:, :-1].float(), (rows[:, -1] == -1).long()
        data = parted(x, y, held_out(x, test, generator(seed, "phishing", "test")), classes=2)
        return checked(data, "phishing")

    return Dataset(load=load, files=(FILE,))


def _rows(path: Path) -> Tensor:
    """(11055, 31) int8: what follows the header line of a csv, or the lines of an arff that declare
    nothing.
    """
    with naming_file(path, HINT):
        rows = np.loadtxt(
            path,
            np.int8,
            delimiter=",",
            comments=("%", "@"),
            skiprows=int(path.suffix == ".csv"),
            ndmin=2,
        )
    md5 = md5_of(rows.tobytes())
    if md5 != CHECKSUM:
        raise BadInput(
            f"{path} holds other rows, {rows.shape}: their md5 is {md5}, not {CHECKSUM}; {HINT}"
        )
    return torch.from_numpy(rows)
