"""Bag of words: the mean of the embeddings of a document's words, and a linear layer.

f(x) = W (1/n Σ_{i ≤ n} E[x_i]) + b  over the n tokens that are not padding.

Shapes: (N, L) int64 token ids, 0 is padding → (N, classes); words · dim + classes · (dim + 1)
parameters.

Source: A. Joulin, E. Grave, P. Bojanowski, T. Mikolov, "Bag of Tricks for Efficient Text
Classification", EACL 2017, section 2; there too the representation of words is looked up by
hashing.

Deviations: single words only, no n-grams, and an ordinary softmax. Token id t has row t modulo
``words``, so that the model does not depend on the dataset's vocabulary: words of a larger one
share rows. A document without a word has the mean 0. The embeddings start uniformly within
±1 / dim, as those of the authors' fastText; the linear layer starts as ``torch.nn.Linear`` does.

Example:
>>> import torch
>>> net = bag_of_words(dim=8)((4,), 2)
>>> one, other = net(torch.tensor([[5, 7, 0, 0], [7, 5, 0, 0]]))
>>> torch.equal(one, other), [name for name, _ in net.named_parameters()]
(True, ['embedding.weight', 'output.weight', 'output.bias'])
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from backstop.platform.contract import Model
from backstop.platform.params import Range

VERSION = 1
KINDS = ("text",)


def bag_of_words(
    *,
    words: Annotated[
        int, Range(1, 10**7), "rows of the embedding; token ids are taken modulo this"
    ] = 1000,
    dim: Annotated[int, Range(1, 10**4, log=True, search=(8, 256)), "numbers in an embedding"] = 16,
) -> Model:
    """Mean of embeddings and a linear layer."""
    return lambda shape, classes: _BagOfWords(words, dim, classes)


class _BagOfWords(nn.Module):
    def __init__(
        self,
        words: int,
        dim: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dim)
        nn.init.uniform_(self.embedding.weight, -1 / dim, 1 / dim)
        self.output = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        there = (x != 0).unsqueeze(-1)
        total = (self.embedding(x % self.embedding.num_embeddings) * there).sum(-2)
        mean = total / there.sum(-2).clamp_min(1)
        scores: Tensor = self.output(mean)
        return scores
