"""The precision of a model's arithmetic, and whether the machine has instructions for it.

In bfloat16 a model's products and convolutions take and give bfloat16, forward and backward;
parameters, gradients, normalizations and losses stay float32 (``torch.autocast``).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch

from backstop.platform.specs.spec import Precision


def arithmetic(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Models called within compute at this precision. Nothing is kept from one to the next."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def float32(device: torch.device) -> AbstractContextManager[object]:
    """What is computed within stays float32 in a model of either precision."""
    return torch.autocast(device.type, enabled=False)


def emulation_note(precisions: Iterable[Precision], device: torch.device) -> str:
    """What to say where the device has no bfloat16 instructions; empty where all is well."""
    if "bfloat16" not in precisions or _has_bfloat16(device):
        return ""
    return (
        f"precision=bfloat16: this {'GPU' if device.type == 'cuda' else 'CPU'} has no bfloat16"
        " instructions, so they are emulated: slower than float32, with results of the same kind"
    )


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    names = "avx512_bf16", "amx_bf16", "bf16"  # the last one is ARM's
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in names)
