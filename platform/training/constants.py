"""Frozen parameters as constants: neither trained nor sent."""

from __future__ import annotations

from torch import nn


def freeze(module: nn.Module) -> nn.Module:
    """The module with each parameter that asks for no gradient as a buffer that is no part of its
    state. The module itself is changed.
    """
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(part, name)
                part.register_buffer(name, parameter.detach(), persistent=False)
    return module


def constant_matrices(module: nn.Module) -> bool:
    """Whether it has constants of two axes or more: a frozen layer, a table of vectors."""
    kept = module.state_dict()
    return any(
        buffer.is_floating_point() and buffer.dim() > 1 and name not in kept
        for name, buffer in module.named_buffers()
    )
