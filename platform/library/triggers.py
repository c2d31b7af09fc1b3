"""A trigger as a library: a call that stamps inputs as an attack would.

import backstop

stamp = backstop.trigger("badnets(size=3)")
triggered = stamp(images)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from backstop.platform import plugins, seeds
from backstop.platform.contract import Attack, AttackView, Kind, RoundView, Samples
from backstop.platform.examples import attack_view_of
from backstop.platform.params import BadInput, check
from backstop.platform.specs.part import Part, complete_part, parse_part
from backstop.platform.specs.spec import MANY, scalar_fields
from backstop.platform.training.attack_chain import attack_chain
from backstop.platform.training.evaluate import stamped, to_bytes

Channels = Literal["first", "last"]
COLORS = (1, 3, 4)  # channels that images have
INPUT_SHAPES: Mapping[Kind, tuple[int, str]] = {  # axes, and how they are said
    "image": (4, "images are (n, channels, h, w), or (n, h, w, channels) with channels='last'"),
    "table": (2, "tables are (n, features)"),
    "text": (2, "documents are (n, length), token ids"),
}


def trigger(
    stage: str | Part,
    *,
    seed: int = 0,
    channels: Channels = "first",
    data: tuple[Any, Any] | None = None,
    vocabulary: Mapping[str, int] | None = None,
) -> InputTrigger:
    """The trigger of an attack stage, as a function of inputs.

    ``seed`` names what it draws: the same call gives the same bytes. ``channels`` says where images
    have their colors: (n, channels, h, w), or (n, h, w, channels) for ``"last"``. ``data`` are
    samples (x, y) of the attacker's own, of which ``feature_value`` takes features and values, and
    ``phrase`` rare words; ``vocabulary`` has the token id of each word.

    Raises :class:`BadInput` for a stage without a trigger, and for one whose trigger is learned
    while it attacks a federation.
    """
    if not isinstance(stage, str | Part):
        raise BadInput(
            f"trigger: {stage!r} is no stage; give one as text, badnets(size=3), or a backstop.Part"
        )
    part = parse_part(stage)
    complete_part(part, "attacks")  # BadInput for a parameter that is not allowed
    if channels not in get_args(Channels):
        raise BadInput(f"trigger: channels={channels!r} is not allowed; channels is first or last")
    check(scalar_fields()["seed"], seed, "trigger")
    reason = _without_stamp(part)
    if reason:
        raise BadInput(f"attack {part.name} {reason}; triggers to stamp: {', '.join(_ready())}")
    return InputTrigger(
        part,
        seed,
        channels,
        _samples(data) if data is not None else None,
        vocabulary,
    )


@dataclass(frozen=True)
class InputTrigger:
    """A trigger: called on inputs, it returns triggered ones and leaves the inputs as they are. It
    keeps nothing between calls, and can be pickled.

    Images are (n, channels, h, w), floats in [0, 1] or uint8; tables (n, features), floats;
    documents (n, length), token ids padded on the right with 0. All are arrays of NumPy or of
    torch, and what comes back is of the same kind, shape, dtype and device. A trigger is computed
    in float32; uint8 is rounded from what the attack makes of the image in [0, 1].
    """

    part: Part
    seed: int = 0
    channels: Channels = "first"
    data: Samples | None = None
    vocabulary: Mapping[str, int] | None = None

    def __repr__(self) -> str:
        """The stage and the seed of the call that makes it."""
        seed = f", seed={self.seed}" if self.seed else ""
        return f"backstop.trigger({str(self.part)!r}{seed})"

    def __call__(self, inputs: Any) -> Any:
        """The inputs under the trigger. Raises BadInput for inputs that the attack is not for."""
        x = _read(inputs, self.part, self.channels)
        attack = attack_chain([_stage(self.part)], ["own"], [self.part.name])
        state = attack.init(self._view(x)) if attack.init else None
        draws = seeds.generator(self.seed, "trigger")
        stamp = attack.trigger
        assert stamp is not None
        with torch.no_grad():
            triggered = stamped(x, lambda piece: stamp(state, piece, draws))
        return _written(triggered, x, inputs, self.channels)

    def _view(self, x: Tensor) -> AttackView:
        """What the attacker knows at its start: its own data, or that images have this shape."""
        kind = _kind(self.part, x.ndim, x.is_floating_point())
        nobody = Samples(x[:0], torch.zeros(0, dtype=torch.int64))
        data = nobody if self.data is None else self.data
        known = RoundView(
            round=0,
            params=torch.zeros(0),
            layout=(),
            model=_no_model,
            features=_no_model,
            head=(),
            classes=MANY if self.data is None else int(data.y.max()) + 1,
            generator=seeds.generator(self.seed, "attack", 0),
        )
        view = attack_view_of(
            known,
            kind,
            data,
            sizes=(len(data.y),),
            total=1,
            train=_no_model,
        )
        fields = {**vars(view), "vocabulary": self.vocabulary}
        if self.data is None and kind != "image":
            fields["samples"] = self._no_data
        return AttackView(**fields)

    def _no_data(self) -> Samples:
        declared = plugins.find("attacks", self.part.name).parameters
        hint = ", or the words themselves, words=…" if "words" in declared else ""
        raise BadInput(
            f"attack {self.part.name} makes its trigger of the attacker's data; give data=(x, y) to"
            f" backstop.trigger{hint}"
        )


def _stage(part: Part) -> Attack:
    stage: Attack = plugins.build("attacks", part.name, part.params)
    return stage


def _without_stamp(part: Part) -> str:
    """Why a stage has no trigger that can be stamped at once; empty where it has."""
    stage = _stage(part)
    if stage.test_set:
        return "stamps nothing: it chooses rare inputs and has them trained as another class"
    if stage.trigger is None:
        return "has no trigger"
    if stage.plan:
        return (
            "learns its trigger from the global model and the attackers' data while it attacks:"
            f" run it in a federation, backstop run --attack {part.name}"
        )
    return ""


def _ready() -> list[str]:
    """The attacks whose trigger can be stamped at once."""
    defining = [name for name in plugins.names("attacks") if plugins.attack_facts(name).trigger]
    return [name for name in defining if not _without_stamp(Part(name))]


def _kind(part: Part, axes: int, floating: bool) -> Kind:
    """The kind of the inputs: what the attack is for, else what they look like."""
    kinds = plugins.kinds("attacks", part.name)
    if len(kinds) == 1:
        return kinds[0]
    if axes == INPUT_SHAPES["image"][0]:
        return "image"
    return "table" if floating else "text"


def _read(inputs: Any, part: Part, channels: Channels) -> Tensor:
    """The inputs as the attack takes them, channels first. Raises BadInput where it cannot."""
    where = f"trigger {part.name}"
    x = _tensor(inputs, where)
    kind = _kind(part, x.ndim, x.is_floating_point())
    axes, words = INPUT_SHAPES[kind]
    if x.ndim != axes or not len(x):
        raise BadInput(f"{where}: inputs of shape {tuple(x.shape)}; {words}")
    if kind == "image":
        return _read_images(x, where, channels)
    if x.is_floating_point() != (kind == "table"):
        number = "floating-point numbers" if kind == "table" else "whole numbers"
        raise BadInput(f"{where}: inputs of {x.dtype}; {words}, {number}")
    return x.float() if kind == "table" else x.long()


def _read_images(x: Tensor, where: str, channels: Channels) -> Tensor:
    if channels == "last":
        x = x.permute(0, 3, 1, 2).contiguous()
    elif x.shape[1] not in COLORS and x.shape[3] in COLORS:
        raise BadInput(
            f"{where}: images of shape {tuple(x.shape)} seem to have their channels last; give"
            " channels='last' to backstop.trigger"
        )
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise BadInput(f"{where}: images of {x.dtype}; they are floats in [0, 1] or uint8")
    x = x.float()
    low, high = x.min().item(), x.max().item()
    if not (low >= 0 and high <= 1):
        raise BadInput(
            f"{where}: images with values from {low:g} to {high:g}; they are floats in [0, 1] or"
            " uint8: stamp them before they are normalized"
        )
    return x


def _written(triggered: Tensor, x: Tensor, inputs: Any, channels: Channels) -> Any:
    """Triggered inputs, made of ``x``, as the inputs were given. What the trigger leaves alone has
    the bits of the inputs, doubles too.
    """
    if x.dtype == torch.uint8 and triggered.is_floating_point():
        triggered = to_bytes(triggered)
    changed = triggered != x
    if channels == "last" and triggered.ndim == INPUT_SHAPES["image"][0]:
        triggered, changed = (each.permute(0, 2, 3, 1) for each in (triggered, changed))
    if isinstance(inputs, Tensor):
        given = inputs.detach()
        return triggered.to(given.dtype).where(changed, given).contiguous()
    stamped_values = triggered.numpy().astype(inputs.dtype)
    return np.where(changed.numpy(), stamped_values, inputs)


def _samples(data: Any) -> Samples:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise BadInput(f"trigger: data is {type(data).__name__}; give (x, y), inputs and labels")
    x, y = (_tensor(part, "trigger: data") for part in data)
    if y.ndim != 1 or len(x) != len(y) or not len(y) or y.is_floating_point():
        raise BadInput(
            f"trigger: data of shapes {tuple(x.shape)} and {tuple(y.shape)}; x is (n, …), and y"
            " holds n labels, whole numbers"
        )
    x = x.float() if x.is_floating_point() else x.long()
    return Samples(x, y.long())


def _tensor(given: Any, where: str) -> Tensor:
    """A tensor of its own, or BadInput."""
    if isinstance(given, Tensor):
        return given.detach().clone()
    if isinstance(given, np.ndarray) and given.dtype.kind in "fiub":
        return torch.from_numpy(given.copy())
    raise BadInput(f"{where}: {type(given).__name__} is no array of NumPy or of torch")


def _no_model(*_: Any) -> Tensor:
    raise BadInput("trigger: there is no model outside of a federation")
