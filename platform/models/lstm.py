"""Long short-term memory: embedded words one after another, the last hidden state, and a linear
layer.

(i, f, g, o) = W x_t + U h_{t-1} + b + b',  c_t = σ(f) c_{t-1} + σ(i) tanh(g),  h_t = σ(o)
tanh(c_t),  h_0 = c_0 = 0; the h_t of one layer are the x_t of the next, and f(x) = V h_n + a with
the last layer's state after the n words of the document.

Shapes: (N, L) int64 token ids, 0 is padding → (N, classes); (words + 1) · dim of the embedding
where it is learned, 4 · hidden · (inputs + hidden + 2) of each layer, with dim inputs of the first
and hidden of the others, and classes · (hidden + 1).

Source: S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997; the
forget gate: F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to Forget: Continual Prediction with
LSTM", Neural Computation 12(10), 2000. Two layers of 200 units on 300-dimensional word vectors are
the network for Twitter data of X. Wang, D. Dimitriadis, S. Koyejo, S. Tople, "Invariant Aggregator
for Defending against Federated Backdoor Attacks", AISTATS 2024.

Deviations: no dropout. Token id t has row (t - 1) modulo ``words``, plus 1, so a vocabulary of up
to ``words`` ids has a row for each and words of a larger one share rows; row 0, of padding, is zero
and never read. A document without a word has the hidden state 0. The initial values are those of
``torch.nn.Embedding``, ``torch.nn.LSTM`` and ``torch.nn.Linear``; a frozen embedding is a constant,
neither trained nor sent. The steps are computed here, not by ``torch.nn.LSTM``, which only holds
the parameters: all words of a batch, without padding, share one product for the inputs and one for
the gradient of U. On a CPU a step of the default network takes 0.6 of the time that the library's
packed layers take (``benchmarks/lstm.py``); on a GPU the library's would be faster.

Example: 11 · 8 numbers of the embedding, 4 · 6 · (8 + 6 + 2) and 4 · 6 · (6 + 6 + 2) of the layers,
2 · (6 + 1) of the last one.
>>> import torch
>>> net = lstm(words=10, dim=8, hidden=6)((4,), 2)
>>> sum(parameter.numel() for parameter in net.parameters()), 11 * 8 + 24 * 16 + 24 * 14 + 2 * 7
(822, 822)
>>> net(torch.tensor([[5, 7, 0, 0], [7, 5, 9, 2]])).shape
torch.Size([2, 2])
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backstop.platform.contract import Model
from backstop.platform.params import Range
from backstop.platform.training.recurrence import hidden_states

VERSION = 1
KINDS = ("text",)


def lstm(
    *,
    words: Annotated[
        int,
        Range(1, 10**7),
        "words with a row of the embedding of their own; larger token ids share rows",
    ] = 10000,
    dim: Annotated[
        int, Range(1, 10**4, log=True, search=(8, 300)), "numbers in an embedding"
    ] = 300,
    hidden: Annotated[int, Range(1, 10**4, log=True, search=(16, 256)), "units of a layer"] = 200,
    layers: Annotated[int, Range(1, 16, search=(1, 2)), "recurrent layers"] = 2,
    embedding: Annotated[
        Literal["learned", "frozen"], "frozen: a constant, neither trained nor sent"
    ] = "learned",
) -> Model:
    """LSTM layers over the embedded words, and a linear layer on the last state."""
    return lambda shape, classes: _LSTM(
        words, dim, hidden, layers, classes, frozen=embedding == "frozen"
    )


class _LSTM(nn.Module):
    def __init__(
        self,
        words: int,
        dim: int,
        hidden: int,
        layers: int,
        classes: int,
        *,
        frozen: bool,
    ) -> None:
        super().__init__()
        table = nn.Embedding(words + 1, dim, padding_idx=0)
        self.embedding = _Constant(table.weight.detach()) if frozen else table
        self.lstm = nn.LSTM(dim, hidden, layers)
        self.output = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Documents in the order of their lengths, longest first: the words at place t are those of
        the first counts[t] documents.
        """
        length, order = (x != 0).sum(1).sort(descending=True, stable=True)
        there = length > torch.arange(x.shape[1], device=x.device)[:, None]  # (L, N)
        per_place = there.sum(1)
        counts = [count for count in per_place.tolist() if count]
        ends = self.output.weight.new_zeros(len(x), self.lstm.hidden_size)
        if counts:
            ids = x[order].t()[there]  # (n,) all first words, then all second words, …
            states = self._states(ids, counts)
            filled = counts[0]  # documents with a word
            starts = per_place.cumsum(0) - per_place  # of each place, in ids
            last = starts[length[:filled] - 1] + torch.arange(filled, device=x.device)
            ends = ends.index_copy(0, order[:filled], states[last])
        scores: Tensor = self.output(ends)
        return scores

    def _states(self, ids: Tensor, counts: list[int]) -> Tensor:
        """The last layer's hidden states (n, h)."""
        states = self._embedded(ids)
        for layer in range(self.lstm.num_layers):
            w, u, bias = self._layer(layer)
            inputs = torch.addmm(bias, states, w.t())
            states = hidden_states(inputs, u, counts)
        return states

    def _embedded(self, ids: Tensor) -> Tensor:
        table = self.embedding.weight
        row = (ids - 1) % (len(table) - 1) + 1
        return F.embedding(row, table)

    def _layer(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """W (4h, inputs), U (4h, h) and b + b' (4h,)."""
        w = getattr(self.lstm, f"weight_ih_l{index}")
        u = getattr(self.lstm, f"weight_hh_l{index}")
        b = getattr(self.lstm, f"bias_ih_l{index}")
        c = getattr(self.lstm, f"bias_hh_l{index}")
        return w, u, b + c


class _Constant(nn.Module):
    """A table of embeddings that moves with the model and is no part of it."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
