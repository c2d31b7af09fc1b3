"""A module of torch as people have it, a class or a function that makes one, as a model.

What it is called with: its own parameters where they have defaults that a spec can hold, and what
only the data can say, by the names that modules usually have for it (:data:`FILLED`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_type_hints

from backstop.platform.params import BadInput, Parameter, declare

# parameter → what the data say, of the shape of one input and the number of classes
FILLED: Mapping[str, Callable[[tuple[int, ...], int], Any]] = {
    "shape": lambda shape, _: shape,
    "classes": lambda _, classes: classes,
    "num_classes": lambda _, classes: classes,
    "in_channels": lambda shape, _: shape[0],
    "in_features": lambda shape, _: math.prod(shape),
}
STARS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
PLAIN = (bool, int, float, str)


Maker = Callable[[tuple[int, ...], int], Any]  # a model, as the contract has it


class OwnModel(NamedTuple):
    """A factory of models, with its declared parameters."""

    factory: Callable[..., Maker]
    parameters: Mapping[str, Parameter]


def read_model(make: Callable[..., Any], name: str) -> OwnModel:
    """A class or a function as a model. Raises BadInput where it needs what nobody knows."""
    where = f"model {name}"
    taken = {
        parameter.name: parameter
        for parameter in inspect.signature(make).parameters.values()
        if parameter.kind not in STARS
    }
    filled = [item for item in FILLED if item in taken]
    lacking = [
        item.name
        for item in taken.values()
        if item.default is item.empty and item.name not in FILLED
    ]
    if lacking or any(item.kind is item.POSITIONAL_ONLY for item in taken.values()):
        raise BadInput(
            f"{where} needs {' and '.join(lacking) or 'arguments without names'}; give each a"
            f" default, or take what the data say: {', '.join(FILLED)}"
        )
    declared = _declared(make, [item for item in taken.values() if item.name not in FILLED])

    def factory(**params: Any) -> Maker:
        def build(shape: tuple[int, ...], classes: int) -> Any:
            known = {item: FILLED[item](shape, classes) for item in filled}
            return _made(lambda: make(**known, **params), where, shape)

        return build

    return OwnModel(factory, declared)


def _declared(
    make: Callable[..., Any],
    taken: list[inspect.Parameter],
) -> dict[str, Parameter]:
    """The parameters that a spec can hold; others keep their defaults."""
    of = make.__init__ if inspect.isclass(make) else make
    hints = get_type_hints(of, include_extras=True)
    declared = {}
    for item in taken:
        hint = hints.get(item.name)
        if hint is None and type(item.default) in PLAIN:
            hint = type(item.default)
        try:
            declared[item.name] = declare(item.name, hint, item.default)
        except TypeError:
            continue
    return declared


def _made(
    make: Callable[[], Any],
    where: str,
    shape: tuple[int, ...],
) -> Any:
    """The module. Raises BadInput where it cannot be trained by federated averaging."""
    from torch import nn
    from torch.nn.parameter import is_lazy

    given = f"inputs are {shape}"
    try:
        module = make()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{where} raised {type(error).__name__}: {error}; {given}") from error
    if not isinstance(module, nn.Module):
        raise BadInput(f"{where} makes {type(module).__name__}, which is no torch.nn.Module")
    tensors = [*module.parameters(), *module.buffers()]
    if any(map(is_lazy, tensors)):
        raise BadInput(
            f"{where} has lazy modules, whose sizes nobody knows before the first batch;"
            f" give them sizes ({given}; a parameter named shape is told so)"
        )
    if not list(module.parameters()):
        raise BadInput(f"{where} has no parameters, so there is nothing to train")
    return module
