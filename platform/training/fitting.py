"""Whether a module that somebody brings fits the data, looked at before anything is trained."""

from __future__ import annotations

import pickle

import numpy as np
import torch
from torch import Tensor, nn

from backstop.platform.contract import Data
from backstop.platform.params import BadInput
from backstop.platform.training.constants import freeze
from backstop.platform.training.dropout import name_dropout
from backstop.platform.training.network import to_unit_interval

TRIED = 2  # inputs


def fit(
    module: nn.Module,
    data: Data,
    name: str,
) -> nn.Module:
    """The module with masks of dropout that have a name, as all draws have, and with its frozen
    parameters as constants. Raises BadInput where it does not take the data's inputs, does not give
    their logits, or draws from a generator of nobody.
    """
    where = f"model {name}"
    module = name_dropout(_with_constants(module, where))
    x = to_unit_interval(data.train.x[:TRIED].cpu())
    logits = _tried(module.eval(), x, where)
    _check_logits(logits, len(x), data.classes, where)
    _check_head(module, data.classes, where)
    _check_draws(module, x, where)
    return module.train()


def _with_constants(module: nn.Module, where: str) -> nn.Module:
    """The module with its frozen parameters as constants. Raises BadInput where all are frozen."""
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise BadInput(
            f"{where}: all of its parameters are frozen (requires_grad=False), so there is nothing"
            " to train"
        )
    return freeze(module)


def _tried(
    module: nn.Module,
    x: Tensor,
    where: str,
) -> Tensor:
    """What the module gives for some inputs."""
    shape = ", ".join(map(str, x.shape[1:]))
    kind = str(x.dtype).removeprefix("torch.")
    try:
        with torch.no_grad():
            given: Tensor = module(x)
    except Exception as error:
        raise BadInput(
            f"{where} does not take batches of these inputs, {kind} (batch, {shape}):"
            f" {type(error).__name__}: {error}"
        ) from error
    return given


def _check_logits(
    logits: object,
    batch: int,
    classes: int,
    where: str,
) -> None:
    expected = f"a logit for each class, (batch, {classes})"
    if not isinstance(logits, Tensor):
        raise BadInput(f"{where} gives {type(logits).__name__}; it has to give {expected}")
    if logits.shape != (batch, classes) or not logits.is_floating_point():
        shape = ", ".join(map(str, logits.shape[1:]))
        raise BadInput(f"{where} gives (batch, {shape}); it has to give {expected}")


def _check_head(
    module: nn.Module,
    classes: int,
    where: str,
) -> None:
    """The last linear layer gives the logits: defenses look at it."""
    linear = [(name, part) for name, part in module.named_modules() if type(part) is nn.Linear]
    if not linear:
        raise BadInput(
            f"{where} has no torch.nn.Linear; defenses look at the last one, which gives the logits"
        )
    name, last = linear[-1]
    if last.out_features != classes:
        raise BadInput(
            f"{where}: the last linear layer that it defines, {name or 'itself'}, gives"
            f" {last.out_features} values and not the {classes} logits; defenses look at that one,"
            " so define the layer of the logits last"
        )


def _check_draws(
    module: nn.Module,
    x: Tensor,
    where: str,
) -> None:
    """Nothing may draw from the global generators while it trains: a run would not be repeated."""
    before = torch.get_rng_state()
    numbers = _numpy_state()
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        with torch.no_grad():
            module.train()(torch.cat([x, x]))
    except Exception as error:
        raise BadInput(f"{where} cannot train: {type(error).__name__}: {error}") from error
    for name, buffer in module.named_buffers():
        buffer.copy_(buffers[name])
    drew = not torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(before)
    if drew or numbers != _numpy_state():
        raise BadInput(
            f"{where} draws from the global random generator while it trains, so no run could be"
            " repeated; torch.nn.Dropout is drawn by name, other random layers are not possible"
        )


def _numpy_state() -> bytes:
    return pickle.dumps(np.random.get_state())  # noqa: NPY002 -- only looked at
