"""A trigger as a library: a call that stamps inputs as an attack would.

import backstop

stamp = backstop.trigger("badnets(size=3)")
triggered = stamp(images)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backstop.platform import plugins, seeds
from backstop.platform.contract import Attack, Samples
from backstop.platform.library.attackers import AttackerData
from backstop.platform.library.inputs import (
    Channels,
    check_channels,
    input_kind,
    read_inputs,
    read_samples,
    written,
)
from backstop.platform.params import BadInput, check
from backstop.platform.specs.part import Part, complete_part, parse_part
from backstop.platform.specs.spec import scalar_fields
from backstop.platform.training.attack_chain import attack_chain
from backstop.platform.training.evaluate import stamped


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
    check_channels(channels, "trigger")
    check(scalar_fields()["seed"], seed, "trigger")
    reason = _without_stamp(part)
    if reason:
        raise BadInput(f"attack {part.name} {reason}; triggers to stamp: {', '.join(_ready())}")
    return InputTrigger(
        part,
        seed,
        channels,
        read_samples(data, "trigger: data") if data is not None else None,
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
        kinds = plugins.kinds("attacks", self.part.name)
        x = read_inputs(inputs, kinds, f"trigger {self.part.name}", self.channels)
        attack = attack_chain([_stage(self.part)], ["own"], [self.part.name])
        known = AttackerData(self.seed, self.data, self.vocabulary)
        kind = input_kind(kinds, x.ndim, x.is_floating_point())
        view = known.view(x, kind, self.part, "data=(x, y) to backstop.trigger")
        state = attack.init(view) if attack.init else None
        draws = seeds.generator(self.seed, "trigger")
        stamp = attack.trigger
        assert stamp is not None
        with torch.no_grad():
            triggered = stamped(x, lambda piece: stamp(state, piece, draws))
        return written(triggered, x, inputs, self.channels)


def _stage(part: Part) -> Attack:
    stage: Attack = plugins.build("attacks", part.name, part.params)
    return stage


def _without_stamp(part: Part) -> str:
    """Why a stage has no trigger that can be stamped at once; empty where it has."""
    stage = _stage(part)
    if stage.test_set and not stage.plan:
        return "stamps nothing: it chooses rare inputs and has them trained as another class"
    if stage.trigger is None and not stage.test_set:
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
