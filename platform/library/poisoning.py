"""Training data as a malicious client poisons them, in the form in which they are given.

x, y = poisoned_data((x, y), "badnets(share=0.3)")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from backstop.platform import seeds
from backstop.platform.contract import Samples
from backstop.platform.library.attackers import AttackerData
from backstop.platform.library.client_stages import (
    attack_stage,
    common_kinds,
    read_client_stages,
)
from backstop.platform.library.inputs import (
    Channels,
    check_channels,
    input_kind,
    read_array,
    read_inputs,
    written,
)
from backstop.platform.params import BadInput, check
from backstop.platform.specs.part import Part
from backstop.platform.specs.spec import scalar_fields
from backstop.platform.training.attack_chain import attack_chain, find_trigger_stage
from backstop.platform.training.network import to_unit_interval

_WHERE = "poisoned"


def poisoned_data(
    data: Any,
    stages: str | Part | Sequence[Part | str],
    *,
    index: int = 0,
    seed: int = 0,
    classes: int | None = None,
    channels: Channels = "first",
    known: tuple[Any, Any] | None = None,
    vocabulary: Mapping[str, int] | None = None,
) -> Any:
    """A client's training data, poisoned by the stages of an attack from left to right.

    ``data`` are samples (x, y) of NumPy or of torch, and come back as such, or a torch ``Dataset``
    of pairs (x, y), of which a ``TensorDataset`` is made. Inputs are as :func:`backstop.trigger`
    takes them: images in [0, 1] or uint8, before they are normalized. An attack's share is one of
    these samples, drawn at random.

    ``index`` counts the malicious clients from 0: ``dba`` gives each another part of the trigger.
    ``seed`` names what is drawn; the trigger is that of ``backstop.trigger`` with the same seed.
    ``classes`` is their number, for an attack with ``target=next``. ``known`` are samples (x, y)
    that all malicious clients have, for attacks that make their trigger of such (``feature_value``,
    ``phrase``) or choose inputs among them (``edge_case``, ``semantic``); ``vocabulary`` has the
    token id of each word.

    Raises :class:`BadInput` for a stage that poisons no data, or that works in local training.
    """
    chain = read_client_stages(stages, _WHERE)
    for part in chain.crafting:
        if part not in chain.poisoning:
            raise BadInput(
                f"{_WHERE}: attack {part.name} changes what a client sends, and no data;"
                " leave it out here"
            )
    plan = read_poison(chain.poisoning, seed, classes, channels, known, vocabulary)
    return plan.of(data, index)


class DataPoison(NamedTuple):
    """How malicious clients poison their data."""

    parts: tuple[Part, ...]
    knowledge: AttackerData
    channels: Channels

    def of(self, data: Any, index: int) -> Any:
        """The data of malicious client ``index``, poisoned, in their form."""
        if isinstance(data, Dataset):
            return TensorDataset(*self._poisoned(_stacked(data), index))
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise BadInput(
                f"{_WHERE}: data is {type(data).__name__}; give (x, y), inputs and labels, or a"
                " torch Dataset of such pairs"
            )
        return self._poisoned((data[0], data[1]), index)

    def _poisoned(self, given: tuple[Any, Any], index: int) -> tuple[Any, Any]:
        x, y = _read(given, self.parts, self.channels, _WHERE)
        draws = seeds.generator(self.knowledge.seed, "poisoned", index)
        order = torch.randperm(len(x), generator=draws).to(x.device)
        mixed = Samples(to_unit_interval(x[order]), y[order])
        with torch.no_grad():
            changed = self._attacked(mixed, index, draws)
        inputs = torch.empty_like(changed.x).index_copy(0, order, changed.x)
        labels = torch.empty_like(y).index_copy(0, order, changed.y)
        return written(inputs, x, given[0], self.channels), _written_labels(labels, given[1])

    def _attacked(self, mixed: Samples, index: int, draws: torch.Generator) -> Samples:
        """One large batch as the attack wants it trained on."""
        stages = [attack_stage(part) for part in self.parts]
        names = [part.name for part in self.parts]
        attack = attack_chain(stages, ["own"] * len(stages), names)
        kinds = common_kinds(self.parts)
        kind = input_kind(kinds, mixed.x.ndim, mixed.x.is_floating_point())
        chooser = self.parts[find_trigger_stage(stages)]
        view = self.knowledge.view(mixed.x, kind, chooser, "known=(x, y), samples of the attacker")
        state = attack.init(view) if attack.init else None
        assert attack.poison is not None
        return Samples(*attack.poison(state, *mixed, index, draws))


def read_poison(
    parts: tuple[Part, ...],
    seed: int,
    classes: int | None,
    channels: Channels,
    known: tuple[Any, Any] | None,
    vocabulary: Mapping[str, int] | None,
) -> DataPoison:
    """How stages poison data, as :func:`poisoned_data` is told. Raises BadInput."""
    check_channels(channels, _WHERE)
    check(scalar_fields()["seed"], seed, _WHERE)
    if classes is not None and (type(classes) is not int or classes < 2):
        raise BadInput(f"{_WHERE}: classes={classes!r} is not allowed; it is a number from 2 on")
    for part in parts:
        if part.params.get("target") == "next" and classes is None:
            raise BadInput(
                f"{_WHERE}: attack {part.name}: target=next needs classes=, their number"
            )
    samples = None
    if known is not None:
        x, y = _read(known, parts, channels, f"{_WHERE}: known")
        samples = Samples(to_unit_interval(x), y)
    return DataPoison(parts, AttackerData(seed, samples, vocabulary, classes), channels)


def _read(
    given: Any,
    parts: Sequence[Part],
    channels: Channels,
    where: str,
) -> Samples:
    """Samples as the attack takes them; uint8 stays."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise BadInput(f"{where} is {type(given).__name__}; give (x, y), inputs and labels")
    x = read_inputs(given[0], common_kinds(parts), where, channels)
    y = read_array(given[1], f"{where}: y")
    if y.ndim != 1 or len(y) != len(x) or y.is_floating_point():
        raise BadInput(
            f"{where}: y has shape {tuple(y.shape)} of {y.dtype} for {len(x)} inputs; it holds a"
            " label for each, a whole number"
        )
    return Samples(x, y.long())


def _written_labels(labels: Tensor, given: Any) -> Any:
    if isinstance(given, Tensor):
        return labels.to(given.dtype)
    return labels.numpy().astype(given.dtype)


def _stacked(data: Any) -> tuple[Tensor, Tensor]:
    """The items of a data set as two tensors."""
    pairs = [_pair(data[position], position) for position in range(len(data))]
    if not pairs:
        raise BadInput(f"{_WHERE}: the data set is empty")
    shapes = sorted({tuple(x.shape) for x, _ in pairs})
    if len(shapes) > 1:
        raise BadInput(
            f"{_WHERE}: the data set has inputs of shapes {shapes[0]} and {shapes[1]}; give one"
        )
    return torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])


def _pair(item: Any, position: int) -> tuple[Tensor, int]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise BadInput(
            f"{_WHERE}: item {position} of the data set is {type(item).__name__}; items are (x, y)"
        )
    x, y = item
    if not isinstance(x, Tensor | np.ndarray):
        raise BadInput(
            f"{_WHERE}: item {position} of the data set holds {type(x).__name__}; x is an array,"
            " pictures have to be made tensors first"
        )
    return torch.as_tensor(x), int(y)
