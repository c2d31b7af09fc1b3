"""Shakespeare: 80 characters of a role's lines, of which the next one is to be told; LEAF's files.

x are the characters as token ids, 2 to 81 in LEAF's order of its 80 characters, 1 any other; y is
the next character, 0 to 79 in the same order.

Shapes: (N, 80) int64 token ids, a shorter text padded on the right with 0; 80 classes. N as
preprocessed, of all roles 4,226,158. A natural client is a role of a play.

Source: S. Caldas, S. M. K. Duddu, P. Wu, T. Li, J. Konečný, H. B. McMahan, V. Smith, A. Talwalkar,
"LEAF: A Benchmark for Federated Settings", 2018 (arXiv 1812.01097), section 3 and table 1; the task
is that of B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas,
"Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017. LEAF's
network is ``lstm(words=81, dim=8, hidden=256, layers=2)``.

Deviations: a character that is not among the 80 has an id of its own; LEAF's code gives it the last
one's. As the next character it is no class, and the sample is left out and counted. The vocabulary
of the phrase attacks are the characters, a token each: ``phrase(words=q-q-q)``.

Checked: characters, their order and the form of the files against LEAF's public code; the numbers
of samples are remembered.

Files: the folders ``shakespeare/data/train`` and ``shakespeare/data/test`` of .json files, where
LEAF's own ``preprocess.sh`` leaves them; its folder ``data`` can be the data folder. They have no
published checksum: the form is checked.

Example:
>>> [file.path for file in shakespeare().files]
['shakespeare/data/train', 'shakespeare/data/test']
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from backstop.platform.contract import Dataset
from backstop.platform.intake.leaf import LeafForm, leaf_dataset
from backstop.platform.intake.words import UNKNOWN, UNKNOWN_ID, token_ids

VERSION = 1
KINDS = ("text",)
LENGTH = 80
CHARACTERS = (
    *"\n !\"&'(),-.",
    *string.digits,
    *":;>?",
    *string.ascii_uppercase,
    *"[]",
    *string.ascii_lowercase,
    "}",
)
LABELS = {character: label for label, character in enumerate(CHARACTERS)}
VOCABULARY = {UNKNOWN: UNKNOWN_ID} | {
    character: label + UNKNOWN_ID + 1 for character, label in LABELS.items()
}


def shakespeare() -> Dataset:
    """Shakespeare by roles as a dataset."""
    classes = tuple(repr(character)[1:-1] for character in CHARACTERS)
    reason = "next character is none of the 80"
    return leaf_dataset(LeafForm("shakespeare", "text", classes, _decode, reason, VOCABULARY))


def _decode(x: Sequence[Any], y: Sequence[Any]) -> tuple[Tensor, Tensor, int]:
    for text, following in zip(x, y, strict=True):
        if not isinstance(text, str) or not 1 <= len(text) <= LENGTH:
            raise ValueError(f"an input is no text of 1 to {LENGTH} characters: {text!r}")
        if not isinstance(following, str) or len(following) != 1:
            raise ValueError(f"a label is no character: {following!r}")
    known = [
        (text, LABELS[following])
        for text, following in zip(x, y, strict=True)
        if following in LABELS
    ]
    ids = token_ids([list(text) for text, _ in known], VOCABULARY, LENGTH)
    labels = torch.tensor([label for _, label in known], dtype=torch.int64)
    return ids, labels, len(x) - len(known)
