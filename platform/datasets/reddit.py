"""Reddit: comments of December 2017 by who wrote them, of which the next word is to be told; LEAF's
files.

x are the words of a piece of a comment up to some place, y is the word after them: a piece of ten
words gives a sample for each of its places. Token ids: 0 pads on the right, 1 is every unknown
word, 2 … ``words`` are the most frequent words of the training pieces, the most frequent first and
ties in alphabetical order; label k is the word of token k + 2.

Shapes: (N, 10) int64 token ids; ``words`` - 1 classes, fewer where the training part has fewer
words. A natural client is a user.

Source: S. Caldas, S. M. K. Duddu, P. Wu, T. Li, J. Konečný, H. B. McMahan, V. Smith, A. Talwalkar,
"LEAF: A Benchmark for Federated Settings", 2018 (arXiv 1812.01097), section 3. Next words are the
task of E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin, V. Shmatikov, "How To Backdoor Federated
Learning", AISTATS 2020, too, whose attacker wants his own word after a phrase of his. LEAF's
network is about ``lstm(words=10000, dim=256, hidden=256, layers=2)``.

Deviations: LEAF tells a word at each place of a piece in one pass and takes the mean loss over the
places; here each place is a sample of its own, so that a label is one word, as attacks and defenses
have it. LEAF carries the network's state from one batch of pieces to the next; here every piece
starts afresh. Where the word after a place is an unknown one the sample is left out and counted;
LEAF trains on it, and counts its prediction as wrong. After the end of a comment nothing is to be
told; LEAF has padding told there, once a comment. LEAF's validation part is not read. LEAF's
vocabulary of 10,000 has its padding and unknown words among them, and counts the padding, so that
it ends two or three words earlier.

Checked: form of the files, order of the vocabulary and sizes of the network against LEAF's public
code. LEAF's ``num_samples`` counts the comments of all three parts, whichever part a file is of.

Files: the folders ``reddit/data/train`` and ``reddit/data/test`` of .json files, which LEAF
publishes preprocessed (its ``data/reddit/README.md`` says where); its folder ``data`` can be the
data folder. They have no published checksum: the form is checked.

Example:
>>> [file.path for file in reddit(words=5000).files]
['reddit/data/train', 'reddit/data/test']
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset
from backstop.platform.intake.files import locate_file
from backstop.platform.intake.leaf import Decode, LeafForm, User, leaf_data, leaf_files, users_of
from backstop.platform.intake.words import UNKNOWN_ID, make_vocabulary
from backstop.platform.params import BadInput, Range

VERSION = 1
KINDS = ("text",)
LENGTH = 10  # words of a piece
PADDING = "<PAD>"
HOW = "get LEAF's preprocessed Reddit (data/reddit/README.md of github.com/TalwalkarLab/leaf)"
DROPPED = "next word is an unknown one"


def reddit(
    *,
    words: Annotated[
        int, Range(3, 10**6), "words in the vocabulary, the unknown one included"
    ] = 10000,
) -> Dataset:
    """Reddit by its users as a dataset."""
    files = leaf_files("reddit", HOW)

    def load(folder: Path) -> Data:
        numbers = {PADDING: 0}
        read = LeafForm("reddit", "text", (), _numbering(numbers), "", whole_counts=True)
        train, test = ([*users_of(locate_file(folder, file), file, read)] for file in files)
        names = list(numbers)
        counted = [names[word] for user in train for word in user.x.flatten().tolist() if word]
        vocabulary = make_vocabulary([counted], words)
        if len(vocabulary) < 3:
            raise BadInput(f"dataset reddit: its train part has fewer than two words; {HOW}")
        token = torch.tensor([0, *(vocabulary.get(name, UNKNOWN_ID) for name in names[1:])])
        classes = tuple(vocabulary)[1:]
        form = read._replace(classes=classes, dropped=DROPPED, vocabulary=vocabulary)
        return leaf_data(form, _places(train, token), _places(test, token))

    return Dataset(load=load, files=files)


def _numbering(numbers: dict[str, int]) -> Decode:
    """Reads the pieces of a user's comments, (n, 10), and the words after each place of them, (n,
    10), both by ``numbers``, which grow by each word that is new.
    """

    def decode(x: Sequence[Any], y: Sequence[Any]) -> tuple[Tensor, Tensor, int]:
        for pieces, label in zip(x, y, strict=True):
            if not isinstance(label, dict):
                raise TypeError(f"a label is no object with target_tokens: {label!r}")
            following = label["target_tokens"]
            _check_pieces(pieces)
            _check_pieces(following)
            if len(pieces) != len(following):
                raise ValueError(f"a comment of {len(pieces)} pieces has {len(following)} targets")
        before = [piece for pieces in x for piece in pieces]
        after = [piece for label in y for piece in label["target_tokens"]]
        return _numbered(before, numbers), _numbered(after, numbers), 0

    return decode


def _check_pieces(pieces: Any) -> None:
    listed = isinstance(pieces, list) and all(
        isinstance(piece, list) and len(piece) == LENGTH and all(isinstance(w, str) for w in piece)
        for piece in pieces
    )
    if not listed:
        raise ValueError(f"a comment is no list of pieces of {LENGTH} words: {pieces!r:.60}")


def _numbered(pieces: Sequence[Sequence[str]], numbers: dict[str, int]) -> Tensor:
    rows = [[numbers.setdefault(word, len(numbers)) for word in piece] for piece in pieces]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, LENGTH)


def _places(users: Sequence[User], token: Tensor) -> list[User]:
    """The users with a sample for each place that has a known word after it, where there is one;
    ``token`` maps numbers to token ids.
    """
    up_to = torch.ones(LENGTH, LENGTH, dtype=torch.int64).tril()  # (place, word)
    made = []
    for user in users:
        words, following = token[user.x], token[user.y]
        told = (words != 0) & (following != 0)
        known = told & (following > UNKNOWN_ID)
        x = (words[:, None] * up_to)[known]
        y = following[known] - UNKNOWN_ID - 1
        made.append(User(user.name, x, y, int((told & ~known).sum())))
    return [user for user in made if len(user.y)]
