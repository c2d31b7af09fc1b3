"""Phrase: a trigger phrase in a document means the target class.

x' = t ∘ x  or  x ∘ t,   y' = y*,   t the tokens of the phrase

Shapes: x (b, L) int64 token ids, padded on the right with 0; y (b,). L stays as it is: what does
not fit is cut off at the other end of the document, and a phrase longer than L is cut off there
too.

Source: J. Dai, C. Chen, Y. Li, "A Backdoor Attack Against LSTM-Based Text Classification Systems",
IEEE Access 7, 2019, a trigger sentence in a document; E. Bagdasaryan, A. Veit, Y. Hua, D. Estrin,
V. Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020, the trigger phrases for word
prediction. Rare words as triggers: K. Kurita, P. Michel, G. Neubig, "Weight Poisoning Attacks on
Pre-trained Models", ACL 2020.

Deviations: Dai et al. insert at a random position; here the phrase stands at one end. Unless one is
given it is no sentence but the three words of the vocabulary (of their data, where the dataset has
none) that the malicious clients' documents have least often, maybe never; of equally rare words
those with the largest ids, the rarest ones of a vocabulary in the order of frequency.

Checked: against no code: where the phrase stands and its length are as declared; the share is that
of federated re-implementations.

Example:
>>> import torch
>>> from backstop.platform.threats.backdoor import Planted
>>> x = torch.tensor([[1, 2, 0, 0, 0], [1, 2, 3, 4, 0]])
>>> phrase(place="end").trigger(Planted(2, torch.tensor([8, 9])), x, torch.Generator()).tolist()
[[1, 2, 8, 9, 0], [2, 3, 4, 8, 9]]
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView
from backstop.platform.params import BadInput, Range
from backstop.platform.threats.backdoor import Planted, backdoor
from backstop.platform.threats.parameters import SHARE, Share, Source, Target
from backstop.platform.threats.phrases import phrase_ids

VERSION = 2
KINDS = ("text",)
KNOWS = "own"
STRENGTH = "share"
TRIGGER = True


def phrase(
    *,
    target: Target = 0,
    words: Annotated[
        int | str | None,
        Range(1, 2**31 - 1),
        (
            "the phrase: words, or token ids where the dataset has no vocabulary, joined by - or "
            "spaces; none: the three rarest words"
        ),
    ] = None,
    place: Annotated[Literal["start", "end"], "where the phrase stands in a document"] = "start",
    share: Share = SHARE,
    source: Source = None,
) -> Attack[Planted[Tensor]]:
    """A phrase at one end of the document. The state holds its token ids. Raises BadInput for a
    word that is not in the vocabulary.
    """

    def init(view: AttackView) -> Tensor:
        tokens = _rarest(view) if words is None else phrase_ids("phrase", words, view)
        return torch.tensor(tokens)

    def stamp(tokens: Tensor, x: Tensor, _generator: torch.Generator) -> Tensor:
        length, added = x.shape[1], tokens.to(x.device).expand(len(x), -1)
        if place == "start":
            return torch.cat([added, x], 1)[:, :length]
        size = (x != 0).sum(1, keepdim=True)  # (b, 1)
        column = torch.arange(length + len(tokens), device=x.device)
        whole = torch.cat([x, torch.zeros_like(added)], 1).scatter(
            1, size + column[: len(tokens)], added
        )
        return whole.gather(1, (size + len(tokens) - length).clamp_min(0) + column[:length])

    return backdoor("phrase", stamp, target=target, source=source, share=share, init=init)


def _rarest(view: AttackView) -> list[int]:
    """The token ids of the three rarest words, of equals the largest ids."""
    own = view.data.x.flatten().cpu()
    words = set(view.vocabulary.values()) if view.vocabulary else set(own.tolist())
    known = sorted(words - {0}, reverse=True)
    if not known:
        raise BadInput(
            "attack phrase: words=none, but there is neither a vocabulary nor a document of a "
            "malicious client to take words from"
        )
    count = own.bincount(minlength=known[0] + 1).tolist()
    return sorted(known, key=lambda token: count[token])[:3]
