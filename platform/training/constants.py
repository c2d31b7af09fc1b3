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


def constants(module: nn.Module) -> int:
    """How many numbers of the module are constants: in floating-point buffers that are no part of
    its state.
    """
    kept = module.state_dict()
    return sum(
        buffer.numel()
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point() and name not in kept
    )
