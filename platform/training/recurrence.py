"""The recurrence of an LSTM layer over documents of different lengths, without padding.

All words stand in one matrix: the first words of all documents, then the second words of those that
have one, and so on, documents in the order of their lengths, longest first. The words at place t
are then those of the first counts[t] documents.

(i, f, g, o) = z_t + U h_{t-1},  c_t = σ(f) c_{t-1} + σ(i) tanh(g),  h_t = σ(o) tanh(c_t).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backstop.platform.training.precision import float32


def hidden_states(
    inputs: Tensor,
    u: Tensor,
    counts: list[int],
) -> Tensor:
    """Inputs z of all words (n, 4h) and U (4h, h) → hidden states (n, h), in U's precision."""
    with float32(u.device):  # a cell adds up over a document
        states: Tensor = _Recurrence.apply(inputs.to(u.dtype), u, counts)
    return states


def recorded_states(
    inputs: Tensor,
    u: Tensor,
    counts: list[int],
) -> Tensor:
    """The same by operations that autograd can differentiate again and again."""
    states: list[Tensor] = []
    state = cell = inputs.new_zeros(counts[0], u.shape[1])
    for z in inputs.split(counts):
        state = state[: len(z)]
        cell = cell[: len(z)]
        i, f, g, o = torch.addmm(z, state, u.t()).chunk(4, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        states.append(state)
    return torch.cat(states)


class _Recurrence(torch.autograd.Function):
    """Autograd's own record of these steps costs more than the steps where the layer is small, and
    a product for the gradient of U at each of them where it is large.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        u: Tensor,
        counts: list[int],
    ) -> Tensor:
        hidden = u.shape[1]
        ut = u.t()
        gates = inputs.clone()
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
            state = new_state
            cell = new_cell
        ctx.save_for_backward(inputs, u, gates, states, cells)
        ctx.counts = counts
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        inputs, u, gates, states, cells = ctx.saved_tensors
        counts: list[int] = ctx.counts
        if torch.is_grad_enabled():  # somebody differentiates the gradient: autograd knows how to
            again = recorded_states(inputs, u, counts)
            d_inputs, d_u = torch.autograd.grad(again, (inputs, u), grad, create_graph=True)
            return d_inputs, d_u, None
        first = counts[0]
        before = _before(counts, u.device)
        slopes, through = _slopes(gates, cells, before)
        d_inputs = _backward_steps(grad, slopes, through, gates, u, counts)
        return d_inputs, d_inputs[first:].t() @ states[before], None


def _before(counts: list[int], device: torch.device) -> Tensor:
    """For all words but the first ones the row of the word before it in its document."""
    earlier = torch.tensor(counts[:-1], dtype=torch.int64)
    later = torch.tensor(counts[1:], dtype=torch.int64)
    back = earlier.repeat_interleave(later).to(device)
    return torch.arange(counts[0], sum(counts), device=device) - back


def _slopes(
    gates: Tensor,
    cells: Tensor,
    before: Tensor,
) -> tuple[Tensor, Tensor]:
    """(n, 4h): ∂c/∂ the inputs of i, f and g, ∂h/∂ that of o; and ∂h/∂c (n, h)."""
    hidden = cells.shape[1]
    first = len(cells) - len(before)
    i, _, g, o = gates.split(hidden, 1)
    bent = cells.tanh()
    slopes = gates - gates * gates
    of_i, of_f, of_g, of_o = slopes.split(hidden, 1)  # views
    of_i *= g
    of_f[:first] = 0
    of_f[first:] *= cells[before]
    of_g.copy_(i * (1 - g * g))
    of_o *= bent
    return slopes, o * (1 - bent * bent)


def _backward_steps(
    grad: Tensor,
    slopes: Tensor,
    through: Tensor,
    gates: Tensor,
    u: Tensor,
    counts: list[int],
) -> Tensor:
    """The gradient of the inputs (n, 4h), in place of the slopes."""
    hidden = u.shape[1]
    d_inputs = slopes
    d_ifg = d_inputs.view(len(gates), 4, hidden)[:, :3]
    d_o = d_inputs[:, 3 * hidden :]
    d_states = grad.clone(memory_format=torch.contiguous_format)
    d_cells = torch.zeros_like(through)
    forget = gates[:, hidden : 2 * hidden]
    pieces = d_states, d_cells, through, forget, d_inputs, d_ifg, d_o
    steps = list(zip(*(piece.split(counts) for piece in pieces), strict=True))
    for place in range(len(steps) - 1, -1, -1):
        d_state, d_cell, slope, f, d_z, d_three, d_last = steps[place]
        d_cell.addcmul_(d_state, slope)
        d_three.mul_(d_cell.unsqueeze(1))
        d_last.mul_(d_state)
        if place:
            earlier_state, earlier_cell, *_ = steps[place - 1]
            earlier_state[: len(d_z)].addmm_(d_z, u)
            torch.mul(d_cell, f, out=earlier_cell[: len(d_z)])
    return d_inputs
