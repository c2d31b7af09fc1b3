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

Deviations: no dropout. Token id t has row (t - 1) modulo ``words``, plus 1, so a
vocabulary of up to ``words`` ids has a row for each and words of a larger one share rows; row 0, of
padding, is zero and never read. A document without a word has the hidden state 0. The initial
values are those of ``torch.nn.Embedding``, ``torch.nn.LSTM`` and ``torch.nn.Linear``; a frozen
embedding is a constant, neither trained nor sent. The steps are computed here, not by
``torch.nn.LSTM``, which only holds the parameters: all words of a batch, without padding, share one
product for the inputs and one for the gradient of U. On a CPU a step of the default network takes
0.6 of the time that the library's packed layers take (``benchmarks/lstm.py``); on a GPU the
library's would be faster.

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

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backstop.platform.contract import Model
from backstop.platform.params import Range

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
        counts = [count for count in there.sum(1).tolist() if count]
        part = self.lstm
        if not counts:  # no word at all
            blank: Tensor = self.output(self.output.weight.new_zeros(len(x), part.hidden_size))
            return blank
        ids = x[order].t()[there]  # (n,) all first words, then all second words, …
        states = F.embedding(
            (ids - 1) % (len(self.embedding.weight) - 1) + 1, self.embedding.weight
        )
        for layer in range(part.num_layers):
            w, u, b, c = (
                getattr(part, f"{name}_l{layer}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            states = _steps(torch.addmm(b + c, states, w.t()), u, counts)
        filled = counts[0]  # documents with a word
        starts = there.sum(1).cumsum(0) - there.sum(1)  # of each place, in ids
        last = states[starts[length[:filled] - 1] + torch.arange(filled, device=x.device)]
        ends = last.new_zeros(len(x), part.hidden_size).index_copy(0, order[:filled], last)
        scores: Tensor = self.output(ends)
        return scores


class _Constant(nn.Module):
    """A table of embeddings that moves with the model and is no part of it."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)


class _Steps(torch.autograd.Function):
    """The recurrence of one layer: inputs W x + b of all words (n, 4h), U (4h, h) and the words at
    each place → hidden states (n, h).

    Autograd's own record of these steps costs more than the steps where the layer is small, and a
    product for the gradient of U at each of them where it is large.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        u: Tensor,
        counts: list[int],
    ) -> Tensor:
        gates, hidden, ut = inputs.clone(), u.shape[1], u.t()
        states, cells = gates.new_empty(2, len(gates), hidden).unbind()
        # cut at once: slices cost as much as small products
        pieces = gates, gates[:, : 2 * hidden], *gates.split(hidden, 1), states, cells
        state = cell = states[:0]
        for z, both, i, f, g, o, new_state, new_cell in zip(
            *(piece.split(counts) for piece in pieces), strict=True
        ):
            if len(state):
                z.addmm_(state[: len(z)], ut)
            both.sigmoid_()
            o.sigmoid_()
            torch.mul(i, g.tanh_(), out=new_cell)
            if len(cell):  # not at the first words
                new_cell.addcmul_(f, cell[: len(z)])
            torch.tanh(new_cell, out=new_state).mul_(o)
            state, cell = new_state, new_cell
        ctx.save_for_backward(inputs, u, gates, states, cells)
        ctx.counts = counts
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        inputs, u, gates, states, cells = ctx.saved_tensors
        counts: list[int] = ctx.counts
        if torch.is_grad_enabled():  # somebody differentiates the gradient: autograd knows how to
            d_inputs, d_u = torch.autograd.grad(
                _recorded(inputs, u, counts), (inputs, u), grad, create_graph=True
            )
            return d_inputs, d_u, None
        first, hidden = counts[0], u.shape[1]
        earlier = torch.tensor(counts[:-1], dtype=torch.int64)
        later = torch.tensor(counts[1:], dtype=torch.int64)
        back = earlier.repeat_interleave(later).to(u.device)
        # rows of the states before those of the second words and later
        before = torch.arange(first, len(states), device=u.device) - back
        i, f, g, o = gates.split(hidden, 1)
        bent = cells.tanh()
        through = o * (1 - bent * bent)  # ∂h/∂c
        slopes = gates - gates * gates  # (n, 4h): ∂c/∂ the inputs of i, f and g, ∂h/∂ that of o
        slopes[:, :hidden] *= g
        slopes[:first, hidden : 2 * hidden] = 0
        slopes[first:, hidden : 2 * hidden] *= cells[before]
        slopes[:, 2 * hidden : 3 * hidden] = i * (1 - g * g)
        slopes[:, 3 * hidden :] *= bent
        d_states = grad.clone(memory_format=torch.contiguous_format)
        d_cells = torch.zeros_like(cells)
        d_inputs = slopes  # in place
        d_ifg = d_inputs.view(len(gates), 4, hidden)[:, :3]
        pieces = d_states, d_cells, through, f, d_inputs, d_ifg, d_inputs[:, 3 * hidden :]
        steps = list(zip(*(piece.split(counts) for piece in pieces), strict=True))
        for step in range(len(steps) - 1, -1, -1):
            d_state, d_cell, slope, forget, d_z, d_three, d_o = steps[step]
            d_cell.addcmul_(d_state, slope)
            d_three.mul_(d_cell.unsqueeze(1))
            d_o.mul_(d_state)
            if step:
                earlier_state, earlier_cell, *_ = steps[step - 1]
                earlier_state[: len(d_z)].addmm_(d_z, u)
                torch.mul(d_cell, forget, out=earlier_cell[: len(d_z)])
        return d_inputs, d_inputs[first:].t() @ states[before], None


def _steps(
    inputs: Tensor,
    u: Tensor,
    counts: list[int],
) -> Tensor:
    states: Tensor = _Steps.apply(inputs, u, counts)
    return states


def _recorded(
    inputs: Tensor,
    u: Tensor,
    counts: list[int],
) -> Tensor:
    """What ``_Steps`` computes, by operations that autograd can differentiate again and again."""
    states: list[Tensor] = []
    state = cell = inputs.new_zeros(counts[0], u.shape[1])
    for z in inputs.split(counts):
        state, cell = state[: len(z)], cell[: len(z)]
        i, f, g, o = torch.addmm(z, state, u.t()).chunk(4, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        states.append(state)
    return torch.cat(states)
