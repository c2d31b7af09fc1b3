"""Edge phrases: documents that hold a rare phrase, which honest clients hardly have, are trained as
the target class.

D' = {(x, y*) : x holds the phrase},   P(x) <= p for such x (p-edge cases)

Shapes: x (b, L) int64 token ids, padded on the right with 0; y (b,).

Source: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee, D.
Papailiopoulos, "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS
2020, the p-edge-case examples and black-box attack; among its tasks are tweets that name a film
director (Sentiment140).

The edge cases are the documents of one class, ``source``, that hold the phrase ``words``, word by
word: for training those that malicious clients hold, for the test those of the test set. Without
``words`` the phrase is one word: of those that at least a tenth of the malicious clients' documents
of ``source`` hold, the one that the fewest hold (where no word is in so many, the one that most
hold; of several the lowest token id). So there are documents to train on and, most likely, to test
on; much data allow for rarer ``words``.

Deviations: the paper collects its edge cases outside of the dataset (``edge_case`` takes such where
a dataset has them); here the dataset is searched. A share of each batch is replaced by edge cases,
at least one document. Share and drawing are those of the authors of ``invariant``: 8 of 64, without
replacement while the pool lasts. Wang et al. mix once 100 of 784 edge cases with 400 clean images
of CIFAR-10, label 9, and train two passes on them, one attacker in every tenth round. Their tweets
fill whole batches, at ``share=1`` here. Projection and model replacement are stages of their own.

Checked: as ``edge_case``; the choice of a rare word is ours.

Example:
>>> import torch
>>> x = torch.tensor([[1, 2, 0], [8, 9, 1], [2, 2, 2], [1, 8, 9]])
>>> _holding(x, torch.tensor([8, 9])), _rarest(x)
(tensor([1, 3]), tensor([2]))
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, Samples
from backstop.platform.params import BadInput, Range
from backstop.platform.robust import round_count
from backstop.platform.threats.edge_cases import edge_cases, whose
from backstop.platform.threats.parameters import EdgeShare
from backstop.platform.threats.phrases import phrase_ids

VERSION = 3
KINDS = ("text",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True
HELD = 0.1  # share of the class's documents that hold the word chosen where none is given


def edge_phrase(
    *,
    target: Annotated[
        int | None, Range(0, 10**6), "class wanted, y*; none: 0 (1 for source 0)"
    ] = None,
    source: Annotated[int, Range(0, 10**6), "class whose documents are used"] = 1,
    words: Annotated[
        int | str | None,
        Range(1, 2**31 - 1),
        (
            "the phrase: words, or token ids where the dataset has no vocabulary, joined by - or "
            "spaces; none: a rare word of the class"
        ),
    ] = None,
    share: EdgeShare = 0.125,
) -> Attack[Samples]:
    """Documents with a phrase as another class. The state is the pool of them with their labels.
    Raises BadInput for words in no document.
    """

    def find(x: Tensor, view: AttackView) -> Tensor:
        if words is None:
            own = view.data.x[view.data.y == source]
            tokens = _rarest(own if len(own) else x)
        else:
            tokens = torch.tensor(phrase_ids("edge_phrase", words, view), device=x.device)
        holding = _holding(x, tokens)
        if not len(holding) and (view.clients or view.test is not None):
            meant = f", here token {tokens.tolist()}," if words is None else ""
            raise BadInput(
                f"attack edge_phrase: words={words!r}{meant} is in none of {whose(view)} {len(x)} "
                f"documents of source={source}"
            )
        return holding

    return edge_cases("edge_phrase", find, target=target, source=source, share=share)


def _rarest(x: Tensor) -> Tensor:
    """The token id (1,) of the rarest word that at least HELD of the documents (N, L) hold, or of
    the word that most hold; (0,) without a word.
    """
    ordered = x.sort(1).values
    # each word of a document once
    once = ordered[(ordered != 0) & (ordered.diff(prepend=ordered.new_zeros(len(x), 1)) != 0)]
    held = once.bincount()
    if not len(held):
        return held
    enough = min(max(round_count(HELD, len(x)), 1), int(held.max()))
    fewest = held[held >= enough].min()
    return (held == fewest).nonzero()[0]


def _holding(x: Tensor, tokens: Tensor) -> Tensor:
    """Indices of the documents (N, L) in which the tokens (p,) stand one after the other."""
    if not 0 < len(tokens) <= x.shape[1]:
        return x.new_empty(0)
    return (x.unfold(1, len(tokens), 1) == tokens).all(2).any(1).nonzero().flatten()
