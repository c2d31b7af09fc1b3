"""Dropout whose mask is a pure function of a key.

It is the same in the loop and under vmap, in any process and on any device.

y_i = x_i · [u_i ≥ p] / (1 - p),  u_i uniform on [0, 1) from the key, the layer's number and the
position i; y = x in evaluation mode.

N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: A Simple Way to
Prevent Neural Networks from Overfitting", JMLR 15, 2014, in its inverted form. The draws are
SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast Splittable Pseudorandom Number Generators",
OOPSLA 2014, figure 16) used as a hash of a counter, since a generator has a state, which vmap over
clients refuses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BITS = 53  # of a draw


class Dropout(nn.Module):
    """A layer whose ``key`` () int64 local training sets before each step.

    The key is a number named by (seed, round, client, step).
    """

    key: Tensor

    def __init__(self, share: float, layer: int) -> None:
        """``share`` p of the values is dropped; layers of one model have different numbers."""
        super().__init__()
        self.share, self.layer = share, layer
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The values (b, …) with some of them dropped.

        The mask of a sample does not depend on how many samples follow it.
        """
        if not self.training:
            return x
        return x * self._kept(x.shape, self.key) / (1 - self.share)

    def factors(self, shape: torch.Size, keys: Tensor) -> Tensor:
        """What the values (k, *shape) of k clients with these keys (k,) are multiplied by: 0 or
        1 / (1 - p).
        """
        each = keys.view(-1, *(1 for _ in shape))
        return self._kept(shape, each) / (1 - self.share)

    def _kept(self, shape: torch.Size, key: Tensor) -> Tensor:
        """Which values of a shape are kept."""
        position = torch.arange(shape.numel(), device=key.device).view(shape) * 2 + 1
        drawn = _draw(_draw(_draw(key) + self.layer) + position)
        return drawn >= int(self.share * 2**BITS)


def name_dropout(module: nn.Module) -> nn.Module:
    """The module with each layer of torch's dropout replaced by one that draws from a key. The
    module itself is changed.
    """
    layers = [name for name, part in module.named_modules() if type(part) is nn.Dropout]
    for number, name in enumerate(layers):
        part = module.get_submodule(name)
        assert isinstance(part, nn.Dropout)
        if part.p and name:
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, Dropout(part.p, number))
    return module


def _draw(counter: Tensor) -> Tensor:
    """A number in [0, 2**53) for each counter (int64; products wrap around as they should)."""
    z = counter * -7046029254386353131  # the golden ratio's 0x9E3779B97F4A7C15
    z = (z ^ _down(z, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    z = (z ^ _down(z, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return _down(z ^ _down(z, 31), 64 - BITS)


def _down(z: Tensor, bits: int) -> Tensor:
    """A logical shift: torch's fills up with the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
